"""The command ``thalweg``. Exit codes: 0 done, 1 nothing could be filled, 2 bad input."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from solver.core.batch import solve_batch
from solver.core.program import ProgramError
from solver.core.types import JsonObject, Rejection, Solution
from solver.wire import cow, instance, jsonio

EXIT_DONE, EXIT_NOTHING_FILLED, EXIT_BAD_INPUT = 0, 1, 2
_MAX_FILE_BYTES = 64 * 1024 * 1024

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="Intent solver with proofs."
)
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


@app.callback()
def thalweg() -> None:
    """Keeps ``solve`` a sub-command while it is the only one."""


@app.command()
def solve(
    file: Annotated[Path, typer.Argument(help="A thalweg.instance/1 file or a CoW auction.")],
    as_json: _Json = False,
    chain: Annotated[int, typer.Option(help="Chain id of a CoW auction.")] = 1,
) -> None:
    """Solve one recorded batch and prove how good the answer is."""
    try:
        body = file.read_bytes()
    except OSError as error:
        raise _refuse(f"{file}: {error.strerror}") from error
    probe = jsonio.decode(body, dict, _MAX_FILE_BYTES)
    if isinstance(probe, Rejection):
        raise _refuse(f"{file}: {probe.code}: {probe.detail}")
    try:
        if "format" in probe:
            answer, solution = _solve_instance(body)
        else:
            answer, solution = _solve_auction(body, chain)
    except ProgramError as error:
        raise _refuse(f"{file}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise _refuse(f"{file}: {error}") from error
    for warning in answer.get("warnings", ()):
        typer.echo(f"warning: {warning}", err=True)
    if as_json or "format" not in probe:
        typer.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
    else:
        _show(solution)
    raise typer.Exit(EXIT_DONE if solution.fills else EXIT_NOTHING_FILLED)


def _solve_auction(body: bytes, chain: int) -> tuple[JsonObject, Solution]:
    auction = jsonio.decode(body, cow.Auction, _MAX_FILE_BYTES)
    if isinstance(auction, Rejection):
        raise ValueError(f"{auction.code} {auction.pointer}: {auction.detail}")
    problem = cow.to_core(auction, chain, "0x" + hashlib.sha256(body).hexdigest())
    solution = solve_batch(problem.snapshot, problem.intents)
    return cow.from_core(problem, solution), solution


def _solve_instance(body: bytes) -> tuple[JsonObject, Solution]:
    document = jsonio.decode(body, instance.Instance, _MAX_FILE_BYTES)
    if isinstance(document, Rejection):
        raise ValueError(f"{document.code} {document.pointer}: {document.detail}")
    snapshot, intents, warnings = instance.to_core(document)
    snapshot = msgspec.structs.replace(snapshot, hash="0x" + hashlib.sha256(body).hexdigest())
    solution = solve_batch(snapshot, intents)
    answer: JsonObject = msgspec.to_builtins(solution, enc_hook=str)
    for fill in answer["fills"]:
        fill.update({key: str(fill[key]) for key in ("sell", "buy", "fee")})
    answer["warnings"] = list(warnings)
    return answer, solution


def _show(solution: Solution) -> None:
    console = Console()
    fills = Table("intent", "sells", "gets", "fee", title="fills")
    for fill in solution.fills:
        fills.add_row(fill.digest[:12] + "…", str(fill.sell), str(fill.buy), str(fill.fee))
    console.print(fills)
    for reason in solution.open:
        console.print(f"open {reason.digest[:12]}… {reason.code}: {reason.detail}")
    proof = solution.certificate
    console.print(
        f"value {proof.value}  bound {proof.bound}  net gap {proof.net_gap} "
        f"({proof.net_gap_bps} bps of volume)"
    )


def _refuse(message: str) -> typer.Exit:
    typer.echo(f"error: {message}", err=True)
    return typer.Exit(EXIT_BAD_INPUT)


def main() -> None:
    """Entry point."""
    app()
