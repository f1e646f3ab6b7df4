"""The nouns of the system.

Amounts are unsigned integers in a token's base units. Chains are EIP-155 chain
ids. Addresses are ``0x`` and 40 lower-case hex digits; digests and hashes are
``0x`` and 64. Every struct is frozen: a change makes a new value.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from msgspec import Struct, field

UINT256_MAX = 2**256 - 1
ZERO_ADDRESS = "0x" + "00" * 20
ZERO_BYTES32 = "0x" + "00" * 32
BPS = 10_000


class TokenId(Struct, frozen=True, order=True):
    """A token on a chain; the identity that graph, program and ledger share."""

    chain: int
    address: str

    def __str__(self) -> str:
        return f"{self.chain}:{self.address}"

    @classmethod
    def parse(cls, name: str) -> TokenId:
        """The token that :meth:`__str__` names. Raises ValueError."""
        chain, _, address = name.partition(":")
        return cls(int(chain), address.lower())


class Token(Struct, frozen=True):
    """What an operator knows about a token."""

    id: TokenId
    symbol: str
    decimals: int


class Kind(str, Enum):
    """Which side of an intent is fixed. The value is the word that a wallet shows."""

    EXACT_IN = "exactIn"
    EXACT_OUT = "exactOut"


class Exact(str, Enum):
    """Which side of a pool swap the given amount is."""

    IN = "in"
    OUT = "out"


class Swap(Struct, frozen=True):
    """The signed message, field for field the EIP-712 type ``Swap``.

    ``exactIn``: ``sell_amount`` is sold and ``buy_amount`` is the least bought.
    ``exactOut``: ``buy_amount`` is bought and ``sell_amount`` is the most sold.
    ``max_fee`` is in the buy token, for the whole order. Times are Unix seconds.
    """

    owner: str
    account: str
    receiver: str
    sell_chain: int
    sell_asset: str
    buy_chain: int
    buy_asset: str
    sell_amount: int
    buy_amount: int
    kind: Kind
    partial_fill: bool
    nonce: int
    valid_from: int
    valid_until: int
    fill_deadline: int
    refund_after: int
    max_fee: int
    min_health: int
    extension: str

    @property
    def sell(self) -> TokenId:
        """The token that is sold."""
        return TokenId(self.sell_chain, "0x" + self.sell_asset[-40:])

    @property
    def buy(self) -> TokenId:
        """The token that is bought."""
        return TokenId(self.buy_chain, "0x" + self.buy_asset[-40:])

    @property
    def total(self) -> int:
        """The amount that fills count against: sold for exactIn, bought for exactOut."""
        return self.sell_amount if self.kind is Kind.EXACT_IN else self.buy_amount

    @property
    def is_cross_chain(self) -> bool:
        """Whether the order sells on one chain and buys on another."""
        return self.sell_chain != self.buy_chain


class Intent(Struct, frozen=True):
    """An admitted order: a signed swap with its digest and how much of it is filled.

    ``covered`` bounds what may still be filled where the owner's balance does not cover the rest.
    """

    digest: str
    swap: Swap
    signature: str
    filled: int = 0
    covered: int | None = None

    @property
    def remaining(self) -> int:
        """What may still be filled, in the unit of :attr:`Swap.total`."""
        rest = self.swap.total - self.filled
        return rest if self.covered is None else min(rest, self.covered)


class Rejection(Struct, frozen=True):
    """A refusal: a value, never an exception. ``pointer`` is a JSON pointer into the request."""

    code: str
    detail: str
    pointer: str = ""


class Call(Struct, frozen=True):
    """One call of a bundle; ``approve`` (token, amount) is given to ``target`` for it only."""

    target: str
    data: str
    approve: tuple[str, int] | None = None


class Leg(Struct, frozen=True):
    """One executed use of a pool, in the pool's exact integers.

    The encoded call enforces ``amount_out`` exactly or as the least; ``receiver`` is where the
    output must arrive.
    """

    pool: str
    token_in: TokenId
    token_out: TokenId
    amount_in: int
    amount_out: int
    gas: int
    receiver: str = ""


class Charges(Struct, frozen=True):
    """The operator's fees on one fill beside gas, by policy and in their order.

    In the order's surplus token: bought for exact-in, sold for exact-out.
    """

    volume: int = 0
    surplus: int = 0
    improvement: int = 0
    solver: int = 0

    @property
    def total(self) -> int:
        """All of them together."""
        return self.volume + self.surplus + self.improvement + self.solver


NO_CHARGES = Charges()


class Fill(Struct, frozen=True):
    """What one intent gets from a solution. ``buy`` is net of ``fee`` (both in the buy token).

    ``sell`` and ``buy`` are what leaves and reaches the owner: ``charges`` are taken already.
    """

    digest: str
    sell: int
    buy: int
    fee: int
    charges: Charges = NO_CHARGES


class InventoryUse(Struct, frozen=True):
    """The solver pays ``amount_out`` on the destination for ``amount_in`` in escrow."""

    token_in: TokenId
    token_out: TokenId
    amount_in: int
    amount_out: int


class Leaf(Struct, frozen=True):
    """One case of a proof: which all-or-nothing orders are whole or out, and its own ν and λ."""

    whole: list[str]
    out: list[str]
    bound: str
    prices: dict[str, str]
    multipliers: dict[str, str]


class Row(Struct, frozen=True):
    """A named row as decimal strings: Σ coefficient·(filled share) ≤ ``most``, by digest."""

    coefficients: dict[str, str]
    most: str


class Certificate(Struct, frozen=True, rename="camel"):
    """The proof that comes with every answer.

    ``value``, ``bound``, ``arb_floor``, ``gap`` and ``net_gap`` are decimal strings in the
    numeraire that ``normalisation`` names. ``prices`` holds ν for every token, ``multipliers``
    λ ≥ 0 of the named rows; anyone can recompute ``bound`` from the snapshot and these.
    ``floors`` is the surplus that every plan owes to a pair (or exact-out order), by name; ``caps``
    the best rate of each intent's pair, in base units bought per unit sold.
    ``leaves`` are cases that leave none out; the loosest one is repeated in the fields above.
    ``reference`` has the prices (numeraire per base unit) that the snapshot does not state and
    that follow from pool rates. ``arbitrage`` are the plans behind ``arb_floor``, replayed from the
    snapshot's pools one after another. A plan may borrow tokens while it runs, none in the end;
    what it has left counts in the tokens in which an order's surplus does. ``rows`` are the named
    rows that ``multipliers`` are of.
    """

    objective: str
    normalisation: str
    value: str
    bound: str
    arb_floor: str
    gap: str
    net_gap: str
    net_gap_bps: str
    prices: dict[str, str]
    multipliers: dict[str, str]
    snapshot_hash: str
    assumptions: list[str] = field(default_factory=list)
    binding: list[str] = field(default_factory=list)
    leaves: list[Leaf] = field(default_factory=list)
    floors: dict[str, str] = field(default_factory=dict)
    caps: dict[str, str] = field(default_factory=dict)
    reference: dict[str, str] = field(default_factory=dict)
    arbitrage: list[tuple[Leg, ...]] = field(default_factory=list)
    rows: dict[str, Row] = field(default_factory=dict)


class OpenReason(Struct, frozen=True):
    """Why an intent of the batch is not (wholly) filled.

    ``best_rate`` and ``limit_rate`` are buy units per sell unit as decimal strings, in base units.
    ``paradox`` marks a paradoxically rejected order: its pair is traded at a rate that its limit
    allows, and yet nothing of it is filled.
    """

    digest: str
    code: str
    detail: str
    best_rate: str = ""
    limit_rate: str = ""
    binding: str = ""
    paradox: bool = False


class StandAlone(Struct, frozen=True):
    """What an order would have got from the same snapshot without the other orders of its batch.

    ``buy`` is net of the fee. ``value`` is the surplus of these amounts and ``bound`` that of any
    (numeraire, decimal strings). A report, never a promise: what several orders could have had
    alone, they cannot have all at once.
    """

    digest: str
    sell: int
    buy: int
    value: str
    bound: str


class MarginState(Struct, frozen=True):
    """A margin account before or after a batch, in its unit of account: its assets, and what is
    left beyond initial and maintenance margin in the ``worst`` scenario.
    """

    assets: float
    initial: float
    maintenance: float
    worst: str

    @property
    def health(self) -> float | None:
        """Assets over maintenance requirement, below 1 to be liquidated; None without any."""
        needed = self.assets - self.maintenance
        return self.assets / needed if needed > 0.0 else None


class MarginKept(Struct, frozen=True):
    """An account that a batch touched, and the rows that held it back with what one more unit of
    margin would have brought, in the numeraire.
    """

    account: str
    before: MarginState
    after: MarginState
    prices: dict[str, float] = {}


class Solution(Struct, frozen=True):
    """A checked answer to one problem: integers that the chain will enforce.

    ``clearing`` holds one exact rate (numerator, denominator) per directed token pair;
    ``dust`` is what remains with the solver per token after every payout. ``stage`` says where the
    fills come from: ``route`` (one order), ``program``, ``incumbent``, ``reference`` or ``empty``.
    """

    fills: tuple[Fill, ...]
    legs: tuple[Leg, ...]
    inventory: tuple[InventoryUse, ...]
    clearing: dict[str, tuple[int, int]]
    dust: dict[str, int]
    open: tuple[OpenReason, ...]
    certificate: Certificate
    stage: str = "program"
    alone: tuple[StandAlone, ...] = ()
    margin: tuple[MarginKept, ...] = ()


class Infeasible(Struct, frozen=True):
    """A proposal that did not survive the exact check; a fact about the proposal, not a crash.

    ``short`` says for the digests in the detail by which part of their limits they are short,
    ``missing`` which tokens a plan brought too little of for what is bought exactly.
    """

    code: str
    detail: str
    short: tuple[float, ...] = ()
    missing: tuple[tuple[TokenId, int], ...] = ()


class Faulty(Struct, frozen=True):
    """No answer, because a pool raised, gave nonsense, or does not come to an end."""

    pool: str
    reason: str
    overran: bool = False


JsonObject = dict[str, Any]
