"""Curve's arithmetic against the frozen output of an independent port, one test per row."""

from __future__ import annotations

import json
from typing import Any

import pytest

from solver.core.pools.curve import DVariant, YVariant, curve_d, curve_y, curve_y_of_d
from solver.core.pools.fixed_point import Reverts
from tests.parity.cases import calls


def _ints(text: str) -> list[int]:
    return [int(value) for value in json.loads(text)]


def run(function: str, a: list[str]) -> int:
    """A row's function on its arguments; the first names the fixture."""
    match function:
        case "get_d":
            return curve_d(_ints(a[1]), int(a[2]), int(a[4]), DVariant(int(a[5])))
        case "get_y":
            balances, amp, precision = _ints(a[4]), int(a[5]), int(a[7])
            d = curve_d(balances, amp, precision, DVariant(int(a[9])))
            ends = int(a[1]), int(a[2]), int(a[3])
            return curve_y(*ends, balances, d, amp, precision, YVariant(int(a[8])))
        case "get_y_d":
            precise = a[7] == "2"
            return curve_y_of_d(int(a[2]), _ints(a[3]), int(a[4]), int(a[1]), int(a[6]), precise)
        case _:
            pytest.skip(f"{function} belongs to Curve's volatile pools, which are not supported")


@pytest.mark.parametrize("row", calls("routing", "degenbot_curve_oracle.json"))
def test_curve_oracle(row: dict[str, Any]) -> None:
    expected = str(row["expected"])
    if expected.startswith("ERROR:"):
        with pytest.raises(Reverts):
            run(row["fn"], row["args"])
    else:
        assert run(row["fn"], row["args"]) == int(expected)
