"""Winner selection beyond the cases of the parity suite, and ``thalweg winners``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from solver.cli import EXIT_BAD_INPUT, EXIT_DONE, EXIT_NOTHING_FILLED, app
from solver.core.fees import SurplusFee
from solver.core.types import UINT256_MAX, Kind
from solver.core.winners import Auction, Bid, Order, Standing, Trade, score, select

UNIT = 10**18
A, B, NATIVE, WRAPPED = (f"0x{digit * 40}" for digit in "abe0")
SALE = {"kind": "fulfillment", "order": "sale", "executedAmount": str(UNIT)}


def order(sell: str = A, buy: str = B, kind: Kind = Kind.EXACT_IN, **rest: Any) -> Order:
    return Order(kind, sell, buy, UNIT, UNIT, **rest)


def bid(solver: str, *trades: tuple[str, int], own: dict[str, Order] | None = None) -> Bid:
    """A solution with the given gains in percent, for sales of one unit."""
    done = tuple(Trade(name, UNIT, UNIT + gain * UNIT // 100) for name, gain in trades)
    return Bid(solver, "1", done, own or {})


def auction(orders: dict[str, Order], **rest: Any) -> Auction:
    return Auction(orders, {A: UNIT, B: UNIT, NATIVE: UNIT, WRAPPED: UNIT}, **rest)


def test_fees_count_as_surplus() -> None:
    plain, taxed = order(), order(policies=(SurplusFee(0.5, 0.9),))
    assert score(plain, Trade("o", UNIT, UNIT * 11 // 10), UNIT) == UNIT // 10
    assert score(taxed, Trade("o", UNIT, UNIT * 11 // 10), UNIT) == UNIT // 5


def test_the_surplus_of_a_purchase_counts_at_its_own_limit() -> None:
    """A limit far from the market must not turn dust into a score."""
    far = Order(Kind.EXACT_OUT, A, B, 1_000_000, 10)
    assert score(far, Trade("o", 1, 10), UNIT) == 999_999 * 10 // 1_000_000
    near = Order(Kind.EXACT_OUT, A, B, 20, 10)
    assert score(near, Trade("o", 10, 10), 3 * UNIT) == 15


def test_a_score_ends_at_the_largest_word() -> None:
    assert score(order(), Trade("o", UNIT, UINT256_MAX), UINT256_MAX) == UINT256_MAX


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (Bid("X", "1", ()), "no order that counts"),
        (Bid("X", "1", (Trade("unheard of", 1, 1),)), "no order"),
        (Bid("X", "1", (Trade("o", UNIT, UNIT - 1),)), "worse than its limit"),
        (Bid("X", "1", (Trade("o", 0, 0),)), "trades nothing"),
        (Bid("X", "1", (Trade("o", UNIT, UNIT), Trade("o", UNIT, UNIT))), "twice"),
        (Bid("X", "1", (Trade("o", UNIT, UINT256_MAX + 1),)), "amount"),
        (Bid("X", "1", (Trade("no price", UNIT, UNIT),)), "no price of"),
    ],
)
def test_what_cannot_be_scored_takes_part_in_nothing(wrong: Bid, reason: str) -> None:
    """It neither wins nor sets the standard of fairness for others."""
    orders = {"o": order(), "no price": order(buy="0x" + "c" * 40)}
    good = bid("Y", ("o", 0))
    ranking = select(auction(orders), [wrong, good])
    assert [ranked.bid for ranked in ranking.winners] == [good]
    (invalid,) = ranking.having(Standing.INVALID)
    assert invalid.bid == wrong and reason in invalid.reason
    assert ranking.reference_scores == {"Y": 0}


def test_a_solution_with_no_surplus_may_win() -> None:
    ranking = select(auction({"o": order()}), [bid("X", ("o", 0))])
    assert [ranked.score for ranked in ranking.winners] == [0]


def test_own_orders_take_their_pair_and_score_only_for_chosen_owners() -> None:
    own = {"mine": order(B, A, owner="0xme")}
    orders = {"o": order(), "back": order(B, A)}
    bids = [bid("X", ("o", 10), ("mine", 50), own=own), bid("Y", ("back", 5))]
    ranking = select(auction(orders), bids)
    assert [(r.bid.solver, r.score) for r in ranking.winners] == [("X", UNIT // 10)]
    assert ranking.having(Standing.LOSER)[0].reason == f"{B}>{A} goes to X 1"
    trusting = auction(orders, surplus_owners=frozenset({"0xme"}))
    assert select(trusting, bids).winners[0].score == 6 * UNIT // 10


def test_an_own_order_cannot_take_the_name_of_an_order() -> None:
    """Else a solver would write itself a generous limit."""
    easy = Order(Kind.EXACT_IN, A, B, UNIT, 1)
    ranking = select(auction({"o": order()}), [bid("X", ("o", 10), own={"o": easy})])
    assert ranking.winners[0].score == UNIT // 10


def test_the_native_token_and_its_wrapped_form_are_one_to_a_clearing_price() -> None:
    orders = {"a": order(A, NATIVE), "b": order(A, WRAPPED)}
    bids = [bid("X", ("a", 10)), bid("Y", ("b", 5))]
    assert len(select(auction(orders), bids).winners) == 2
    as_one = auction(orders, aliases={NATIVE: WRAPPED})
    assert [r.bid.solver for r in select(as_one, bids).winners] == ["X"]


def test_a_greedy_pick_may_be_worth_more_without_its_best_solution() -> None:
    """So the reference score is above the winners' score; it is reported as it is."""
    ends = {name: order(f"{name}in", f"{name}out") for name in "pqrs"}
    prices = {o.buy_token: UNIT for o in ends.values()}
    bids = [
        bid("X", ("p", 6), ("q", 6)),
        bid("Y", ("p", 5), ("r", 6)),
        bid("Z", ("q", 5), ("s", 6)),
    ]
    ranking = select(Auction(ends, prices), bids)
    assert [r.bid.solver for r in ranking.winners] == ["X"]
    assert ranking.winners[0].score == 12 * UNIT // 100
    assert ranking.reference_scores == {"X": 22 * UNIT // 100}


def test_the_number_of_winners_is_bounded() -> None:
    orders = {name: order(f"{name}in", f"{name}out") for name in "pqr"}
    prices = {o.buy_token: UNIT for o in orders.values()}
    bids = [bid(name, (name, gain)) for gain, name in enumerate("pqr", start=1)]
    ranking = select(Auction(orders, prices, max_winners=2), bids)
    assert [r.bid.solver for r in ranking.winners] == ["r", "q"]
    assert ranking.having(Standing.LOSER)[0].reason == "there are 2 winners already"
    # Without one of the two the third moves up.
    assert ranking.reference_scores == {"r": 3 * UNIT // 100, "q": 4 * UNIT // 100}


def test_equal_scores_go_by_content_under_the_seed() -> None:
    orders = {"o": order(), "p": order()}
    bids = [bid("X", ("o", 10)), bid("Y", ("p", 10))]
    winners = {
        select(auction(orders, seed=bytes([seed])), bids).winners[0].bid.solver
        for seed in range(32)
    }
    assert winners == {"X", "Y"}


# ------------------------------------------------------------------------------- the command


def competition() -> dict[str, Any]:
    signed = {
        "kind": "sell",
        "sellToken": A,
        "buyToken": B,
        "sellAmount": str(UNIT),
        "buyAmount": str(UNIT),
    }
    return {
        "format": "thalweg.competition/1",
        "orders": {"o": signed},
        "prices": {B: str(UNIT)},
        "solutions": [solution("X", 10)],
    }


def solution(solver: str, gain: int) -> dict[str, Any]:
    amounts = {"sellAmount": str(UNIT), "buyAmount": str(UNIT + gain * UNIT // 100)}
    return {"solver": solver, "id": "1", "trades": [{"order": "o", **amounts}]}


def run(folder: Path, *documents: object, options: tuple[str, ...] = ("--json",)) -> Any:
    paths = []
    for number, document in enumerate(documents):
        path = folder / f"file{number}.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        paths.append(str(path))
    return CliRunner().invoke(app, ["winners", *options, *paths])


def test_solutions_may_be_spread_over_files(tmp_path: Path) -> None:
    more = {"format": "thalweg.competition/1", "solutions": [solution("Y", 20)]}
    result = run(tmp_path, competition(), more)
    assert result.exit_code == EXIT_DONE, result.output
    answer = json.loads(result.stdout)
    assert answer == {
        "winners": [
            {
                "solver": "Y",
                "id": "1",
                "standing": "winner",
                "score": str(UNIT // 5),
                "pairs": {f"{A}>{B}": str(UNIT // 5)},
                "reason": "",
            }
        ],
        "others": [
            {
                "solver": "X",
                "id": "1",
                "standing": "loser",
                "score": str(UNIT // 10),
                "pairs": {f"{A}>{B}": str(UNIT // 10)},
                "reason": f"{A}>{B} goes to Y 1",
            }
        ],
        "score": str(UNIT // 5),
        "referenceScores": {"Y": str(UNIT // 10)},
    }


def test_the_documented_file_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "competition.md").read_text(encoding="utf-8")
    result = run(tmp_path, page.split("```json\n")[1].split("```")[0])
    assert result.exit_code == EXIT_DONE, result.output
    answer = json.loads(result.stdout)
    assert [entry["solver"] for entry in answer["winners"] + answer["others"]] == ["two", "one"]


def test_people_get_a_table(tmp_path: Path) -> None:
    result = run(tmp_path, competition(), options=())
    assert result.exit_code == EXIT_DONE
    assert "winner" in result.stdout


def test_no_winner_has_its_own_exit_code(tmp_path: Path) -> None:
    result = run(tmp_path, competition() | {"solutions": []})
    assert result.exit_code == EXIT_NOTHING_FILLED
    assert json.loads(result.stdout)["winners"] == []


def cow_auction() -> dict[str, Any]:
    amounts = {"sellAmount": str(UNIT), "buyAmount": str(UNIT)}
    ends = {"sellToken": A.upper().replace("X", "x"), "buyToken": B}
    plain = {"partiallyFillable": False, "class": "limit", **ends, **amounts}
    return {
        "id": "1",
        "tokens": {
            B: {"referencePrice": str(UNIT), "availableBalance": "0", "trusted": False},
            A.upper().replace("X", "x"): {"availableBalance": "0", "trusted": False},
        },
        "orders": [
            {"uid": "sale", "kind": "sell", **plain},
            {"uid": "purchase", "kind": "buy", **plain, "feePolicies": []},
        ],
        "liquidity": [],
        "effectiveGasPrice": "0",
        "deadline": "2106-01-01T00:00:00Z",
    }


def cow_answer(*trades: dict[str, Any], price: int = 110) -> dict[str, Any]:
    """An answer with clearing prices at which 100 of the sold token bring ``price``."""
    answer = {"prices": {A: str(price), B: "100"}, "trades": list(trades), "interactions": []}
    return {"solutions": [{"id": 7, **answer}]}


def test_answers_of_engines_to_a_cow_auction(tmp_path: Path) -> None:
    """Fees of a limit order come out of what is sold, or on top of what a purchase costs."""
    half = {**SALE, "executedAmount": str(UNIT * 95 // 100), "fee": str(UNIT * 5 // 100)}
    purchase = {"kind": "fulfillment", "order": "purchase", "executedAmount": str(UNIT)}
    result = run(
        tmp_path,
        cow_auction(),
        cow_answer(SALE),
        cow_answer(half),
        cow_answer({**purchase, "fee": "1"}),
    )
    assert result.exit_code == EXIT_DONE, result.output
    answer = json.loads(result.stdout)
    scores = {entry["solver"]: entry["score"] for entry in answer["winners"] + answer["others"]}
    cost = UNIT * 100 // 110 + 1
    assert scores == {
        "file1": str(UNIT // 10),
        "file2": str(UNIT * 95 * 110 // 10_000 - UNIT),
        "file3": str(UNIT - cost),
    }
    assert answer["winners"][0]["solver"] == "file1"


def test_own_orders_of_an_engine_take_their_pair(tmp_path: Path) -> None:
    signed = {"sellToken": B, "buyToken": A, "sellAmount": "5", "buyAmount": "4", "kind": "sell"}
    own = {"kind": "jit", "order": signed, "executedAmount": "5"}
    result = run(tmp_path, cow_auction(), cow_answer(SALE, own))
    assert result.exit_code == EXIT_DONE, result.output
    assert json.loads(result.stdout)["winners"][0]["pairs"] == {f"{A}>{B}": str(UNIT // 10)}


def changed(document: dict[str, Any], value: object, *path: str | int) -> dict[str, Any]:
    """A copy with a value put in a place; None takes the place out."""
    copy: dict[str, Any] = json.loads(json.dumps(document))
    place: Any = copy
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return copy


@pytest.mark.parametrize(
    ("documents", "code", "pointer"),
    [
        (["["], "bad_json", None),
        ([[]], "invalid_field", None),
        ([{}], "invalid_field", "/tokens"),
        ([changed(competition(), "thalweg.competition/2", "format")], "unknown_format", "/format"),
        ([changed(competition(), None, "orders")], "invalid_field", "/orders"),
        ([changed(competition(), 1, "surprise")], "invalid_field", "/surprise"),
        ([changed(competition(), 0, "maxWinners")], "invalid_field", "/maxWinners"),
        ([changed(competition(), "0x0", "seed")], "bad_hex", "/seed"),
        ([changed(competition(), "00", "seed")], "bad_hex", "/seed"),
        (
            [changed(competition(), "0", "orders", "o", "buyAmount")],
            "zero_amount",
            "/orders/o/buyAmount",
        ),
        (
            [changed(competition(), "hold", "orders", "o", "kind")],
            "invalid_field",
            "/orders/o/kind",
        ),
        (
            [changed(competition(), [{"kind": "tip"}], "orders", "o", "feePolicies")],
            "invalid_field",
            "/orders/o/feePolicies/0",
        ),
        ([changed(competition(), "1e18", "prices", B)], "bad_amount", f"/prices/{B}"),
        (
            [changed(competition(), "-1", "solutions", 0, "trades", 0, "buyAmount")],
            "bad_amount",
            "/solutions/0/trades/0/buyAmount",
        ),
        ([competition(), competition()], "second_auction", "/orders"),
        ([competition(), changed(competition(), None, "orders")], "duplicate_solution", None),
        ([cow_auction(), {}], "invalid_field", "/solutions"),
        (
            [changed(cow_auction(), "0", "orders", 0, "sellAmount")],
            "zero_amount",
            "/orders/0/sellAmount",
        ),
        ([changed(cow_auction(), "sale", "orders", 1, "uid")], "duplicate_order", "/orders/1/uid"),
        (
            [changed(cow_auction(), "x", "tokens", B, "referencePrice")],
            "bad_amount",
            f"/tokens/{B}/referencePrice",
        ),
        (
            [cow_auction(), cow_answer({**SALE, "order": "other"})],
            "unknown_order",
            "/solutions/0/trades/0/order",
        ),
        (
            [cow_auction(), cow_answer({**SALE, "order": {}})],
            "unknown_order",
            "/solutions/0/trades/0/order",
        ),
        (
            [cow_auction(), cow_answer({**SALE, "kind": "gift"})],
            "unknown_trade",
            "/solutions/0/trades/0/kind",
        ),
        (
            [cow_auction(), cow_answer({**SALE, "kind": "jit"})],
            "invalid_field",
            "/solutions/0/trades/0/order",
        ),
        (
            [cow_auction(), cow_answer({**SALE, "executedAmount": 1.5})],
            "bad_amount",
            "/solutions/0/trades/0/executedAmount",
        ),
        ([cow_auction(), cow_answer(SALE, price=0)], "bad_rate", f"/solutions/0/prices/{A}"),
        (
            [cow_auction(), changed(cow_answer(SALE), None, "solutions", 0, "prices", A)],
            "no_rate",
            "/solutions/0/trades/0",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_pointed_at(
    tmp_path: Path, documents: list[Any], code: str, pointer: str | None
) -> None:
    result = run(tmp_path, *documents)
    assert result.exit_code == EXIT_BAD_INPUT, result.output
    answer = json.loads(result.stdout)
    assert answer["code"] == code, answer
    assert pointer is None or answer.get("pointer") == pointer, answer
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["winners", "--json", str(tmp_path / "absent.json")])
    assert result.exit_code == EXIT_BAD_INPUT
    assert json.loads(result.stdout)["code"] == "no_file"
