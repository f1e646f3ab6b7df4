"""Numbers from public systems, one test per case; unsupported kinds are skipped with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from solver.cli import EXIT_DONE, app
from solver.core import crypto, gpv2
from solver.core.pools import constant_product_in, constant_product_out
from solver.core.types import Kind
from tests.parity.cases import files, load

SUPPORTED = {"constantProduct", "weightedProduct", "stable", "concentratedLiquidity", "limitOrder"}


def solve(tmp_path: Path, request: Any) -> Any:
    """The auction through the command, as a user gives it."""
    file = tmp_path / "auction.json"
    file.write_text(json.dumps(request), encoding="utf-8")
    result = CliRunner().invoke(app, ["solve", str(file)])
    assert result.exit_code == EXIT_DONE, result.output
    return json.loads(result.stdout)


def without_gas(solution: Any) -> Any:
    """Gas and the fee that follows from it are the engine's own; so is the number of a solution."""
    kept = {key: value for key, value in solution.items() if key not in ("gas", "id")}
    kept["trades"] = [
        {key: value for key, value in trade.items() if key != "fee"} for trade in kept["trades"]
    ]
    return kept


def paid(solution: Any, order: Any) -> tuple[int, int]:
    """Sold and bought of the order at the solution's prices."""
    (trade,) = solution["trades"]
    executed = int(trade["executedAmount"])
    sell, buy = (int(solution["prices"][order[side].lower()]) for side in ("sellToken", "buyToken"))
    if order["kind"] == "sell":
        return executed, executed * sell // buy
    return -(-executed * buy // sell), executed


@pytest.mark.parametrize("path", files("cow-baseline"))
def test_cow_baseline(path: Path, tmp_path: Path) -> None:
    """The reference engine answers each order for itself, on the best single path.

    With more than one pool a better answer for the user is right as well.
    """
    case = load(path)
    request, expected = case["request"], case["expected"]["solutions"]
    kinds = {entry["kind"] for entry in request["liquidity"]}
    if not kinds <= SUPPORTED:
        pytest.skip(f"liquidity of kind {', '.join(sorted(kinds - SUPPORTED))}")
    if any(order["class"] != "market" for order in request["orders"]):
        pytest.skip("the command charges no fee; the engine does, see test_cow_engine.py")
    assert request["orders"]
    for order in request["orders"]:
        answer = solve(tmp_path, {**request, "orders": [order]})
        wanted = [
            solution
            for solution in expected
            if [trade["order"] for trade in solution["trades"]] == [order["uid"]]
        ]
        assert len(answer["solutions"]) == len(wanted)
        for solution, reference in zip(answer["solutions"], wanted, strict=True):
            sold, bought = paid(solution, order)
            if without_gas(solution) != without_gas(reference):
                assert len(request["liquidity"]) > 1, (solution, reference)
                sold_there, bought_there = paid(reference, order)
                assert sold <= sold_there and bought >= bought_there
                assert (sold, bought) != (sold_there, bought_there)
            certificate = answer["certificate"]
            assert float(certificate["value"]) <= float(certificate["bound"])
            two_units_bps = 2 * 10_000 / min(sold, bought)
            # the bound of an exact output keeps a gap where reference prices and pools disagree
            allowed_bps = 0.01 if order["kind"] == "sell" else 1.0
            assert float(certificate["netGapBps"]) < allowed_bps + two_units_bps


@pytest.mark.parametrize("path", files("solver-template-py", "*.modern.json"))
def test_solver_template(path: Path, tmp_path: Path) -> None:
    """The fill gives at least what a reference run of the same auction got from the pools alone."""
    request = load(path)
    answer = solve(tmp_path, request)
    orders = {order["uid"]: order for order in request["orders"]}
    (solution,) = answer["solutions"]
    for trade in solution["trades"]:
        order = orders[trade["order"]]
        prices = solution["prices"]
        bought = (int(trade["executedAmount"]) * int(prices[order["sellToken"].lower()])) // int(
            prices[order["buyToken"].lower()]
        )
        assert bought >= int(order["buyAmount"])
        if order["sellAmount"] == str(12 * 10**18):
            assert bought >= 75_206 * 10**18
    named = {reason["order"] for reason in answer["open"]}
    filled = {trade["order"] for trade in solution["trades"]}
    assert named | filled == set(orders)
    assert all(reason["reason"] for reason in answer["open"])


@pytest.mark.parametrize("path", files("routing", "uniswap_v2.json"))
def test_uniswap_v2(path: Path) -> None:
    checked = 0
    for row in load(path)["rows"]:
        if int(row.get("buy_fee_bps", 0)) or int(row.get("sell_fee_bps", 0)):
            continue  # fee-on-transfer tokens are refused at settlement
        reserves = int(row["rin"]), int(row["rout"])
        if row["fn"] == "out":
            assert constant_product_out(int(row["x"]), *reserves, 3, 1000) == int(row["y"])
        else:
            assert constant_product_in(int(row["y"]), *reserves, 3, 1000) == int(row["x"])
        checked += 1
    assert checked > 100


def _cow_order(fields: dict[str, Any]) -> gpv2.Order:
    return gpv2.Order(
        fields["sellToken"],
        fields["buyToken"],
        int(fields["sellAmount"]),
        int(fields["buyAmount"]),
        fields["validTo"],
        {"sell": Kind.EXACT_IN, "buy": Kind.EXACT_OUT}[fields["kind"]],
        fields["partiallyFillable"],
        fields["receiver"],
        fields["appData"],
        int(fields["feeAmount"]),
    )


@pytest.mark.parametrize("path", files("signing-vectors", "cow.json"))
def test_signing_vectors(path: Path) -> None:
    data = load(path)
    uid = data["order_uid"]
    separator = bytes.fromhex(uid["domain_separator"][2:])
    assert gpv2.uid_of(_cow_order(uid["order"]), uid["owner"], separator) == uid["expected_uid"]
    for case in data["order_signatures"]:
        separator = bytes.fromhex(case["domain_separator"][2:])
        digest = gpv2.digest_of(_cow_order(case["order"]), separator)
        if case["scheme"] == "ethsign":
            digest = crypto.keccak(b"\x19Ethereum Signed Message:\n32" + digest)
        signer = crypto.recover(digest, bytes.fromhex(case["signature"][2:]))
        assert signer == case["expected_signer"].lower()


_PERMITTED = "TokenPermissions(address token,uint256 amount)"
_PERMIT = (
    "(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline"  # and a witness
)


def _permit_hash(case: dict[str, Any]) -> bytes:
    witness = case["witness"]
    permitted = crypto.keccak(
        crypto.keccak(_PERMITTED.encode())
        + crypto.word(case["permitted"]["token"])
        + crypto.word(int(case["permitted"]["amount"]))
    )
    words = [permitted, crypto.word(case["spender"])]
    words += [crypto.word(int(case[name])) for name in ("nonce", "deadline")]
    if witness is None:
        return crypto.keccak(
            crypto.keccak(f"PermitTransferFrom{_PERMIT}){_PERMITTED}".encode()) + b"".join(words)
        )
    name = witness["type_name"]
    fields = witness["type"][name]
    kind = f"{name}({','.join(f['type'] + ' ' + f['name'] for f in fields)})"
    values = [crypto.word(witness["value"][field["name"]]) for field in fields]
    words.append(crypto.keccak(crypto.keccak(kind.encode()) + b"".join(values)))
    whole = f"PermitWitnessTransferFrom{_PERMIT},{name} witness){kind}{_PERMITTED}"
    return crypto.keccak(crypto.keccak(whole.encode()) + b"".join(words))


@pytest.mark.parametrize("path", files("signing-vectors", "permit2.json"))
def test_permit2_vectors(path: Path) -> None:
    """Nested structs and a domain without a version, hashed with our primitives."""
    data = load(path)
    separator = crypto.keccak(
        crypto.keccak(b"EIP712Domain(string name,uint256 chainId,address verifyingContract)")
        + crypto.keccak(b"Permit2")
        + crypto.word(data["chain_id"])
        + crypto.word(data["permit2_address"])
    )
    assert data["cases"]
    for case in data["cases"]:
        digest = crypto.typed_digest(separator, _permit_hash(case))
        assert "0x" + digest.hex() == case["expected"]
