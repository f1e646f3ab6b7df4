"""``thalweg verify-solution``: what it accepts, and the code of each thing that it refuses."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from fractions import Fraction
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from solver.checker.gain import Coins, curves, gain
from solver.checker.rounding import exp_down, ln_down, ln_up, root_down
from solver.cli import EXIT_BAD_INPUT, EXIT_DONE, EXIT_NOTHING_FILLED, app
from solver.core import curves as arcs
from solver.core import kernels
from solver.core.pools import StablePool, StableVersion, WeightedPool, WeightedVersion
from solver.core.types import Exact, Kind, TokenId
from solver.core.venue import Arc
from solver.wire.swap import swap_from_core
from tests.make import SETTLEMENT, UNIT, A, B, C, swap

ONE = 10**18
ROOT = Path(__file__).resolve().parents[2]

Change = Callable[[dict[str, Any]], object]


def problem() -> dict[str, Any]:
    """One order whole, one in parts, a pool between them and another that is out of line."""
    orders = [
        swap(A, B, UNIT, UNIT * 9 // 10, partial=False),
        swap(B, A, 3 * UNIT, UNIT * 26 // 10, nonce=1),
    ]
    pools = [
        {
            "kind": "constantProduct",
            "id": name,
            "tokens": [str(A), str(token)],
            "reserves": [str(100 * UNIT), str(size * UNIT)],
            "feeNum": 3,
            "feeDen": 1000,
            "gas": 7,
        }
        for name, token, size in (("ab", B, 100), ("far", B, 103), ("ac", C, 100))
    ]
    return {
        "format": "thalweg.instance/1",
        "chains": [{"chainId": 1, "settlement": SETTLEMENT}],
        "assets": [
            {"chainId": 1, "address": token.address, "decimals": 18, "price": "1e-18"}
            for token in (A, B)
        ],
        "intents": [{"swap": swap_from_core(order)} for order in orders],
        "pools": pools,
    }


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The file, and the answer of ``thalweg solve`` to it."""
    file = tmp_path_factory.mktemp("checker") / "batch.json"
    file.write_text(json.dumps(problem()), encoding="utf-8")
    result = CliRunner().invoke(app, ["solve", str(file), "--json"])
    assert result.exit_code == EXIT_DONE, result.output
    return file, json.loads(result.stdout)


def verify(file: Path, answer: object, *options: str) -> Any:
    """The command on a file and an answer."""
    solution = file.with_name("answer.json")
    text = answer if isinstance(answer, str) else json.dumps(answer)
    solution.write_text(text, encoding="utf-8")
    return CliRunner().invoke(app, ["verify-solution", str(file), str(solution), *options])


def test_an_honest_answer_is_accepted(answered: tuple[Path, dict[str, Any]]) -> None:
    file, answer = answered
    assert len(answer["fills"]) == 2 and answer["legs"]
    assert answer["certificate"]["arbitrage"]
    assert answer["certificate"]["reference"].keys() == {str(C)}
    result = verify(file, answer, "--json")
    assert result.exit_code == EXIT_DONE, result.output
    said = json.loads(result.stdout)
    assert said["accepted"] and said["violations"] == []
    proof = answer["certificate"]
    assert float(said["figures"]["bound"]) == pytest.approx(float(proof["bound"]), rel=1e-9)
    assert verify(file, answer).stdout.startswith("accepted")


@pytest.mark.parametrize("kind", ["in", "out", "partial"])
def test_a_lone_order_shows_the_arbitrage_around_it(kind: str, tmp_path: Path) -> None:
    orders = {
        "in": swap(A, B, UNIT, UNIT * 9 // 10, partial=False),
        "out": swap(A, B, UNIT, UNIT * 9 // 10, kind=Kind.EXACT_OUT, partial=False),
        "partial": swap(A, B, UNIT, UNIT * 9 // 10),
    }
    file = tmp_path / "lone.json"
    body = {**problem(), "intents": [{"swap": swap_from_core(orders[kind])}]}
    file.write_text(json.dumps(body), encoding="utf-8")
    answer = json.loads(CliRunner().invoke(app, ["solve", str(file), "--json"]).stdout)
    proof = answer["certificate"]
    # 100 and 103 units of B per 100 of A: a third of the square of their distance, and less fees
    assert 5e-3 < float(proof["arbFloor"]) < 3e-2
    # 0.1 bp; an exact output is bounded by prices that know less
    assert float(proof["netGap"]) <= (1e-5 if kind != "out" else 1e-2)
    result = verify(file, answer)
    assert result.exit_code == EXIT_DONE, result.output
    proof["arbitrage"][0].pop()
    assert verify(file, answer).exit_code != EXIT_DONE


def _set(*path: object, to: object) -> Change:
    def change(answer: dict[str, Any]) -> None:
        place: Any = answer
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to

    return change


def _add(*path: object, by: int) -> Change:
    def change(answer: dict[str, Any]) -> None:
        place: Any = answer
        for key in path[:-1]:
            place = place[key]
        kind = type(place[path[-1]])
        place[path[-1]] = kind(int(place[path[-1]]) + by)

    return change


def _times(*path: object, factor: float) -> Change:
    def change(answer: dict[str, Any]) -> None:
        place: Any = answer
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = repr(float(place[path[-1]]) * factor)

    return change


def _lower_everything(answer: dict[str, Any]) -> None:
    proof = answer["certificate"]
    bound = float(proof["bound"]) - 1e-6 * float(proof["bound"])
    for leaf in proof["leaves"]:
        leaf["bound"] = repr(bound)
    proof.update(bound=repr(bound), gap=repr(max(0.0, bound - float(proof["value"]))))
    proof["netGap"] = repr(max(0.0, float(proof["gap"]) - float(proof["arbFloor"])))


PROOF = "certificate"
CASES: dict[str, tuple[Change, str, str]] = {
    "unknown order": (_set("fills", 0, "digest", to="0x00"), "unknown_intent", "/fills/0"),
    "twice": (lambda a: a["fills"].append(a["fills"][0]), "duplicate_fill", "/fills/2"),
    "more than was left": (_add("fills", 0, "sell", by=10**20), "overfilled", "/fills/0"),
    "fee": (_add("fills", 0, "fee", by=1), "fee_above_cap", "/fills/0"),
    "beyond the limit": (_set("fills", 0, "buy", to="5"), "limit", "/fills/0"),
    "nothing": (_set("fills", 0, "buy", to="0"), "nothing_filled", "/fills/0"),
    "rate": (_add("fills", 0, "buy", by=1), "not_uniform", "/fills/0"),
    "no rate": (lambda a: a["clearing"].popitem(), "no_rate", "/fills"),
    "a rate of nobody": (_set("clearing", "x", to=["1", "1"]), "rate_without_fill", "/clearing/x"),
    "leg": (_add("legs", 0, "amountOut", by=1), "leg_mismatch", "/legs/0"),
    "gas": (_add("legs", 0, "gas", by=1), "leg_gas", "/legs/0"),
    "no leg": (lambda a: a["legs"].clear(), "short", "/fills"),
    "huge leg": (_set("legs", 0, "amountIn", to=str(10**30)), "overdrawn", "/legs/0"),
    "pool": (_set("legs", 0, "pool", to="nowhere"), "unknown_pool", "/legs/0"),
    "dust": (_set("dust", str(A), to=str(10**9)), "dust", f"/dust/{A}"),
    "value": (_times(PROOF, "value", factor=1.01), "value", f"/{PROOF}/value"),
    "bound": (_lower_everything, "bound", f"/{PROOF}/leaves/0/bound"),
    "gap": (_set(PROOF, "gap", to="1"), "gap", f"/{PROOF}/gap"),
    "net gap": (_set(PROOF, "netGap", to="1"), "netGap", f"/{PROOF}/netGap"),
    "basis points": (_set(PROOF, "netGapBps", to="1"), "netGapBps", f"/{PROOF}/netGapBps"),
    "arbitrage": (_times(PROOF, "arbFloor", factor=1.01), "arbFloor", f"/{PROOF}/arbFloor"),
    "no arbitrage": (lambda a: a[PROOF]["arbitrage"].clear(), "arbFloor", f"/{PROOF}/arbFloor"),
    "no leaves": (_set(PROOF, "leaves", to=[]), "cases_missing", f"/{PROOF}/leaves"),
    "half a proof": (
        lambda a: a[PROOF]["leaves"][0]["out"].append(a["fills"][0]["digest"]),
        "cases_missing",
        f"/{PROOF}/leaves",
    ),
    "row": (
        _set(PROOF, "leaves", 0, "multipliers", to={"x": "1"}),
        "unknown_row",
        f"/{PROOF}/leaves/0/multipliers/x",
    ),
    "no price": (
        lambda a: a[PROOF]["leaves"][0]["prices"].pop(str(A)),
        "missing_price",
        f"/{PROOF}/leaves/0/prices/{A}",
    ),
    "other prices": (_times(PROOF, "prices", str(A), factor=2), "prices", f"/{PROOF}/prices"),
    "floor": (
        _set(PROOF, "floors", f"{A}>{B}", to="1e9"),
        "floor_not_paid",
        f"/{PROOF}/floors/{A}>{B}",
    ),
    "derived price": (
        _times(PROOF, "reference", str(C), factor=1.5),
        "reference_price",
        f"/{PROOF}/reference/{C}",
    ),
    "assumption": (_set(PROOF, "assumptions", to=[]), "unstated", f"/{PROOF}/assumptions"),
    "no number": (_set(PROOF, "bound", to="NaN"), "bad_number", f"/{PROOF}/bound"),
    "huge exponent": (_set(PROOF, "value", to="1e99999"), "bad_number", f"/{PROOF}/value"),
    "negative price": (
        _set(PROOF, "prices", str(A), to="-1"),
        "negative",
        f"/{PROOF}/prices/{A}",
    ),
    "missing field": (lambda a: a[PROOF].pop("caps"), "invalid_field", f"/{PROOF}"),
    "no token": (_set("legs", 0, "tokenIn", to="x"), "bad_token", "/legs/0/tokenIn"),
    "wrong type": (_set("legs", 0, "amountIn", to=5), "invalid_field", "/legs/0/amountIn"),
}


@pytest.mark.parametrize("name", CASES)
def test_each_tampered_answer_is_refused_by_name(
    answered: tuple[Path, dict[str, Any]], name: str
) -> None:
    change, code, pointer = CASES[name]
    file, answer = answered
    tampered = json.loads(json.dumps(answer))
    change(tampered)
    result = verify(file, tampered, "--json")
    assert result.exit_code == EXIT_NOTHING_FILLED, result.output
    found = json.loads(result.stdout)["violations"]
    matching = [broken for broken in found if broken["code"] == code]
    assert matching and matching[0]["pointer"].startswith(pointer), found
    assert code in verify(file, tampered).stdout


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1, "a": 2}'])
def test_unreadable_files_have_their_own_exit_code(
    answered: tuple[Path, dict[str, Any]], text: str
) -> None:
    file, answer = answered
    result = verify(file, text)
    assert result.exit_code == EXIT_BAD_INPUT
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    broken = file.with_name("broken.json")
    broken.write_text(text, encoding="utf-8")
    assert verify(broken, answer).exit_code == EXIT_BAD_INPUT
    assert verify(file.with_name("nowhere.json"), answer).exit_code == EXIT_BAD_INPUT


def test_the_command_in_the_document_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "certificate.md").read_text(encoding="utf-8")
    commands = re.findall(r"^thalweg (.*)$", text, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["solve", "verify-solution"]
    monkeypatch.chdir(tmp_path)
    Path("batch.json").write_text(json.dumps(problem()), encoding="utf-8")
    solved, _, target = commands[0].partition(" > ")
    result = CliRunner().invoke(app, solved.split())
    Path(target).write_text(result.stdout, encoding="utf-8")
    result = CliRunner().invoke(app, commands[1].split())
    assert result.exit_code == EXIT_DONE, result.output


@pytest.mark.parametrize("degree", [2, 3, 4, 9])
@pytest.mark.parametrize("value", [Fraction(2), Fraction(1, 10**40), Fraction(10**60 + 1, 7)])
def test_roots_round_down(value: Fraction, degree: int) -> None:
    root = root_down(value, degree)
    assert root**degree <= value < (root * (1 + Fraction(1, 10**55))) ** degree


def test_logarithms_round_outward() -> None:
    value = Fraction(10, 7)
    assert ln_down(value) < ln_up(value)
    assert Fraction(exp_down(ln_down(value))) < value


def _pools() -> list[WeightedPool | StablePool]:
    coins = tuple(TokenId(1, f"0x{k:040x}") for k in range(1, 5))
    sizes = (10**24, 2 * 10**24, 10**24 // 2, 3 * 10**24)
    weights = (ONE // 10, ONE // 5, ONE // 2, ONE // 5)
    rest: dict[str, Any] = {"scaling": (1,) * 4, "rates": (ONE,) * 4, "fee": 10**15, "gas": 0}
    pools: list[WeightedPool | StablePool] = [
        WeightedPool(
            id="weighted",
            coins=coins,
            balances=sizes,
            weights=weights,
            version=WeightedVersion.V3_PLUS,
            **rest,
        )
    ]
    pools += [
        StablePool(
            id=f"stable-{amp}",
            coins=coins,
            balances=sizes,
            amp=amp * 1000,
            version=StableVersion.BALANCER_V2,
            **rest,
        )
        for amp in (1, 100, 10**5)
    ]
    return pools


def swapped(pool: Any, nu: dict[TokenId, Fraction]) -> float:
    """What greedy series of exact swaps of halving sizes gain."""
    state, earned = pool, Fraction(0)
    for size in (2**k for k in range(80, 50, -1)):
        better = True
        while better:
            better = False
            for one, two in permutations(pool.coins, 2):
                step = state.swap(one, two, size, Exact.IN)
                plus = nu[two] * step.amount_out - nu[one] * step.amount_in
                if plus > 0:
                    state, earned, better = step.next_pool, earned + plus, True
    return float(earned)


@pytest.mark.parametrize("pool", _pools(), ids=lambda pool: str(pool.id))
def test_no_joint_trade_gains_more_than_the_bound(pool: WeightedPool | StablePool) -> None:
    """Series of exact swaps stay below it, and come near."""
    rng = random.Random(5)
    (curve,) = curves(pool)
    assert isinstance(curve, Coins)
    for _ in range(6):
        nu = {coin: Fraction(rng.uniform(0.8, 1.25)) for coin in pool.coins}
        bound, earned = float(gain(curve, nu)), swapped(pool, nu)
        assert earned <= bound
        assert earned >= 0.97 * bound - 10**15


def test_a_joint_trade_can_beat_the_sum_over_pairs() -> None:
    """In a stable pool one pair's trade improves another's rate: real swaps gain 1 % more."""
    coins = tuple(TokenId(1, f"0x{k:040x}") for k in range(1, 4))
    pool = StablePool(
        id="lopsided",
        coins=coins,
        balances=(33452999179738860748800, 439587216401959309279232, 361782227340420934795264),
        amp=50_000,
        scaling=(1,) * 3,
        rates=(ONE,) * 3,
        fee=0,
        version=StableVersion.BALANCER_V2,
        gas=0,
    )
    nu = dict(zip(coins, map(Fraction, (1.3877859604848317, 0.8264, 0.95632)), strict=True))
    pairs = sum(
        gained(arc, float(nu[arc.token_in]), float(nu[arc.token_out])) for arc in pool.arcs()
    )
    earned = swapped(pool, nu)
    assert 1.005 * pairs < earned <= float(gain(curves(pool)[0], nu))


def gained(arc: Arc, price_in: float, price_out: float) -> float:
    """max of price_out·f(x) − price_in·x by the solver's kernels."""
    kind, par, capacity = arcs.packed(arcs.levels(arc))
    one, two = (np.full(len(kind), price) for price in (price_in, price_out))
    return float(kernels.gains(kind, par, capacity, one, two).sum())


def test_the_kernels_agree_where_pools_have_two_coins() -> None:
    """Two independent evaluations of one formula, in floats and rounded outward."""
    pool = StablePool(
        id="two",
        coins=(A, B),
        balances=(10**24, 2 * 10**24),
        amp=50_000,
        scaling=(1, 1),
        rates=(ONE, ONE),
        fee=10**15,
        version=StableVersion.BALANCER_V2,
        gas=0,
    )
    for price in (0.5, 0.9, 0.99, 1.0, 1.01, 1.2, 3.0):
        nu = {A: 1.0, B: price}
        floats = sum(gained(arc, nu[arc.token_in], nu[arc.token_out]) for arc in pool.arcs())
        exact = float(gain(curves(pool)[0], {A: Fraction(1), B: Fraction(price)}))
        assert exact == pytest.approx(floats, rel=1e-9, abs=1e9)
