"""Balancer's arithmetic against the frozen output of an independent port, one test per row."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from solver.core.pools import fixed_point, stable, weighted
from solver.core.pools.balancer import add_fee, subtract_fee
from tests.parity.cases import calls


def _fast(version: str) -> bool:
    return version == "V2"


def _ints(text: str) -> list[int]:
    return [int(value) for value in json.loads(text)]


def _weighted(function: Callable[[int, int, int, int, int, bool], int], a: list[str]) -> int:
    return function(int(a[0]), int(a[1]), int(a[2]), int(a[3]), int(a[4]), _fast(a[5]))


FUNCTIONS: dict[str, Callable[[list[str]], int]] = {
    "fp_add": lambda a: fixed_point.add(int(a[0]), int(a[1])),
    "fp_sub": lambda a: fixed_point.sub(int(a[0]), int(a[1])),
    "fp_mul_down": lambda a: fixed_point.mul_down(int(a[0]), int(a[1])),
    "fp_mul_up": lambda a: fixed_point.mul_up(int(a[0]), int(a[1])),
    "fp_div_down": lambda a: fixed_point.div_down(int(a[0]), int(a[1])),
    "fp_div_up": lambda a: fixed_point.div_up(int(a[0]), int(a[1])),
    "fp_complement": lambda a: fixed_point.complement(int(a[0])),
    "fp_pow_down": lambda a: fixed_point.pow_down(int(a[0]), int(a[1]), _fast(a[2])),
    "fp_pow_up": lambda a: fixed_point.pow_up(int(a[0]), int(a[1]), _fast(a[2])),
    "lm_pow": lambda a: fixed_point.power(int(a[0]), int(a[1])),
    "lm_ln": lambda a: fixed_point.ln(int(a[0])),
    "lm_exp": lambda a: fixed_point.exp(int(a[0])),
    "lm_log": lambda a: fixed_point.log(int(a[0]), int(a[1])),
    "wm_invariant": lambda a: weighted.weighted_invariant(_ints(a[0]), _ints(a[1]), _fast(a[2])),
    "wm_out_given_in": lambda a: _weighted(weighted.weighted_out, a),
    "wm_in_given_out": lambda a: _weighted(weighted.weighted_in, a),
    "wm_sub_fee": lambda a: subtract_fee(int(a[0]), int(a[1])),
    "wm_add_fee": lambda a: add_fee(int(a[0]), int(a[1])),
    "sm_invariant_d_p": lambda a: stable.stable_invariant(int(a[0]), _ints(a[1])),
    "sm_invariant_p_d_up": lambda a: stable.stable_invariant_rounded(int(a[0]), _ints(a[1]), True),
    "sm_invariant_p_d_down": lambda a: stable.stable_invariant_rounded(
        int(a[0]), _ints(a[1]), False
    ),
    "sm_out_given_in": lambda a: stable.stable_out(
        int(a[0]), _ints(a[1]), int(a[2]), int(a[3]), int(a[4]), int(a[5]), False
    ),
    "sm_in_given_out": lambda a: stable.stable_in(
        int(a[0]), _ints(a[1]), int(a[2]), int(a[3]), int(a[4]), int(a[5]), False
    ),
}


@pytest.mark.parametrize("row", calls("routing", "degenbot_balancer_oracle.json"))
def test_balancer_oracle(row: dict[str, Any]) -> None:
    function = FUNCTIONS.get(row["fn"])
    if function is None:
        pytest.skip(f"function {row['fn']}")
    expected = str(row["expected"])
    if expected.startswith("ERROR:"):
        with pytest.raises(fixed_point.Reverts) as error:
            function(row["args"])
        assert error.value.args[0] == expected.removeprefix("ERROR:")
    else:
        assert function(row["args"]) == int(expected)
