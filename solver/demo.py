"""Twenty intents over HTTP, from signature to settlement, each with its outcome and the reason."""

from __future__ import annotations

import asyncio
import textwrap
import time
from collections.abc import Callable, Collection, Sequence

import aiohttp
from msgspec import Struct
from msgspec.structs import replace

from solver import devnet
from solver.chain import Wallet
from solver.client import Client, Refused
from solver.core.types import JsonObject, Kind
from solver.daemon import Daemon
from solver.wire import v1

_FINAL = {"settled", "cancelled", "expired", "refunded", "refused"}
_PATIENCE_SECONDS = 60.0  # it ends as soon as everything has shown itself
_POLL_SECONDS = 0.1
_BOOK = "levels"
_CASE, _STATE, _INDENT, _DIGITS = 25, 11, "    ", 8  # of the text for terminals
_WORDS = ("no", "one", "two", "three", "four", "five", "six")
A, B = 31337, 31338


class Case(Struct, frozen=True):
    """One intent of the demo. ``ends`` is the state in which it has nothing more to show."""

    name: str
    user: int
    sell: tuple[str, int]
    buy: tuple[str, int]
    sell_amount: str = ""
    buy_amount: str = ""
    kind: Kind = Kind.EXACT_IN
    partial: bool = False
    slippage_bps: int = 100
    lifetime_seconds: int = 900
    ends: str = "settled"


CASES: tuple[Case, ...] = (
    Case("order book", 0, ("WETH", A), ("USDC", A), "0.5", slippage_bps=600),
    Case("match, one side", 0, ("WBTC", B), ("DAI", B), "0.5", slippage_bps=0),
    Case("match, other side", 1, ("DAI", B), ("WBTC", B), "30010", slippage_bps=30),
    Case("split over pools", 1, ("WETH", A), ("USDC", A), "20", slippage_bps=600),
    Case("two hops", 2, ("WBTC", A), ("USDC", A), "0.5", slippage_bps=900),
    Case("exact output", 3, ("WETH", A), ("USDC", A), "", "5000", Kind.EXACT_OUT, False, 600),
    Case("partly filled", 4, ("WETH", B), ("USDC", B), "200", "488000", partial=True, ends="open"),
    Case("cross-chain", 2, ("WETH", A), ("USDC", B), "2", slippage_bps=600),
    Case("cancelled", 5, ("WETH", A), ("USDC", A), "1", "9000", ends="cancelled"),
    Case("expired", 5, ("WETH", A), ("USDC", A), "1", "9000", lifetime_seconds=5, ends="expired"),
    Case("bad signature", 5, ("WETH", A), ("USDC", A), "1", ends="refused"),
    Case("out of reach", 5, ("WETH", A), ("USDC", A), "1", "3000", ends="open"),
    Case("stablecoins", 3, ("DAI", A), ("USDC", A), "10000", slippage_bps=300),
    Case("buy ETH", 3, ("USDC", A), ("WETH", A), "7500", slippage_bps=300),
    Case("three tokens", 4, ("DAI", A), ("WBTC", A), "5000", slippage_bps=800),
    Case("cross-chain, same token", 1, ("USDC", A), ("USDC", B), "1500", slippage_bps=300),
    Case("other chain", 4, ("USDC", B), ("WETH", B), "2500", slippage_bps=300),
    Case("exact output there", 0, ("WETH", B), ("USDC", B), "", "1000", Kind.EXACT_OUT, False, 600),
    Case("small", 2, ("USDC", A), ("DAI", A), "150", slippage_bps=300),
    Case("large", 1, ("WBTC", A), ("WETH", A), "1", slippage_bps=900),
)


class Shown(Struct, frozen=True):
    """A case with what came of it. ``route`` is how it was filled, read from its batch."""

    case: Case
    id: str
    state: str
    asked: str
    sold: str
    bought: str
    surplus_bps: str
    net_gap_bps: str
    transactions: list[str]
    reason: str
    route: str = ""


Report = Callable[[Sequence[Shown]], None]


async def play(
    daemon: Daemon,
    url: str,
    report: Report = lambda rows: None,
    patience_seconds: float = _PATIENCE_SECONDS,
) -> list[Shown]:
    """Submit everything, watch until each case has shown what it is for, return the last rows."""
    async with aiohttp.ClientSession() as session:
        client = Client(url, session)
        info = await client.info()
        tokens = {(token.symbol, token.chain): token for token in info.tokens}
        rows = [await _submit(client, case, tokens) for case in CASES]
        report(rows)
        graph = await client.ask("GET", "/v1/graph", v1.GraphView)
        books = {arc.pool for arc in graph.arcs if arc.kind == _BOOK}
        deadline = time.monotonic() + patience_seconds
        while time.monotonic() < deadline:
            rows = [await _look(client, row, tokens, books) for row in rows]
            report(rows)
            if all(has_shown(row) for row in rows) and daemon.escrows.count == 0:
                break
            await asyncio.sleep(_POLL_SECONDS)
        return rows


def as_json(rows: Sequence[Shown], seconds: float) -> JsonObject:
    """The demo as one object."""
    return {
        "seconds": round(seconds, 3),
        "intents": [
            {
                "id": row.id,
                "case": row.case.name,
                "state": row.state,
                "asked": row.asked,
                "sold": row.sold,
                "bought": row.bought,
                "surplusBps": row.surplus_bps,
                "netGapBps": row.net_gap_bps,
                "route": row.route,
                "transactions": row.transactions,
                "reason": row.reason,
            }
            for row in rows
        ],
    }


async def _submit(client: Client, case: Case, tokens: dict[tuple[str, int], v1.TokenView]) -> Shown:
    wallet = devnet.user(case.user)
    sell, buy = tokens[case.sell], tokens[case.buy]
    data = await client.draft(
        v1.Draft(
            owner=wallet.address,
            sell_chain=sell.chain,
            sell_asset=sell.address,
            buy_chain=buy.chain,
            buy_asset=buy.address,
            kind=case.kind,
            sell_amount=_units(case.sell_amount, sell.decimals),
            buy_amount=_units(case.buy_amount, buy.decimals),
            slippage_bps=case.slippage_bps,
            partial_fill=case.partial,
            lifetime_seconds=case.lifetime_seconds,
        )
    )
    asked = _asked(data.swap.sell_amount, sell, data.swap.buy_amount, buy, case.kind)
    empty = Shown(case, data.id, "open", asked, "", "", "", "", [], "")
    signer: Wallet = devnet.user(0) if case.name == "bad signature" else wallet
    try:
        view = await client.submit(data.swap, signer)
    except Refused as error:
        return replace(empty, state="refused", reason=str(error))
    if case.ends == "cancelled":
        await client.cancel(view, wallet)
    return empty


async def _look(
    client: Client,
    row: Shown,
    tokens: dict[tuple[str, int], v1.TokenView],
    books: Collection[str],
) -> Shown:
    if row.state in _FINAL:
        return row
    view = await client.intent(row.id)
    sell, buy = tokens[row.case.sell], tokens[row.case.buy]
    reason = view.code.replace("_", " ")
    if view.state == "open" and view.reason is not None:
        reason = f"{view.reason.code}: {view.reason.detail}"
    return replace(
        row,
        state=view.state,
        sold=_whole(view.sold, sell) if view.sold != "0" else "",
        bought=_whole(view.bought, buy) if view.bought != "0" else "",
        surplus_bps=view.surplus_bps,
        net_gap_bps=view.net_gap_bps,
        transactions=[fill.transaction for fill in view.fills],
        reason=reason,
        route=route_in_words(view.route, books),
    )


def route_in_words(hops: Sequence[v1.HopView], books: Collection[str]) -> str:
    """How an order was filled: through what, over how many hops, from whom. Empty without a fill.

    The hops are those of the batch between the order's two tokens: orders that share a batch and a
    direction have one rate and one route.
    """
    if not hops:
        return ""
    if any(hop.pool == v1.MATCHED for hop in hops):
        return "matched without a pool"
    swaps = [hop for hop in hops if hop.pool != v1.INVENTORY]
    parts = [_swaps_in_words(swaps, books)] if swaps else []
    if len(swaps) < len(hops):
        parts.append("cross-chain from inventory")
    return ", then ".join(parts)


def _swaps_in_words(hops: Sequence[v1.HopView], books: Collection[str]) -> str:
    pools = {hop.pool for hop in hops if hop.pool not in books}
    used = [f"{len(pools)} pools" if len(pools) > 1 else "one pool"] if pools else []
    used += ["the order book"] if len(pools) < len({hop.pool for hop in hops}) else []
    lengths = _lengths(hops) or {1}
    least, most = min(lengths), max(lengths)
    several = len(hops) > most
    through = ("split over " if several else "through ") + " and ".join(used)
    if most == 1:
        return through
    count = _count(most) if least == most else f"{_count(least)} to {_count(most)}"
    return f"{count} hops, {through}"


def _count(number: int) -> str:
    return _WORDS[number] if number < len(_WORDS) else str(number)


def _lengths(hops: Sequence[v1.HopView]) -> set[int]:
    """The numbers of hops of all ways, from tokens that are only left to where a way ends."""
    onward: dict[str, set[str]] = {}
    for hop in hops:
        onward.setdefault(hop.token_in, set()).add(hop.token_out)
    starts = onward.keys() - {hop.token_out for hop in hops}
    found: set[int] = set()
    ways: list[tuple[str, ...]] = [(start,) for start in starts]
    while ways:
        way = ways.pop()
        further = onward.get(way[-1], set()) - set(way)
        if not further:
            found.add(len(way) - 1)
        ways += [(*way, token) for token in further]
    return found


def has_shown(row: Shown) -> bool:
    """Whether the case has shown what it is for."""
    if row.case.ends != "open":
        return row.state == row.case.ends
    filled = not row.case.partial or bool(row.bought)
    return row.state == "open" and bool(row.reason) and filled


def as_text(rows: Sequence[Shown], width: int) -> str:
    """The demo for a terminal: two lines for each intent, amounts cut to a few digits."""
    lines = [f"{'case':<{_CASE}}{'state':<{_STATE}}sold → got, or what was asked"]
    for row in rows:
        amounts = (row.sold, row.bought) if row.bought else row.asked.split(" → ")
        lines += [_head(row) + " → ".join(map(_few, amounts)), *_wrapped(_facts(row), width)]
    return "\n".join(lines)


def in_short(rows: Sequence[Shown]) -> list[str]:
    """One line for each intent, for a table that is drawn again and again."""
    return [_head(row) + (row.route or row.reason or row.asked) for row in rows]


def _head(row: Shown) -> str:
    return f"{row.case.name:<{_CASE}}{row.state:<{_STATE}}"


def _facts(row: Shown) -> list[str]:
    """How or why, how good, and the last transaction; ``--json`` has every one whole."""
    facts = [text for text in (row.route, row.reason) if text]
    if row.surplus_bps:
        facts.append(f"{float(row.surplus_bps):.1f} bps over its limit")
        facts.append(f"gap of its batch {float(row.net_gap_bps or 0):.1f} bps")
    facts += [f"{sent[:10]}…{sent[-8:]}" for sent in row.transactions[-1:]]
    return facts


def _wrapped(facts: Sequence[str], width: int) -> list[str]:
    """The facts in lines, each of them in one piece where it fits into one."""
    lines, line = [], ""
    for fact in facts:
        longer = f"{line}; {fact}" if line else fact
        if line and len(longer) > width - len(_INDENT) - 1:
            lines.append(f"{line};")
            line = fact
        else:
            line = longer
    lines.append(line)
    return [
        part
        for line in lines
        for part in textwrap.wrap(line, width, initial_indent=_INDENT, subsequent_indent=_INDENT)
    ]


def _few(amount: str) -> str:
    """The first digits of an amount with its symbol, cut and not rounded."""
    number, _, symbol = amount.partition(" ")
    whole, _, fraction = number.partition(".")
    kept = fraction[: max(_DIGITS - len(whole.lstrip("≥≤0")), 2)].rstrip("0")
    return f"{whole}.{kept} {symbol}" if kept else f"{whole} {symbol}"


def _units(text: str, decimals: int) -> str:
    """A decimal amount in base units; empty stays empty."""
    if not text:
        return ""
    whole, _, fraction = text.partition(".")
    return str(int(whole + fraction.ljust(decimals, "0")[:decimals]))


def _whole(amount: str, token: v1.TokenView) -> str:
    """Base units as a decimal number with the symbol; nothing is rounded away."""
    digits = amount.rjust(token.decimals + 1, "0")
    cut = len(digits) - token.decimals
    number = f"{digits[:cut]}.{digits[cut:]}".rstrip("0").rstrip(".")
    return f"{number} {token.symbol}"


def _asked(
    sell_amount: str, sell: v1.TokenView, buy_amount: str, buy: v1.TokenView, kind: Kind
) -> str:
    least, most = ("≥", "") if kind is Kind.EXACT_IN else ("", "≤")
    return f"{most}{_whole(sell_amount, sell)} → {least}{_whole(buy_amount, buy)}"
