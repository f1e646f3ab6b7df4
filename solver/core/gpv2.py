"""A settlement of CoW Protocol as the calldata of ``GPv2Settlement.settle``.

An engine's solution names uses of liquidity; whoever settles it (a driver, or a test) turns these
into calls and signs nothing but the transaction: the orders carry their owners' signatures.

Source: the contracts GPv2Order, GPv2Trade, GPv2Signing and GPv2Settlement of CoW Protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from msgspec import Struct

from solver.core.abi import encode_call
from solver.core.crypto import domain_separator, keccak, typed_digest, word
from solver.core.types import ZERO_ADDRESS, ZERO_BYTES32, Call, Kind

SETTLE = (
    "settle(address[],uint256[],"
    "(uint256,uint256,address,uint256,uint256,uint32,bytes32,uint256,uint256,uint256,bytes)[],"
    "(address,uint256,bytes)[][3])"
)
_ORDER_TYPE = keccak(
    b"Order(address sellToken,address buyToken,address receiver,uint256 sellAmount,"
    b"uint256 buyAmount,uint32 validTo,bytes32 appData,uint256 feeAmount,string kind,"
    b"bool partiallyFillable,string sellTokenBalance,string buyTokenBalance)"
)
_WORDS = {Kind.EXACT_IN: b"sell", Kind.EXACT_OUT: b"buy"}
_ERC20 = keccak(b"erc20")


class Scheme(IntEnum):
    """How an order is signed, with the contract's number."""

    EIP712 = 0
    ETHSIGN = 1
    EIP1271 = 2
    PRESIGN = 3


class Order(Struct, frozen=True):
    """The signed message, field for field the EIP-712 type ``Order``; balances are ERC-20.

    ``valid_to`` is in Unix seconds; a zero ``receiver`` is the owner.
    """

    sell_token: str
    buy_token: str
    sell_amount: int
    buy_amount: int
    valid_to: int
    kind: Kind
    partially_fillable: bool = False
    receiver: str = ZERO_ADDRESS
    app_data: str = ZERO_BYTES32
    fee_amount: int = 0


class Trade(Struct, frozen=True):
    """An order's part in a settlement: ``sold``, the solver's fee included, and ``bought``.

    A signed ``fee_amount`` (of old orders; today it is zero) is taken on top of ``sold``.
    The contract recovers the owner from ``signature``; with the schemes EIP1271 and PRESIGN it
    reads the owner's address in its first 20 bytes.
    """

    order: Order
    sold: int
    bought: int
    signature: bytes
    scheme: Scheme = Scheme.EIP712


def domain(chain: int, settlement: str) -> bytes:
    """The EIP-712 domain separator of a deployed settlement contract."""
    return domain_separator("Gnosis Protocol", "v2", chain, settlement)


def digest_of(order: Order, separator: bytes) -> bytes:
    """The EIP-712 digest that an owner signs."""
    parts = (
        _ORDER_TYPE,
        word(order.sell_token),
        word(order.buy_token),
        word(order.receiver),
        word(order.sell_amount),
        word(order.buy_amount),
        word(order.valid_to),
        word(order.app_data),
        word(order.fee_amount),
        keccak(_WORDS[order.kind]),
        word(int(order.partially_fillable)),
        _ERC20,
        _ERC20,
    )
    return typed_digest(separator, keccak(b"".join(parts)))


def uid_of(order: Order, owner: str, separator: bytes) -> str:
    """The order's 56 bytes in hex: digest, owner, end of validity."""
    tail = bytes.fromhex(owner[2:]) + order.valid_to.to_bytes(4, "big")
    return "0x" + (digest_of(order, separator) + tail).hex()


def moved(order: Order, executed: int, fee: int, prices: tuple[int, int]) -> tuple[int, int]:
    """Sold, fee included, and bought, from what a solution says of a trade.

    ``executed`` is what is sold without the fee (sell orders) or what is bought; ``prices`` are
    those of the sold and the bought token. Rounds in the order's favour, as the contract does.
    """
    sell, buy = prices
    if order.kind is Kind.EXACT_IN:
        return executed + fee, -(-executed * sell // buy)
    return executed * buy // sell + fee, executed


def settle(
    trades: Sequence[Trade],
    calls: Sequence[Call],
    before: Sequence[Call] = (),
    after: Sequence[Call] = (),
) -> str:
    """The calldata that executes the trades, with ``calls`` between taking in and paying out.

    Each trade has prices of its own: ``bought`` for the sold token and ``sold`` for the bought one.
    With these the contract's divisions leave no rest, so exactly these amounts move; a uniform
    price would not say what an order pays as a fee.
    """
    tokens, prices, encoded = [], [], []
    for trade in trades:
        order = trade.order
        tokens += [order.sell_token, order.buy_token]
        prices += [trade.bought, trade.sold]
        encoded.append(
            (
                len(tokens) - 2,
                len(tokens) - 1,
                order.receiver,
                order.sell_amount,
                order.buy_amount,
                order.valid_to,
                bytes.fromhex(order.app_data[2:]),
                order.fee_amount,
                _flags(trade),
                trade.sold if order.kind is Kind.EXACT_IN else trade.bought,
                trade.signature,
            )
        )
    interactions = [
        [step for call in part for step in _steps(call)] for part in (before, calls, after)
    ]
    return encode_call(SETTLE, tokens, prices, encoded, interactions)


def _flags(trade: Trade) -> int:
    order = trade.order
    is_buy = order.kind is Kind.EXACT_OUT
    return is_buy | order.partially_fillable << 1 | trade.scheme << 5


def _steps(call: Call) -> list[tuple[str, int, bytes]]:
    """A call, and before it what it needs to be approved."""
    steps = [(call.target, 0, bytes.fromhex(call.data[2:]))]
    if call.approve:
        token, amount = call.approve
        approval = encode_call("approve(address,uint256)", call.target, amount)
        steps.insert(0, (token, 0, bytes.fromhex(approval[2:])))
    return steps
