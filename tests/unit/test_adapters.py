"""The adapter guide as written, and the conformance kit against sound and broken pools."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from solver.core.abi import encode_call
from solver.core.pools import BookPool, ConstantProductPool, Level, LimitOrderPool
from solver.core.types import Call, Exact, TokenId
from solver.core.venue import BlockRef, ConstantProductArc, EventLog, Quote, Step
from tests.make import UNIT, A, B, pair
from venues.bridge import BridgeRoute
from venues.constant_product import ConstantProduct, Pair
from venues.order_book import LEVEL_CHANGED, ListedBook, OrderBook
from venues.testing import FixedReader, Nonconformance, check_pool, check_venue

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "adapters.md"
README = GUIDE.parents[1] / "README.md"
ADDRESS = "0x" + "ad" * 20


def test_the_guide_works_as_written(tmp_path: Path) -> None:
    """Its files are written, installed where nothing else is, found by kind, and tested."""
    text = GUIDE.read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", text, re.DOTALL)
    files = dict(blocks)
    assert sorted(files) == ["my_venues/fixed_rate.py", "pyproject.toml", "test_fixed_rate.py"]
    package, target = tmp_path / "my-venues", tmp_path / "installed"
    for name, body in (*files.items(), ("my_venues/__init__.py", "")):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(body, encoding="utf-8")
    count = len(files["my_venues/fixed_rate.py"].splitlines())
    assert f"module\nof {count} lines" in text
    assert f"module of {count} lines" in README.read_text(encoding="utf-8")
    ways = re.findall(r"^\.venv/bin/python (-m .*?) \S*(my-venues\S*)$", text, re.MULTILINE)
    assert [way[0].split()[1] for way in ways] == ["pip", "pytest"]
    options = ways[0][0].removesuffix(" -e").split()
    _python(tmp_path, *options, "--quiet", "--target", str(target), str(package))
    kinds = "from solver.market import installed_kinds; print(installed_kinds())"
    assert "'fixed_rate'" in _python(target, "-c", kinds)
    said = _python(target, "-m", "pytest", "-c", str(package / "pyproject.toml"), str(package))
    assert "1 passed" in said


def _python(folder: Path, *words: str) -> str:
    paths = os.pathsep.join((str(folder), str(GUIDE.parents[1])))
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 2**100), st.integers(1, 2**100), st.integers(0, 300))
def test_constant_product_conforms(reserve0: int, reserve1: int, fee_bps: int) -> None:
    pool = pair("p", A, B, reserve0, reserve1, fee_bps)
    check_pool(pool)
    fields = {name: getattr(pool, name) for name in ConstantProductPool.__struct_fields__}
    check_pool(Pair(**fields, address=ADDRESS))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 10**6), min_size=1, max_size=4, unique=True),
    st.integers(1, 10**6),
    st.integers(1, 10**18),
    st.integers(0, 100),
)
def test_books_conform(prices: list[int], lots: int, lot_size: int, fee_bps: int) -> None:
    asks = tuple(Level(price + 10**6, lots) for price in sorted(prices))
    bids = tuple(Level(price, lots) for price in sorted(prices, reverse=True))
    fields: dict[str, Any] = {
        "id": "b", "base": A, "quote": B, "lot_size": lot_size, "taker_fee_bps": fee_bps,
        "bids": bids, "asks": asks, "gas": 1, "gas_per_level": 1,
    }  # fmt: skip
    check_pool(BookPool(**fields))
    check_pool(ListedBook(**fields, address=ADDRESS))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 2**90), st.integers(1, 2**90))
def test_limit_orders_conform(maker: int, taker: int) -> None:
    pool = LimitOrderPool(
        id="l", maker_token=A, taker_token=B, maker_amount=maker, taker_amount=taker, gas=1
    )
    check_pool(pool)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 500), st.integers(1, 2**90))
def test_bridges_conform(fixed_fee: int, fee_bps: int, capacity: int) -> None:
    there = TokenId(2, "0x" + "c" * 40)
    quote = Quote(A, there, fixed_fee, fee_bps, capacity, 30)
    check_pool(BridgeRoute(id="r", address=ADDRESS, quote=quote, gas=1))


class Mutant:
    """A sound pool with one fault."""

    id = "mutant"
    tokens = (A, B)

    def __init__(self) -> None:
        self.pool = pair("mutant", A, B, 10**24, 10**24)
        self.uses = 0

    def swap(self, token_in: TokenId, token_out: TokenId, amount: int, exact: Exact) -> Step:
        self.uses += 1
        step = self.pool.swap(token_in, token_out, amount, exact)
        return replace(step, next_pool=self.after(step))

    def after(self, step: Step) -> Any:
        mutant = type(self)()
        mutant.pool = step.next_pool  # type: ignore[assignment]  # the same kind of pool
        return mutant

    def encode(self, leg: Any) -> Any:
        return (Call(ADDRESS, "0x12345678"),)


class RoundsUp(Mutant):
    def swap(self, *arguments: Any) -> Step:
        step = super().swap(*arguments)
        return replace(step, amount_out=step.amount_out + 1)


class Impure(Mutant):
    def swap(self, *arguments: Any) -> Step:
        step = super().swap(*arguments)
        return replace(step, amount_out=max(0, step.amount_out - self.uses % 2))


class NotMonotone(Mutant):
    def swap(self, token_in: TokenId, token_out: TokenId, amount: int, exact: Exact) -> Step:
        step = super().swap(token_in, token_out, amount, exact)
        huge = amount > 2**80 and exact is Exact.IN
        return replace(step, amount_out=0) if huge else step


class TakesMore(Mutant):
    def swap(self, *arguments: Any) -> Step:
        step = super().swap(*arguments)
        return replace(step, amount_in=step.amount_in * 2)


class FreeMoney(Mutant):
    def after(self, step: Step) -> Any:
        mutant = super().after(step)
        mutant.pool = replace(mutant.pool, fee_num=0, reserve0=mutant.pool.reserve0 * 2)
        return mutant


class ShortOutput(Mutant):
    def swap(self, token_in: TokenId, token_out: TokenId, amount: int, exact: Exact) -> Step:
        step = super().swap(token_in, token_out, amount, exact)
        return replace(step, amount_in=step.amount_in // 2) if exact is Exact.OUT else step


class Floats(Mutant):
    def swap(self, *arguments: Any) -> Step:
        step = super().swap(*arguments)
        return replace(step, amount_out=float(step.amount_out))


class InnerArcs(Mutant):
    def arcs(self) -> list[ConstantProductArc]:
        return [ConstantProductArc(A, B, 10**24, 10**24, 0.01)]


class NoPickle(Mutant):
    def __reduce__(self) -> str:
        return "nowhere"


class Approves(Mutant):
    def encode(self, leg: Any) -> Any:
        return (Call(ADDRESS, "0x12345678", (leg.token_in.address, 2**256 - 1)),)


class NoHex(Mutant):
    def encode(self, leg: Any) -> Any:
        return (Call(ADDRESS.upper(), "0x12345678"),)


def test_the_unchanged_mutant_conforms() -> None:
    check_pool(Mutant())


@pytest.mark.parametrize(
    "kind",
    [
        RoundsUp, Impure, NotMonotone, TakesMore, FreeMoney, ShortOutput, Floats, InnerArcs,
        Approves, NoHex, NoPickle,
    ],
)  # fmt: skip
def test_the_kit_catches(kind: type[Mutant]) -> None:
    with pytest.raises(Nonconformance, match="mutant"):
        check_pool(kind())


def _words(*values: int) -> str:
    return "0x" + "".join(f"{value:064x}" for value in values)


async def test_pairs_are_read_in_one_batch() -> None:
    tokens = int(A.address, 16), int(B.address, 16)
    answers = {
        (ADDRESS, encode_call("token0()")): _words(tokens[0]),
        (ADDRESS, encode_call("token1()")): _words(tokens[1]),
        (ADDRESS, encode_call("getReserves()")): _words(10**24, 10**24, 5),
        (ADDRESS, encode_call("feeBps()")): _words(30),
    }
    venue = ConstantProduct("pairs", 31337, {"pairs": [ADDRESS]})
    (pool,) = await check_venue(venue, FixedReader(answers))
    assert {token.address for token in pool.tokens} == {A.address, B.address}


def _book_answers(sequence: int, ask_lots: int) -> dict[tuple[str, str], str]:
    book = _words(sequence, 160, 224, 288, 352, 1, 2_000, 1, 7, 1, 2_100, 1, ask_lots)
    return {
        (ADDRESS, encode_call("base()")): _words(int(A.address, 16)),
        (ADDRESS, encode_call("quote()")): _words(int(B.address, 16)),
        (ADDRESS, encode_call("lotSize()")): _words(UNIT),
        (ADDRESS, encode_call("takerFeeBps()")): _words(2),
        (ADDRESS, encode_call("book()")): book,
        (ADDRESS, encode_call("sequence()")): _words(sequence),
    }


def _changed(number: int, lots: int, block: int) -> EventLog:
    topic = "0x" + f"{number:064x}"
    return EventLog(ADDRESS, (LEVEL_CHANGED, topic), _words(0, 2_100, lots), block)


async def test_a_gap_in_the_sequence_reads_the_book_again() -> None:
    venue = OrderBook("book", 31337, {"book": ADDRESS})
    first = BlockRef(31337, 1, "0x" + "01" * 32, 1)
    await venue.pools(FixedReader(_book_answers(5, 9), (), first))
    second = BlockRef(31337, 2, "0x" + "02" * 32, 2)
    followed = FixedReader(_book_answers(6, 9), [_changed(6, 4, 2)], second)
    (pool,) = await venue.pools(followed)
    assert isinstance(pool, BookPool)
    assert (pool.asks[0].lots, venue.gaps) == (4, 0)
    third = BlockRef(31337, 3, "0x" + "03" * 32, 3)
    missing = FixedReader(_book_answers(9, 3), [_changed(9, 1, 3)], third)
    (pool,) = await venue.pools(missing)
    assert isinstance(pool, BookPool)
    assert (pool.asks[0].lots, venue.gaps) == (3, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "book"),
        ({"book": "0x12"}, "not an address"),
        ({"book": ADDRESS, "gas": -1}, "at least 0"),
        ({"book": ADDRESS, "gas": True}, "integer"),
        ({"book": ADDRESS, "colour": 1}, "unknown option"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OrderBook("book", 1, options)
