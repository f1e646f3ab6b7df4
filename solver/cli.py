"""The command ``thalweg``.

Exit codes: 0 done; 1 nothing could be filled, or the intent is not settled; 2 bad input or refused;
3 the daemon, a chain, a port or a program that is needed is not there, or the daemon failed.

With ``--json`` standard output is one JSON document, an error too: an object with ``code`` and
``detail``, and ``pointer`` or ``mistakes`` where there are any. Its one line for people is on
standard error in either case.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import aiohttp
import msgspec
import structlog
import typer
from msgspec import Struct
from msgspec.structs import replace
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from solver import config as configs
from solver import demo as shows
from solver import devnet
from solver import picture as pictures
from solver import replay as replays
from solver.checker import Task, Verdict
from solver.checker import check as check_claim
from solver.checker import document as claims
from solver.client import Client, NoAnswer, Refused
from solver.core.batch import solve_batch
from solver.core.margin.exposure import Exposure, exposure
from solver.core.margin.scenarios import requirement
from solver.core.program import ProgramError
from solver.core.types import (
    Intent,
    JsonObject,
    Kind,
    MarginState,
    Rejection,
    Solution,
    Token,
    TokenId,
)
from solver.core.venue import PoolFault, Snapshot
from solver.core.winners import select as select_winners
from solver.daemon import Daemon
from solver.records import unpack
from solver.service import checked_config, serving
from solver.startup import StartError
from solver.wire import competition, cow, cow_export, instance, jsonio, v1
from solver.wire import margin as margins
from solver.wire.solution import solution_document

EXIT_DONE, EXIT_NOTHING_FILLED, EXIT_BAD_INPUT, EXIT_NOT_THERE = 0, 1, 2, 3
_SERVER_ERROR = 500
# Typer carries click's classes under private names; this is ClickException.
_USAGE_ERROR = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[2])
_MAX_FILE_BYTES = 64 * 1024 * 1024
_QUOTE_SLIPPAGE_BPS = 5_000
_URL = "http://127.0.0.1:8645"

T = TypeVar("T")


class _Failed(Exception):
    """What ends a command before it is done."""

    def __init__(
        self, code: str, detail: str, pointer: str = "", exit_code: int = EXIT_BAD_INPUT
    ) -> None:
        super().__init__(detail)
        self.code, self.detail, self.pointer, self.exit_code = code, detail, pointer, exit_code


def _invalid(file: Path, error: jsonio.Invalid) -> _Failed:
    """What a file has that cannot be, and where."""
    return _Failed(error.code, f"{file}: {error.pointer}: {error}", error.pointer)


class _Commands(TyperGroup):
    """All commands, with one way to fail."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run one; with ``--json`` a wrong command line is an object like every other error."""
        words = list(sys.argv[1:] if args is None else args)
        as_json = "--json" in words
        try:
            code = super().main(
                words,
                prog_name,
                complete_var,
                standalone_mode and not as_json,
                windows_expand_args,
                **extra,
            )
        except _Failed as error:
            failed = error
        except _USAGE_ERROR as error:
            failed = _Failed("bad_usage", error.format_message())
        else:
            sys.exit(code or EXIT_DONE)
        typer.echo(f"error: {failed.detail}", err=True)
        if as_json:
            answer = {"code": failed.code, "detail": failed.detail}
            _print_json(answer | ({"pointer": failed.pointer} if failed.pointer else {}))
        sys.exit(failed.exit_code)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Intent solver with proofs. Exit codes: 0 done, 1 not filled, 2 bad input, 3 not there.",
)
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
_Url = Annotated[str, typer.Option(help="Where the daemon listens.", envvar="THALWEG_URL")]
_Config = Annotated[Path | None, typer.Option(help="By default ./config.toml.")]
_Account = Annotated[int, typer.Option(min=0, help="Test account of the local chains, from 0.")]


@app.command()
def run(config: _Config = None, as_json: _Json = False) -> None:
    """Start the daemon and stay up until SIGINT or SIGTERM."""
    loaded = _load(config, as_json)
    _log_to_stderr(logging.INFO)
    _guarded(_run(loaded, as_json), as_json)


async def _run(config: configs.Config, as_json: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with serving(config) as (daemon, url):
        if as_json:
            _print_json({"url": url, "accounts": _accounts(daemon)})
        else:
            _welcome(daemon, url)
        sys.stdout.flush()
        await stop.wait()


def _accounts(daemon: Daemon) -> list[str]:
    if not daemon.deployments:
        return []
    return [devnet.user(number).address for number in range(devnet.user_count())]


def _welcome(daemon: Daemon, url: str) -> None:
    typer.echo(f"thalweg listens on {url}")
    for chain, deployment in daemon.deployments.items():
        typer.echo(f"  local chain {chain} at {deployment.url}")
    accounts = _accounts(daemon)
    if accounts:
        typer.echo("accounts to play with (funded and approved on every local chain):")
        for number, address in enumerate(accounts):
            typer.echo(f"  {number}  {address}")
        typer.echo(f"next: {own_name()} submit --sell WETH --buy USDC --amount 1 --account 0")
    typer.echo(f"api:  {url}/v1/openapi.json   stop with Ctrl-C")


def own_name() -> str:
    """What to type for this command: its name where PATH leads to it, else how it was called."""
    called = Path(sys.argv[0])
    found = shutil.which("thalweg")
    if found is not None and Path(found).resolve() == called.resolve():
        return "thalweg"
    if called.name != "thalweg":
        return f"{shlex.quote(sys.executable)} -m solver"
    return shlex.quote(sys.argv[0])


@app.command()
def demo(as_json: _Json = False) -> None:
    """Two local chains, 20 signed intents over HTTP, every outcome with its reason; then stop."""
    _log_to_stderr(logging.ERROR)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="thalweg-demo-") as directory:
        rows = _guarded(_demo(directory, as_json), as_json)
    seconds = time.monotonic() - started
    if as_json:
        _print_json(shows.as_json(rows, seconds))
    else:
        typer.echo(shows.as_text(rows, Console().width))
        typer.echo(f"{len(rows)} intents in {seconds:.1f} s; --json has every digit")
    if any(row.state != row.case.ends for row in rows):
        raise typer.Exit(EXIT_NOTHING_FILLED)


async def _demo(directory: str, as_json: bool) -> list[shows.Shown]:
    base = configs.load(configs.DEFAULT_PATH)
    config = replace(
        base,
        server=replace(base.server, port=0),
        storage=replace(base.storage, directory=directory),
    )
    async with serving(config) as (daemon, url):
        if as_json:
            return await shows.play(daemon, url)
        console = Console()
        if not console.is_terminal:
            return await shows.play(daemon, url)
        with Live(console=console, auto_refresh=False, transient=True) as live:

            def show(rows: Sequence[shows.Shown]) -> None:
                lines = Text("\n".join(shows.in_short(rows)), no_wrap=True, overflow="ellipsis")
                live.update(lines, refresh=True)

            return await shows.play(daemon, url, show)


@app.command()
def solve(
    file: Annotated[Path, typer.Argument(help="A thalweg.instance/1 file or a CoW auction.")],
    as_json: _Json = False,
    chain: Annotated[int, typer.Option(help="Chain id of a CoW auction.")] = 1,
    picture: Annotated[
        Path | None, typer.Option(help="Draw the answer: graph and flow, as .png or .svg.")
    ] = None,
) -> None:
    """Solve one recorded batch and prove how good the answer is."""
    if picture is not None:
        _check_picture(picture)
    body = _read_bytes(file)
    probe = jsonio.decode(body, dict, _MAX_FILE_BYTES)
    if isinstance(probe, Rejection):
        raise _Failed(probe.code, f"{file}: {probe.code}: {probe.detail}", probe.pointer)
    try:
        solved = _solve_instance(body) if "format" in probe else _solve_auction(body, chain)
    except jsonio.Invalid as error:
        raise _invalid(file, error) from error
    except ProgramError as error:
        raise _Failed("no_solution", f"{file}: {error}", exit_code=EXIT_NOTHING_FILLED) from error
    except (ArithmeticError, ValueError, KeyError, TypeError, PoolFault) as error:
        # What a sound-looking file may still hold: pools that no contract would have.
        raise _Failed("bad_file", f"{file}: {error}") from error
    answer, solution = solved.answer, solved.solution
    for warning in answer.get("warnings", ()):
        typer.echo(f"warning: {warning}", err=True)
    if picture is not None:
        _draw(solved, picture)
    if as_json or "format" not in probe:
        _print_json(answer)
    else:
        _show_solution(solution)
    raise typer.Exit(EXIT_DONE if solution.fills else EXIT_NOTHING_FILLED)


class _Solved(Struct, frozen=True):
    """An answer as it is printed and in the core's words, and what it answers."""

    answer: JsonObject
    solution: Solution
    snapshot: Snapshot
    intents: tuple[Intent, ...]
    tokens: dict[TokenId, Token]


def _check_picture(path: Path) -> None:
    """Say before any work that a picture cannot be drawn."""
    if path.suffix not in pictures.ENDINGS:
        raise _Failed("bad_usage", f"--picture {path}: ends neither in .png nor in .svg")
    if not os.access(path if path.exists() else path.parent, os.W_OK) or path.is_dir():
        raise _Failed("not_writable", f"--picture {path}: cannot be written")
    try:
        pictures.load()
    except pictures.NoLibrary as error:
        raise _Failed("no_library", str(error)) from error


def _draw(solved: _Solved, path: Path) -> None:
    derived = {
        TokenId.parse(name): float(price)
        for name, price in solved.solution.certificate.reference.items()
    }
    tokens = pictures.Tokens(solved.tokens, derived | dict(solved.snapshot.prices))
    flow = pictures.flow_of(solved.intents, solved.solution, tokens)
    layout = pictures.layout_of(flow, tokens)
    try:
        pictures.draw(pictures.Scene(solved.snapshot.pools, solved.solution, layout, tokens), path)
    except OSError as error:
        raise _Failed("not_writable", f"--picture {path}: {error.strerror}") from error


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="A recorded batch.")],
    tolerance_bps: Annotated[
        float, typer.Option(min=0, help="Of the volume: what a new solve may differ by.")
    ] = 0.01,
    as_json: _Json = False,
) -> None:
    """Derive again what was sent for a recorded batch, to the byte, and solve the batch anew.

    Exit codes: 0 the same, 1 not the same, 2 unreadable.
    """
    body = _read_document(file)
    try:
        document = _instance(body)
        verdict = replays.replay(document, tolerance_bps)
    except jsonio.Invalid as error:
        raise _invalid(file, error) from error
    except (ArithmeticError, ValueError, KeyError, TypeError, ProgramError, PoolFault) as error:
        raise _Failed("bad_file", f"{file}: {error}") from error
    if as_json:
        _print_json(verdict)
    else:
        typer.echo("derived to the byte" if not verdict.differs else f"differs: {verdict.differs}")
        typer.echo(
            f"solved anew: {verdict.value}, recorded {verdict.recorded} "
            f"({verdict.difference_bps} bps of volume)"
        )
    raise typer.Exit(EXIT_DONE if verdict.holds else EXIT_NOTHING_FILLED)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="A thalweg.instance/1 file, packed or not.")],
    as_cow: Annotated[
        bool, typer.Option("--cow", help="As an auction of CoW Protocol; the only form so far.")
    ] = False,
    native: Annotated[
        str, typer.Option(help="Symbol of the asset in whose price reference prices are stated.")
    ] = "WETH",
    without: Annotated[
        list[str] | None,
        typer.Option(help=f"Go without what cannot be said: {', '.join(cow_export.NAMES)}."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """A recorded batch in another form, on standard output.

    Exit codes: 0 all of it is said, 2 something is not (each is named), or the file is unreadable.
    """
    left = without or []
    if not as_cow:
        raise _Failed("bad_usage", "say which form: --cow")
    if unknown := sorted(set(left) - set(cow_export.NAMES)):
        raise _Failed("bad_usage", f"--without {unknown[0]}: not one of {cow_export.NAMES}")
    body = _read_document(file)
    try:
        auction, unsaid = cow_export.auction_of(_instance(body), native, left)
    except jsonio.Invalid as error:
        raise _invalid(file, error) from error
    except (ArithmeticError, ValueError, KeyError, TypeError) as error:
        raise _Failed("bad_file", f"{file}: {error}") from error
    if unsaid:
        said = "\n".join(f"  {each.name}: {each.detail}" for each in unsaid)
        raise _Failed("not_sayable", f"{file}: an auction cannot say\n{said}")
    _print_json(auction)


@app.command("verify-solution")
def verify_solution(
    file: Annotated[Path, typer.Argument(help="What `thalweg solve` read.")],
    solution: Annotated[Path, typer.Argument(help="What `thalweg solve --json` printed for it.")],
    as_json: _Json = False,
    chain: Annotated[int, typer.Option(help="Chain id of a CoW auction.")] = 1,
) -> None:
    """Check an answer without the optimiser. Exit codes: 0 accepted, 1 rejected, 2 unreadable."""
    problem, answer = _read_document(file), _read_document(solution)
    try:
        verdict = judge(problem, answer, chain)
    except claims.Malformed as error:
        verdict = Verdict((error.violation,), {})
    except (ValueError, KeyError, TypeError) as error:
        raise _Failed("bad_file", f"{file}: {error}") from error
    if as_json:
        _print_json(
            {
                "accepted": verdict.accepted,
                "violations": verdict.violations,
                "figures": verdict.figures,
            }
        )
    else:
        for broken in verdict.violations:
            typer.echo(f"{broken.code} {broken.pointer}: {broken.detail}")
        figures = "  ".join(f"{name} {text}" for name, text in verdict.figures.items())
        typer.echo(f"{'accepted' if verdict.accepted else 'rejected'}  {figures}".rstrip())
    raise typer.Exit(EXIT_DONE if verdict.accepted else EXIT_NOTHING_FILLED)


@app.command()
def margin(
    file: Annotated[Path, typer.Argument(help="A thalweg.margin/1 file.")],
    as_json: _Json = False,
) -> None:
    """What an account has left beyond its margin, and the scenario that decides.

    Exit codes: 0 initial margin is kept, 1 it is not, 2 unreadable.
    """
    try:
        asked = margins.read(_read_bytes(file), _MAX_FILE_BYTES)
    except jsonio.Invalid as error:
        raise _invalid(file, error) from error
    report = requirement(asked.account, asked.market, asked.rule)
    exposed = exposure(asked.account, asked.market, asked.rule)
    if as_json:
        _print_json({**msgspec.to_builtins(report), "exposure": msgspec.to_builtins(exposed)})
    else:
        typer.echo(f"beyond initial margin      {report.initial:,.2f}")
        typer.echo(f"beyond maintenance margin  {report.maintenance:,.2f}")
        typer.echo(f"worst                      {report.worst}: {min(report.pnl):,.2f}")
        for name, (kept, more) in report.add_ons.items():
            typer.echo(f"  {name}: {kept:,.2f}, initial {more:,.2f} more")
        typer.echo(f"margin used                {exposed.used:,.2f} of {_notional(exposed)}")
        typer.echo(f"each position alone        {exposed.isolated:,.2f}{_saved(exposed)}")
        typer.echo(
            f"delta {exposed.delta:,.4f}, gamma {exposed.gamma:.3g}, vega {exposed.vega:,.2f}, "
            f"theta {exposed.theta:,.2f} a day"
        )
    raise typer.Exit(EXIT_DONE if report.initial >= 0.0 else EXIT_NOTHING_FILLED)


def _notional(exposed: Exposure) -> str:
    share = exposed.used / exposed.gross_notional if exposed.gross_notional else 0.0
    return f"{exposed.gross_notional:,.2f} notional ({100.0 * share:.1f} %)"


def _saved(exposed: Exposure) -> str:
    gain = exposed.netting_gain
    return "" if gain is None else f", netting saves {100.0 * gain:.1f} %"


@app.command()
def winners(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="A thalweg.competition/1 file or a CoW auction, then files with more solutions: "
            "of the same format, or answers of CoW solver engines.",
        ),
    ],
    as_json: _Json = False,
) -> None:
    """Rank solutions by surplus, drop the unfair ones and pick winners that do not overlap.

    Exit codes: 0 there is a winner, 1 there is none, 2 unreadable.
    """
    first, *others = files
    names = _file_names(others)
    file = first
    try:
        auction, bids = competition.read_auction(_read_bytes(first), _MAX_FILE_BYTES)
        for file, name in zip(others, names, strict=True):
            bids += competition.read_bids(_read_bytes(file), name, auction, _MAX_FILE_BYTES)
    except jsonio.Invalid as error:
        detail = f"{file}: {error.pointer}: {error}" if error.pointer else f"{file}: {error}"
        raise _Failed(error.code, detail, error.pointer) from error
    try:
        ranking = select_winners(auction, bids)
    except ValueError as error:
        raise _Failed("duplicate_solution", str(error)) from error
    answer = competition.ranking_document(ranking)
    if as_json:
        _print_json(answer)
    else:
        _show_ranking(answer)
    raise typer.Exit(EXIT_DONE if answer.winners else EXIT_NOTHING_FILLED)


def _file_names(files: Sequence[Path]) -> list[str]:
    """What an answer without a solver's name is called: its file, or the path of one of several."""
    stems = [file.stem for file in files]
    return [
        stem if stems.count(stem) == 1 else str(file)
        for stem, file in zip(stems, files, strict=True)
    ]


def _show_ranking(answer: competition.RankingDocument) -> None:
    table = Table()
    for name in ("solver", "solution", "standing", "score (wei)", "reference (wei)", "reason"):
        table.add_column(name, overflow="fold")
    for entry in (*answer.winners, *answer.others):
        reference = answer.reference_scores.get(entry.solver, "") if not entry.reason else ""
        table.add_row(entry.solver, entry.id, entry.standing, entry.score, reference, entry.reason)
    Console().print(table)


def _read_bytes(file: Path) -> bytes:
    """What a file holds, unpacked if it is a packed record."""
    try:
        return unpack(file.read_bytes(), _MAX_FILE_BYTES)
    except OSError as error:
        raise _Failed("no_file", f"{file}: {error.strerror}") from error
    except ValueError as error:
        raise _Failed("bad_file", f"{file}: {error}") from error


def _read_document(file: Path) -> bytes:
    """The bytes of a JSON object; one line and exit code 2 for anything else."""
    body = _read_bytes(file)
    probe = jsonio.decode(body, dict, _MAX_FILE_BYTES)
    if isinstance(probe, Rejection):
        raise _Failed(probe.code, f"{file}: {probe.code}: {probe.detail}", probe.pointer)
    return body


def judge(problem: bytes, answer: bytes, chain: int = 1) -> Verdict:
    """Check the answer to an instance file or a CoW auction.

    Raises Malformed where the answer has not the form of one, ValueError or KeyError where the
    problem has not.
    """
    document, said = msgspec.json.decode(problem), msgspec.json.decode(answer)
    if "format" in document:
        read = jsonio.decode(problem, instance.Instance, _MAX_FILE_BYTES)
        if isinstance(read, Rejection):
            raise ValueError(f"{read.code} {read.pointer}: {read.detail}")
        snapshot, intents, _ = instance.to_core(read)
        terms = instance.terms_to_core(read)
        task = Task(
            snapshot,
            intents,
            terms.fees,
            terms.max_impact_bps,
            terms.capital_bps,
            schedule=terms.schedule,
            margin=terms.margin,
        )
        return check_claim(task, claims.read_native(said))
    auction = jsonio.decode(problem, cow.Auction, _MAX_FILE_BYTES)
    if isinstance(auction, Rejection):
        raise ValueError(f"{auction.code} {auction.pointer}: {auction.detail}")
    read_auction = cow.to_core(auction, chain, "")
    orders = {
        intent.digest: (intent.swap.sell, intent.swap.buy, intent.swap.kind is Kind.EXACT_IN)
        for intent in read_auction.intents
    }
    pools = {pool.id: pool.tokens for pool in read_auction.snapshot.pools}
    claim = claims.read_cow(said, chain, orders, pools)
    tokens = {address.lower(): token for address, token in auction.tokens.items()}
    task = Task(
        read_auction.snapshot,
        read_auction.intents,
        trusted={name: token.trusted for name, token in tokens.items()},
        buffers={name: jsonio.integer(token.available_balance) for name, token in tokens.items()},
    )
    return check_claim(task, claim)


def _solve_auction(body: bytes, chain: int) -> _Solved:
    auction = jsonio.decode(body, cow.Auction, _MAX_FILE_BYTES)
    if isinstance(auction, Rejection):
        raise jsonio.Invalid(auction.code, auction.detail, auction.pointer)
    problem = cow.to_core(auction, chain, "0x" + hashlib.sha256(body).hexdigest())
    solution = solve_batch(problem.snapshot, problem.intents)
    answer, names = cow.from_core(problem, solution), cow.tokens_of(auction, chain)
    return _Solved(answer, solution, problem.snapshot, problem.intents, names)


def _solve_instance(body: bytes) -> _Solved:
    document = _instance(body)
    snapshot, intents, warnings = instance.to_core(document)
    seed = document.seed or "0x" + hashlib.sha256(body).hexdigest()
    solution = solve_batch(replace(snapshot, hash=seed), intents, instance.terms_to_core(document))
    answer = msgspec.to_builtins(solution_document(solution, warnings))
    return _Solved(answer, solution, snapshot, intents, instance.tokens_of(document))


def _instance(body: bytes) -> instance.Instance:
    """Raises Invalid."""
    document = jsonio.decode(body, instance.Instance, _MAX_FILE_BYTES)
    if isinstance(document, Rejection):
        raise jsonio.Invalid(document.code, document.detail, document.pointer)
    return document


def _show_solution(solution: Solution) -> None:
    console = Console()
    fills = Table("intent", "sells", "gets", "fee", title="fills")
    for fill in solution.fills:
        fills.add_row(fill.digest[:12] + "…", str(fill.sell), str(fill.buy), str(fill.fee))
    console.print(fills)
    for reason in solution.open:
        console.print(f"open {reason.digest[:12]}… {reason.code}: {reason.detail}")
    for kept in solution.margin:
        before, after = (_health(state) for state in (kept.before, kept.after))
        typer.echo(
            f"account {kept.account[:12]}… initial {kept.before.initial:,.2f} → "
            f"{kept.after.initial:,.2f}, health {before} → {after}, worst {kept.after.worst}"
        )
        for row, price in kept.prices.items():
            held, _, decides = row.partition(f"{kept.account}:")
            typer.echo(f"  {held}{decides}: one more unit would bring {price:.6g}")
    proof = solution.certificate
    console.print(
        f"value {proof.value}  bound {proof.bound}  net gap {proof.net_gap} "
        f"({proof.net_gap_bps} bps of volume)"
    )


def _health(state: MarginState) -> str:
    return "∞" if state.health is None else f"{state.health:.3f}"


_Sell = Annotated[str, typer.Option(help="Symbol of the token that is sold.")]
_Buy = Annotated[str, typer.Option(help="Symbol of the token that is bought.")]
_Amount = Annotated[str, typer.Option(help="Sold, or bought with --exact-out; whole tokens.")]
_Chain = Annotated[int, typer.Option(help="Chain of the sold token.")]
_ToChain = Annotated[int, typer.Option(help="Chain of the bought token; 0: the same.")]
_Slippage = Annotated[int, typer.Option(help="Below the reference price; becomes a hard limit.")]
_Limit = Annotated[str, typer.Option(help="The hard limit instead of --slippage-bps.")]
_ExactOut = Annotated[bool, typer.Option("--exact-out", help="--amount is what is bought.")]
_Partial = Annotated[bool, typer.Option("--partial", help="May be filled in parts.")]
_Lifetime = Annotated[int, typer.Option(min=1, help="Seconds until it expires.")]


@app.command()
def quote(
    sell: _Sell,
    buy: _Buy,
    amount: _Amount,
    chain: _Chain = 31337,
    to_chain: _ToChain = 0,
    exact_out: _ExactOut = False,
    account: _Account = 0,
    url: _Url = _URL,
    as_json: _Json = False,
) -> None:
    """What an order would get now, alone, with the proof of how good that is."""

    async def work(client: Client) -> v1.QuoteView:
        draft = await _draft(client, sell, buy, amount, chain, to_chain, exact_out, account)
        # A question has no limit of its own; this one only keeps the order meaningful.
        draft = replace(draft, slippage_bps=_QUOTE_SLIPPAGE_BPS)
        return await client.ask("POST", "/v1/quote", v1.QuoteView, draft)

    view = _call(url, work, as_json)
    if as_json:
        _print_json(view)
    else:
        typer.echo(f"sells {view.sell}, gets {view.buy}, fee {view.fee} (base units)")
        fees = msgspec.structs.asdict(view.fees)
        typer.echo("fees: " + ", ".join(f"{kind} {amount}" for kind, amount in fees.items()))
        for leg in view.legs:
            typer.echo(f"  {leg.pool}: {leg.amount_in} → {leg.amount_out}")
        if view.reason is not None:
            typer.echo(f"not wholly filled: {view.reason.code}: {view.reason.detail}")
        typer.echo(f"net gap to the proven bound: {view.certificate.net_gap_bps} bps")
    raise typer.Exit(EXIT_DONE if view.filled else EXIT_NOTHING_FILLED)


@app.command()
def submit(
    sell: _Sell,
    buy: _Buy,
    amount: _Amount,
    chain: _Chain = 31337,
    to_chain: _ToChain = 0,
    exact_out: _ExactOut = False,
    slippage_bps: _Slippage = 50,
    limit: _Limit = "",
    partial: _Partial = False,
    lifetime: _Lifetime = 600,
    account: _Account = 0,
    url: _Url = _URL,
    as_json: _Json = False,
) -> None:
    """Sign an order with a test account of the local chains and submit it."""

    async def work(client: Client) -> v1.IntentView:
        draft = await _draft(client, sell, buy, amount, chain, to_chain, exact_out, account, limit)
        draft = replace(
            draft,
            slippage_bps=slippage_bps,
            partial_fill=partial,
            lifetime_seconds=lifetime,
        )
        data = await client.draft(draft)
        return await client.submit(data.swap, devnet.user(account))

    view = _call(url, work, as_json)
    if as_json:
        _print_json(view)
    else:
        typer.echo(view.id)
        typer.echo(f"next: {own_name()} status {view.id}")


@app.command()
def status(
    identity: Annotated[str, typer.Argument(metavar="ID")],
    wait: Annotated[float, typer.Option(help="Wait so many seconds for a final state.")] = 0.0,
    url: _Url = _URL,
    as_json: _Json = False,
) -> None:
    """Where an intent is; exit code 0 when it is settled, else 1."""

    async def work(client: Client) -> v1.IntentView:
        deadline = time.monotonic() + wait
        while True:
            view = await client.intent(identity)
            if view.state not in ("open", "batched", "escrowed") or time.monotonic() > deadline:
                return view
            await asyncio.sleep(0.1)

    view = _call(url, work, as_json)
    if as_json:
        _print_json(view)
    else:
        typer.echo(f"{view.state}  sold {view.sold}  bought {view.bought} (base units)")
        for fill in view.fills:
            kinds = msgspec.structs.asdict(fill.fees).items()
            others = "".join(f", {kind} {n}" for kind, n in kinds if kind != "gas" and n != "0")
            typer.echo(f"  {fill.transaction} on chain {fill.chain}, fee {fill.fee}{others}")
        if view.surplus_bps:
            typer.echo(f"  {view.surplus_bps} bps better than the limit")
        if view.code:
            typer.echo(f"  {view.code} {view.detail}".rstrip())
    raise typer.Exit(EXIT_DONE if view.state == "settled" else EXIT_NOTHING_FILLED)


@app.command()
def explain(
    identity: Annotated[str, typer.Argument(metavar="ID")],
    url: _Url = _URL,
    as_json: _Json = False,
) -> None:
    """Why an intent is not filled: the best reachable rate, its limit, what binds.

    With the number of an auction of CoW Protocol: what was offered there and what became of it.
    """
    if identity.isdecimal() or identity == "quote":
        _explain_auction(identity, url, as_json)
        return
    view = _call(url, lambda client: client.intent(identity), as_json)
    reason = view.reason
    if as_json:
        _print_json({"id": view.id, "state": view.state, "code": view.code, "reason": reason})
        return
    typer.echo(f"{view.state} {view.code}".rstrip())
    if view.state != "open":
        return
    if reason is None:
        typer.echo("no batch has looked at it yet")
        return
    typer.echo(f"{reason.code}: {reason.detail}")
    if reason.best_rate:
        best, limit = reason.best_rate_per_token, reason.limit_rate_per_token
        unit = "whole tokens" if best else "base units"
        typer.echo(f"best reachable rate  {best or reason.best_rate} ({unit} bought per one sold)")
        typer.echo(f"its limit            {limit or reason.limit_rate}")
    if reason.binding:
        typer.echo(f"binding              {reason.binding}")


def _explain_auction(number: str, url: str, as_json: bool) -> None:
    view = _call(url, lambda client: client.auction(number), as_json)
    if as_json:
        _print_json(view)
        return
    for offered in view.solutions:
        typer.echo(
            f"solution {offered.id}: {', '.join(order[:12] + '…' for order in offered.orders)}"
        )
    if not view.solutions:
        typer.echo("no solution was offered")
    for reason in view.left_out:
        typer.echo(f"left out  {reason}")
    for notice in view.notices:
        which = ", ".join(map(str, notice.solutions)) or "all"
        typer.echo(f"{notice.kind}  (solution {which})  {bytes(notice.body).decode()}")


@app.command()
def cancel(
    identity: Annotated[str, typer.Argument(metavar="ID")],
    account: _Account = 0,
    url: _Url = _URL,
    as_json: _Json = False,
) -> None:
    """Cancel an open intent with its owner's signature."""

    async def work(client: Client) -> v1.IntentView:
        return await client.cancel(await client.intent(identity), devnet.user(account))

    view = _call(url, work, as_json)
    _print_json(view) if as_json else typer.echo(view.state)


@app.command()
def venues(url: _Url = _URL, as_json: _Json = False) -> None:
    """The daemon's venues, and why some are left out."""
    views = _call(url, lambda client: client.ask("GET", "/v1/venues", list[v1.VenueView]), as_json)
    if as_json:
        _print_json(views)
        return
    table = Table("name", "kind", "chain", "pools", "ms", "left out because")
    for view in views:
        table.add_row(
            view.name,
            view.kind,
            str(view.chain),
            str(view.pools),
            f"{view.milliseconds:.1f}",
            view.reason,
        )
    Console().print(table)


@app.command("check-config")
def check_config(
    file: Annotated[Path | None, typer.Argument(help="By default ./config.toml.")] = None,
    as_json: _Json = False,
) -> None:
    """Read a config file and name everything that is wrong with it."""
    config = _load(file, as_json)
    if as_json:
        _print_json({"ok": True, "mistakes": []})
    else:
        typer.echo(
            f"sound: {len(config.chain)} chains, {len(config.token)} tokens, "
            f"{len(config.venue)} venues"
        )


async def _draft(
    client: Client,
    sell: str,
    buy: str,
    amount: str,
    chain: int,
    to_chain: int,
    exact_out: bool,
    account: int,
    limit: str = "",
) -> v1.Draft:
    if account >= devnet.user_count():
        raise _Failed("no_account", f"there are test accounts 0 to {devnet.user_count() - 1}")
    tokens = {(token.symbol, token.chain): token for token in (await client.info()).tokens}
    ends = []
    for symbol, where in ((sell, chain), (buy, to_chain or chain)):
        if (symbol, where) not in tokens:
            known = ", ".join(sorted(name for name, number in tokens if number == where))
            detail = f"no token {symbol} on chain {where}; known: {known or 'none'}"
            raise _Failed("unknown_asset", detail)
        ends.append(tokens[symbol, where])
    fixed, other = (ends[1], ends[0]) if exact_out else (ends[0], ends[1])
    given, bound = _base_units(amount, fixed.decimals), _base_units(limit, other.decimals)
    return v1.Draft(
        owner=devnet.user(account).address,
        sell_chain=ends[0].chain,
        sell_asset=ends[0].address,
        buy_chain=ends[1].chain,
        buy_asset=ends[1].address,
        kind=Kind.EXACT_OUT if exact_out else Kind.EXACT_IN,
        sell_amount=bound if exact_out else given,
        buy_amount=given if exact_out else bound,
    )


def _base_units(text: str, decimals: int) -> str:
    """Whole tokens as base units; empty stays empty. Digits beyond the token's are refused."""
    if not text:
        return ""
    whole, _, fraction = text.partition(".")
    plain = (whole + fraction).isascii() and (whole + fraction).isdigit()
    if not plain or len(fraction) > decimals or len(whole) > 60:
        detail = f"{text[:80]!r} is not an amount with at most {decimals} decimals"
        raise _Failed("bad_amount", detail)
    return str(int(whole + fraction.ljust(decimals, "0")))


def _call(url: str, work: Any, as_json: bool) -> Any:
    async def connected() -> Any:
        async with aiohttp.ClientSession() as session:
            return await work(Client(url, session))

    return _guarded(connected(), as_json)


def _guarded(work: Coroutine[Any, Any, T], as_json: bool) -> T:
    """Run to the end; what is missing is one line and exit code 3, a refusal exit code 2."""
    try:
        return asyncio.run(work)
    except (NoAnswer, StartError) as error:
        code = "no_answer" if isinstance(error, NoAnswer) else "cannot_start"
        raise _Failed(code, str(error), exit_code=EXIT_NOT_THERE) from error
    except Refused as error:
        problem = error.problem
        broken = problem.status >= _SERVER_ERROR
        raise _Failed(
            problem.code,
            str(error),
            problem.pointer,
            EXIT_NOT_THERE if broken else EXIT_BAD_INPUT,
        ) from error


def _load(path: Path | None, as_json: bool) -> configs.Config:
    try:
        return checked_config(path)
    except configs.ConfigError as error:
        typer.echo(str(error), err=True)
        if as_json:
            mistakes = {"ok": False, "mistakes": error.mistakes}
            _print_json({"code": "bad_config", "detail": str(error), **mistakes})
        raise typer.Exit(EXIT_BAD_INPUT) from error


def _print_json(value: Any) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _log_to_stderr(level: int) -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def main() -> None:
    """Entry point."""
    app()
