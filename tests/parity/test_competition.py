"""Fees, scores and winners as CoW Protocol's driver and autopilot have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from solver.cli import EXIT_DONE, EXIT_NOTHING_FILLED, app
from solver.core.fees import Charged, Execution, FeePolicy, charge
from solver.core.types import Kind
from solver.core.winners import PRICE_UNIT, Order, Trade, score
from solver.wire import fees
from tests.parity.cases import DATA, files, load, rows

_KINDS = {"sell": Kind.EXACT_IN, "buy": Kind.EXACT_OUT}
_TOLERANCE = 1e-9  # of the scores, which were worked out in decimals by hand


def integer(text: str) -> int:
    """Decimal or, as the reference also reads it, hex."""
    return int(text, 0)


def policies(case: Any) -> tuple[FeePolicy, ...]:
    """The case's policies through the reader of auctions; only the quote has other names here."""
    entries = []
    for policy in case["fee_policies_in_order"]:
        if policy["kind"] not in ("surplus", "priceImprovement", "volume"):
            pytest.skip(f"fee policy of kind {policy['kind']}")
        entry = dict(policy)
        if "quote" in entry:
            quote = entry["quote"]
            entry["quote"] = {
                "sellAmount": quote["sell"],
                "buyAmount": quote["buy"],
                "fee": quote["network_fee"],
            }
        entries.append(entry)
    return fees.policies(entries, "")


_FEE_CASES = [
    row
    for path in sorted((DATA / "cow-protocol-fees").glob("*.json"))
    for row in rows("cow-protocol-fees", path.name, "cases")
] or rows("cow-protocol-fees", "cases.json", "cases")


@pytest.mark.parametrize(("data", "case"), _FEE_CASES)
def test_protocol_fees(data: Any, case: Any) -> None:
    """Amounts to the unit; scores as closely as they are stated."""
    order, before, after = (
        case[name] for name in ("order", "solver_executed", "after_protocol_fee")
    )
    if order["class"] != "limit":
        pytest.skip(f"order of class {order['class']}")
    kind = _KINDS[order["side"]]
    limit = integer(order["sell_amount"]), integer(order["buy_amount"])
    execution = Execution(kind, *limit, integer(before["sell"]), integer(before["buy"]))
    terms = policies(case)
    # Where the solver answers for the fees, they are in what it executed already.
    charged = (
        charge(execution, terms)
        if case["fees_handled_by"] == "driver"
        else Charged(execution, (), 0)
    )
    got = charged.execution
    assert (got.sell, got.buy) == (integer(after["sell"]), integer(after["buy"]))
    signed = Order(kind, "sold", "bought", *limit, terms)
    # The reference's tokens are worth one native token each.
    found = score(signed, Trade("order", got.sell, got.buy), PRICE_UNIT)
    assert found == pytest.approx(integer(case["expected_score_wei"]), rel=_TOLERANCE)


def competition(data: Any) -> Any:
    """The case as a competition file."""
    case = data["case"]
    tokens = dict(case["tokens"])
    prices = case["auction"].get("prices")
    if prices is None:
        prices = dict.fromkeys(tokens, str(data["default_token_price_wei"]))
    return {
        "format": "thalweg.competition/1",
        "orders": {
            name: {
                "kind": order["side"].lower(),
                "sellToken": tokens[order["sell_token"]],
                "buyToken": tokens[order["buy_token"]],
                "sellAmount": str(integer(order["sell_amount"])),
                "buyAmount": str(integer(order["buy_amount"])),
            }
            for name, order in case["auction"]["orders"].items()
        },
        "prices": {tokens[name]: str(integer(price)) for name, price in prices.items()},
        "maxWinners": data["max_winners"],
        "solutions": [
            {
                "solver": solution["solver"],
                "id": name,
                "trades": [
                    {
                        "order": order,
                        "sellAmount": str(integer(trade["sell_amount"])),
                        "buyAmount": str(integer(trade["buy_amount"])),
                    }
                    for order, trade in solution["trades"].items()
                ],
            }
            for name, solution in case["solutions"].items()
        ],
    }


@pytest.mark.parametrize("path", files("cow-winner-selection"))
def test_winner_selection(path: Path, tmp_path: Path) -> None:
    """Through the command, as a user gives it."""
    data = load(path)
    file = tmp_path / "competition.json"
    file.write_text(json.dumps(competition(data)), encoding="utf-8")
    result = CliRunner().invoke(app, ["winners", "--json", str(file)])
    case = data["case"]
    done = EXIT_DONE if case["expected_winners"] else EXIT_NOTHING_FILLED
    assert result.exit_code == done, result.output
    answer = json.loads(result.stdout)
    assert [entry["id"] for entry in answer["winners"]] == case["expected_winners"]
    fair = [entry["id"] for entry in answer["winners"]]
    fair += [entry["id"] for entry in answer["others"] if entry["standing"] == "loser"]
    assert sorted(fair) == sorted(case["expected_fair_solutions"])
    assert answer["referenceScores"] == {
        solver: str(integer(score)) for solver, score in case["expected_reference_scores"].items()
    }
