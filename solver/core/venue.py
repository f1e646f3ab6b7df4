"""The venue protocol: what an adapter implements and what the core hands to it.

A venue states facts about one block. ``Venue.pools`` reads through a reader that is
pinned to that block; a ``Pool`` is a pure value and rounds like its contract.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from solver.core.types import Call, Exact, Leg, TokenId


class BlockRef(Struct, frozen=True):
    """The block that a snapshot is pinned to."""

    chain: int
    number: int
    hash: str
    timestamp: int


class EventLog(Struct, frozen=True):
    """One contract event: lower-case hex topics and data."""

    address: str
    topics: tuple[str, ...]
    data: str
    block: int


class Reader(Protocol):
    """Reads of one chain, all pinned to the same block."""

    @property
    def block(self) -> BlockRef: ...

    async def call(
        self, calls: Sequence[tuple[str, str]], code: Mapping[str, str] | None = None
    ) -> list[str]:
        """``eth_call`` for each (target, data), hex in and out; a revert raises ReadError.

        ``code`` is runtime bytecode by address, put there for these calls only: a helper that reads
        many contracts at once needs no deployment. Such calls may use as much gas as the endpoint
        grants.
        """
        ...

    async def logs(self, address: str, topic: str, from_block: int) -> list[EventLog]:
        """The events of a contract from ``from_block`` to the pinned block, both inclusive."""
        ...


class ReadError(Exception):
    """A read of the chain failed; the venue is left out of the snapshot with this reason."""


class PoolFault(Exception):
    """A pool raised, or answered what no pool may: its venue's fault, and only its own."""

    def __init__(self, pool: str, reason: str) -> None:
        super().__init__(f"{pool}: {reason}")
        self.pool, self.reason = pool, reason


class Step(Struct, frozen=True):
    """One swap: exact amounts, gas and the pool as it is afterwards.

    A swap beyond capacity saturates: ``amount_in`` (exact IN) or ``amount_out`` (exact OUT)
    is then less than what was asked.
    """

    amount_in: int
    amount_out: int
    gas: int
    next_pool: Pool


class ConstantProductArc(Struct, frozen=True):
    """Exact arc: out = y·γx'/(x+γx'), γ = 1 − fee. Reserves in base units."""

    token_in: TokenId
    token_out: TokenId
    reserve_in: int
    reserve_out: int
    fee: float
    gas: int = 0


class LevelsArc(Struct, frozen=True):
    """Concave piecewise-linear arc: (capacity of input, output per input) per level, best first.

    Where fills come in whole lots, the curve is the outer bound without lots.
    """

    token_in: TokenId
    token_out: TokenId
    levels: tuple[tuple[float, float], ...]
    gas: int = 0


class WeightedArc(Struct, frozen=True):
    """Exact arc: out = R_o·(1 − (R_i/(R_i+γx))^w), w = weight_in/weight_out, γ = 1 − fee."""

    token_in: TokenId
    token_out: TokenId
    reserve_in: float
    reserve_out: float
    weight_in: float
    weight_out: float
    fee: float
    gas: int = 0


class StableArc(Struct, frozen=True):
    """Exact arc of the stable invariant Ann·Σx + D = Ann·D + D^(n+1)/(n^n·Πx).

    ``balances`` are those of all coins in the invariant's common unit; a base unit of coin k is
    ``scales[k]`` of it (decimals and rates). ``ann`` is what multiplies Σx. γ_in = 1 − fee_in is
    taken from the input before the curve, γ_out = 1 − fee_out from the output after it.
    """

    token_in: TokenId
    token_out: TokenId
    index_in: int
    index_out: int
    balances: tuple[float, ...]
    scales: tuple[float, ...]
    ann: float
    fee_in: float
    fee_out: float
    gas: int = 0


class TickTable:
    """Liquidity along one direction of a concentrated pool; static while no position changes.

    With u = 1/√P where token0 is sold and u = √P where token1 is sold (√P in base units of token1
    per token0), piece k has liquidity L_k for u in [edges[k], edges[k+1]]: moving from u to u'
    takes L·(u' − u) in after the fee and gives L·(1/u − 1/u') out. Edges rise.
    """

    __slots__ = ("edges", "liquidity")

    def __init__(self, edges: NDArray[np.float64], liquidity: NDArray[np.float64]) -> None:
        self.edges = edges
        self.liquidity = liquidity


class TicksArc(Struct, frozen=True):
    """Exact arc of concentrated liquidity, from ``start`` (a value of u) to the table's end."""

    token_in: TokenId
    token_out: TokenId
    table: TickTable
    start: float
    fee: float
    gas: int = 0
    gas_per_tick: int = 0


Arc = ConstantProductArc | LevelsArc | WeightedArc | StableArc | TicksArc


@runtime_checkable
class Pool(Protocol):
    """A pure value: one pool at one block."""

    @property
    def id(self) -> str:
        """Unique over all venues, for example ``constant_product:31337:0x…``."""
        ...

    @property
    def tokens(self) -> tuple[TokenId, ...]: ...

    def swap(self, token_in: TokenId, token_out: TokenId, amount: int, exact: Exact) -> Step:
        """Swap in the contract's integers: output rounds down, input rounds up."""
        ...

    def encode(self, leg: Leg) -> Sequence[Call]:
        """The calls that execute ``leg`` for the settlement contract, output to ``receiver``."""
        ...


def trades_in_lots(pool: object) -> bool:
    """Whether a pool takes whole lots only (it has a ``lot_size``) and leaves the rest."""
    return hasattr(pool, "lot_size")


def described(error: BaseException) -> str:
    """The kind of an exception and its words, which third-party code may fail to give."""
    try:
        return f"{type(error).__name__}: {error}"[:300]
    except Exception:
        return type(error).__name__


def step_of(pool: Pool, token_in: TokenId, token_out: TokenId, amount: int, exact: Exact) -> Step:
    """A pool's ``swap``, checked: a float or a negative amount would end in somebody's bundle.

    Raises PoolFault.
    """
    try:
        step = pool.swap(token_in, token_out, amount, exact)
        figures = (step.amount_in, step.amount_out, step.gas)
    except Exception as error:
        raise PoolFault(pool.id, described(error)) from error
    if not all(type(figure) is int and figure >= 0 for figure in figures):
        raise PoolFault(pool.id, f"a swap of {amount} gives {figures!r}"[:300])
    if exact is Exact.IN and step.amount_in > amount:
        raise PoolFault(pool.id, f"a swap of {amount} moves more: {figures!r}"[:300])
    return step


@runtime_checkable
class DeclaresArcs(Protocol):
    """Optional: a pool that states its curve exactly instead of being sampled."""

    def arcs(self) -> Sequence[Arc]: ...


class Quote(Struct, frozen=True):
    """The price list of a bridge: what arrives is amount − fixed_fee − ceil(amount·fee_bps/1e4)."""

    token_in: TokenId
    token_out: TokenId
    fixed_fee: int
    fee_bps: int
    capacity: int
    delay_seconds: int


@runtime_checkable
class StatesRoutes(Protocol):
    """Optional: a venue whose output exists only in a later stage (a bridge)."""

    def route(self) -> Quote: ...


class Venue(Protocol):
    """An adapter. Built by the entry point with (name, chain id, options from config)."""

    name: str
    chain: int

    async def pools(self, reader: Reader) -> Sequence[Pool]: ...


class VenueFactory(Protocol):
    """What an entry point of the group ``thalweg.venues`` names.

    Raises ValueError with a readable message when the options are wrong.
    """

    def __call__(self, name: str, chain: int, options: Mapping[str, object]) -> Venue: ...


class Snapshot(Struct, frozen=True):
    """All pools of all chains, one block per chain; a value that is replaced whole.

    ``inventory`` is the solver's free balance per token, ``prices`` the reference price of one
    base unit of each token in the numeraire, ``excluded`` the venues left out with the reason.
    """

    blocks: dict[int, BlockRef]
    pools: tuple[Pool, ...]
    prices: dict[TokenId, float]
    inventory: dict[TokenId, int]
    gas_price_wei: dict[int, int]
    excluded: dict[str, str]
    prices_source: str = ""
    hash: str = ""
