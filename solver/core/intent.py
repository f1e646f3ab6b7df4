"""The signed order: digest, signer, partial-fill rounding and admission rules.

The rounding rules here are the contract's, to the unit, and always against the solver.
"""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct

from solver.core import crypto
from solver.core.types import (
    BPS,
    UINT256_MAX,
    ZERO_ADDRESS,
    ZERO_BYTES32,
    JsonObject,
    Kind,
    Rejection,
    Swap,
)

DOMAIN_NAME = "Thalweg"
DOMAIN_VERSION = "1"
MIN_CLAIM_WINDOW_SECONDS = 600

#: (Solidity type, name on the wire, attribute) in the order of the type string.
SWAP_FIELDS: tuple[tuple[str, str, str], ...] = (
    ("address", "owner", "owner"),
    ("bytes32", "account", "account"),
    ("address", "receiver", "receiver"),
    ("uint256", "sellChain", "sell_chain"),
    ("bytes32", "sellAsset", "sell_asset"),
    ("uint256", "buyChain", "buy_chain"),
    ("bytes32", "buyAsset", "buy_asset"),
    ("uint256", "sellAmount", "sell_amount"),
    ("uint256", "buyAmount", "buy_amount"),
    ("string", "kind", "kind"),
    ("bool", "partialFill", "partial_fill"),
    ("uint256", "nonce", "nonce"),
    ("uint64", "validFrom", "valid_from"),
    ("uint64", "validUntil", "valid_until"),
    ("uint64", "fillDeadline", "fill_deadline"),
    ("uint64", "refundAfter", "refund_after"),
    ("uint256", "maxFee", "max_fee"),
    ("uint256", "minHealth", "min_health"),
    ("bytes32", "extension", "extension"),
)
SWAP_TYPE = "Swap(" + ",".join(f"{kind} {name}" for kind, name, _ in SWAP_FIELDS) + ")"
SWAP_TYPEHASH = crypto.keccak(SWAP_TYPE.encode())
CANCEL_TYPE = "Cancel(bytes32 digest)"
CANCEL_TYPEHASH = crypto.keccak(CANCEL_TYPE.encode())


def struct_hash(swap: Swap) -> bytes:
    """The EIP-712 hash of the struct (without the domain)."""
    words = [SWAP_TYPEHASH]
    for kind, _, attribute in SWAP_FIELDS:
        value = getattr(swap, attribute)
        if kind == "string":
            words.append(crypto.keccak(Kind(value).value.encode()))
        else:
            words.append(crypto.word(int(value) if kind == "bool" else value))
    return crypto.keccak(b"".join(words))


def digest_of(swap: Swap, settlement: str) -> str:
    """The digest that the owner signs and that names the intent everywhere."""
    separator = crypto.domain_separator(DOMAIN_NAME, DOMAIN_VERSION, swap.sell_chain, settlement)
    return "0x" + crypto.typed_digest(separator, struct_hash(swap)).hex()


def cancel_digest(digest: str, chain: int, settlement: str) -> bytes:
    """The digest of an off-chain cancellation, in the domain of the intent."""
    separator = crypto.domain_separator(DOMAIN_NAME, DOMAIN_VERSION, chain, settlement)
    return crypto.typed_digest(separator, crypto.keccak(CANCEL_TYPEHASH + crypto.word(digest)))


def typed_data(swap: Swap, settlement: str) -> JsonObject:
    """The EIP-712 document that a wallet shows (``eth_signTypedData_v4``)."""
    message: JsonObject = {}
    for kind, name, attribute in SWAP_FIELDS:
        value = getattr(swap, attribute)
        if kind.startswith("uint"):
            value = str(value)
        message[name] = value.value if isinstance(value, Kind) else value
    return {
        "domain": {
            "name": DOMAIN_NAME,
            "version": DOMAIN_VERSION,
            "chainId": swap.sell_chain,
            "verifyingContract": settlement,
        },
        "primaryType": "Swap",
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
                {"name": "verifyingContract", "type": "address"},
            ],
            "Swap": [{"name": name, "type": kind} for kind, name, _ in SWAP_FIELDS],
        },
        "message": message,
    }


def min_buy(swap: Swap, sell: int) -> int:
    """The least that selling ``sell`` must bring: ⌈sell·buyAmount/sellAmount⌉ (exact-in)."""
    return -(-sell * swap.buy_amount // swap.sell_amount)


def max_sell(swap: Swap, buy: int) -> int:
    """The most that buying ``buy`` may cost: ⌊buy·sellAmount/buyAmount⌋ (exact-out)."""
    return buy * swap.sell_amount // swap.buy_amount


def max_fee(swap: Swap, fill: int) -> int:
    """The share of ``maxFee`` that a fill may carry, rounded down: ⌊maxFee·fill/total⌋."""
    return swap.max_fee * fill // swap.total


def respects_limit(swap: Swap, sell: int, buy: int) -> bool:
    """Whether a fill keeps the signed limit, by the contract's rounding."""
    if swap.kind is Kind.EXACT_IN:
        return buy >= min_buy(swap, sell)
    return sell <= max_sell(swap, buy)


def limit_from_slippage(reference_amount: int, slippage_bps: int, kind: Kind) -> int:
    """A slippage allowance as a hard limit, rounded towards the user.

    Exact-in: the least output, rounded up. Exact-out: the most input, rounded down.
    """
    if kind is Kind.EXACT_IN:
        return -(-reference_amount * (BPS - slippage_bps) // BPS)
    return reference_amount * (BPS + slippage_bps) // BPS


def limit_from_price(
    kind: Kind, amount: int, price_in: float, price_out: float, slippage_bps: int, fee: int
) -> int:
    """The hard limit of an order for ``amount``, which is sold (exact-in) or bought (exact-out).

    ``price_in`` and ``price_out`` are numeraire per base unit of the sold and of the bought token;
    ``fee`` is in the bought token and comes off what is bought.
    """
    rate = Decimal(price_in) / Decimal(price_out)
    if kind is Kind.EXACT_IN:
        return limit_from_slippage(int(amount * rate), slippage_bps, kind) - fee
    return limit_from_slippage(int((amount + fee) / rate), slippage_bps, kind)


class Admission(Struct, frozen=True):
    """The operator's policy and the facts about the owner that admission looks at.

    ``min_buy_value`` and the intent's own value are in the numeraire; ``None`` where no price
    is known.
    """

    settlements: dict[int, str]
    forbidden_receivers: frozenset[str]
    tokens: frozenset[tuple[int, str]]
    now: int
    max_lifetime_seconds: int
    max_open_per_owner: int
    max_open_total: int
    open_of_owner: int
    open_total: int
    value: float | None
    min_value: float


def check_swap(swap: Swap, policy: Admission) -> Rejection | None:
    """All rules that need no signature and no chain; the first that fails is the answer."""
    return check_terms(swap, policy) or _check_quota(swap, policy)


def check_terms(swap: Swap, policy: Admission) -> Rejection | None:
    """The rules about the order alone, whatever else is open: what may be signed at all."""
    for check in (_check_shape, _check_chain, _check_times):
        refusal = check(swap, policy)
        if refusal is not None:
            return refusal
    return None


def check_signature(swap: Swap, digest: str, signature: bytes) -> Rejection | None:
    """The signature must recover to the *named* owner."""
    try:
        signer = crypto.recover(bytes.fromhex(digest[2:]), signature)
    except crypto.SignatureError as error:
        return Rejection("bad_signature", str(error), "/signature")
    if signer != swap.owner:
        return Rejection(
            "bad_signature", f"signed by {signer}, but the owner is {swap.owner}", "/signature"
        )
    return None


def _check_shape(swap: Swap, _: Admission) -> Rejection | None:
    if not 0 < swap.sell_amount <= UINT256_MAX:
        return Rejection("zero_amount", "sellAmount must be positive", "/swap/sellAmount")
    if not 0 < swap.buy_amount <= UINT256_MAX:
        return Rejection("zero_amount", "buyAmount must be positive", "/swap/buyAmount")
    for name, address in (("owner", swap.owner), ("receiver", swap.receiver)):
        if address == ZERO_ADDRESS:
            return Rejection("zero_address", f"{name} must not be zero", f"/swap/{name}")
    for name, value, zero in (
        ("account", swap.account, ZERO_BYTES32),
        ("extension", swap.extension, ZERO_BYTES32),
        ("minHealth", swap.min_health, 0),
    ):
        if value != zero:
            return Rejection("unsupported_field", f"{name} must be zero in v1", f"/swap/{name}")
    if swap.sell == swap.buy:
        return Rejection("same_asset", "sell and buy asset are the same", "/swap/buyAsset")
    return None


def _check_chain(swap: Swap, policy: Admission) -> Rejection | None:
    for name, chain in (("sellChain", swap.sell_chain), ("buyChain", swap.buy_chain)):
        if chain not in policy.settlements:
            return Rejection("wrong_chain", f"chain {chain} is not served here", f"/swap/{name}")
    for name, chain, asset in (
        ("sellAsset", swap.sell_chain, swap.sell_asset),
        ("buyAsset", swap.buy_chain, swap.buy_asset),
    ):
        if asset[2:26] != "0" * 24 or (chain, "0x" + asset[-40:]) not in policy.tokens:
            return Rejection("unknown_asset", f"{asset} is not known on {chain}", f"/swap/{name}")
    if swap.receiver in policy.forbidden_receivers:
        return Rejection("bad_receiver", "receiver is a contract of ours", "/swap/receiver")
    return None


def _check_times(swap: Swap, policy: Admission) -> Rejection | None:
    if swap.valid_until < policy.now:
        return Rejection("expired", "validUntil is in the past", "/swap/validUntil")
    if swap.valid_from > swap.valid_until:
        return Rejection("bad_times", "validFrom is after validUntil", "/swap/validFrom")
    if swap.valid_until > policy.now + policy.max_lifetime_seconds:
        return Rejection("too_long_lived", "validUntil is too far ahead", "/swap/validUntil")
    if swap.is_cross_chain:
        if not swap.valid_until <= swap.fill_deadline:
            return Rejection("bad_times", "fillDeadline is before validUntil", "/swap/fillDeadline")
        if swap.fill_deadline + MIN_CLAIM_WINDOW_SECONDS > swap.refund_after:
            return Rejection(
                "bad_times",
                f"refundAfter must be {MIN_CLAIM_WINDOW_SECONDS} s after fillDeadline",
                "/swap/refundAfter",
            )
    elif swap.fill_deadline or swap.refund_after:
        return Rejection(
            "bad_times", "fillDeadline and refundAfter are for cross-chain", "/swap/fillDeadline"
        )
    return None


def _check_quota(swap: Swap, policy: Admission) -> Rejection | None:
    if policy.open_of_owner >= policy.max_open_per_owner:
        return Rejection("owner_quota", "too many open intents of this owner", "/swap/owner")
    if policy.open_total >= policy.max_open_total:
        return Rejection("queue_full", "too many open intents", "")
    if policy.value is not None and policy.value < policy.min_value:
        return Rejection(
            "below_gas", "the intent is worth less than its own gas", "/swap/sellAmount"
        )
    return None
