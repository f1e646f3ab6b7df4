"""How the demo tells the way of an order."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from solver import demo
from solver.wire.v1 import INVENTORY, MATCHED, HopView

BOOKS = {"book"}


@pytest.mark.parametrize(
    ("hops", "words"),
    [
        ([], ""),
        (["A>B orders"], "matched without a pool"),
        (["A>B book"], "through the order book"),
        (["A>B p"], "through one pool"),
        (["A>B p", "A>B q", "A>B r"], "split over 3 pools"),
        (["A>B p", "A>B book"], "split over one pool and the order book"),
        (["A>B p", "B>C q"], "two hops, through 2 pools"),
        (["A>B p", "B>C q", "B>C book"], "two hops, split over 2 pools and the order book"),
        (["A>C p", "A>B q", "B>C r"], "one to two hops, split over 3 pools"),
        (["A>B inventory"], "cross-chain from inventory"),
        (["A>B p", "B>C inventory"], "through one pool, then cross-chain from inventory"),
    ],
)
def test_routes_are_told_in_words(hops: list[str], words: str) -> None:
    views = [HopView(hop[0], hop[2], hop[4:]) for hop in hops]
    assert (INVENTORY, MATCHED) == ("inventory", "orders")
    assert demo.route_in_words(views, BOOKS) == words


def test_the_text_fits_its_width_and_loses_no_fact() -> None:
    row = demo.Shown(
        demo.CASES[0], "0x" + "1" * 64, "settled", "1.123456789123456789 WETH → ≥2 USDC",
        "0.123456789123456789 WETH", "1234567.123456 USDC", "12.34", "0.5",
        ["0x" + "ab" * 32], "", "two hops, split over 2 pools and the order book",
    )  # fmt: skip
    late = replace(row, case=demo.CASES[9], state="expired", bought="", route="", reason="expired")
    text = demo.as_text([row, late], 80)
    assert max(map(len, text.splitlines())) <= 80
    for fact in ("0.12345678 WETH → 1234567.12 USDC", row.route, "12.3 bps", "0xabababab…abababab"):
        assert fact in " ".join(text.split())
    assert "1.1234567 WETH → ≥2 USDC" in text
    assert len(demo.in_short([row, late])) == 2
