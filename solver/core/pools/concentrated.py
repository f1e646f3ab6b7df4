"""Concentrated liquidity, to the unit as Uniswap v3."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from solver.core.pools.base import NotExecutable
from solver.core.pools.tick_math import (
    MAX_SQRT_PRICE,
    MAX_TICK,
    MIN_SQRT_PRICE,
    MIN_TICK,
    PIPS,
    sqrt_price_at,
    step_within,
    tick_at,
)
from solver.core.types import Call, Exact, Leg, TokenId
from solver.core.venue import Arc, Step, TicksArc, TickTable

_Q96 = 2.0**96
_MAX_AMOUNT = 2**255 - 1  # an int256 in the contract
_MAX_LIQUIDITY = 2**128 - 1
_MAX_SPACING = 2**14 - 1  # the factory's own limit


class TickMap:
    """The initialised ticks of a pool; swaps never change it, so all states of a pool share one.

    ``ticks`` rise; ``active[k]`` is the liquidity between ``ticks[k − 1]`` and ``ticks[k]``, 0 at
    both ends. Equal by value; the tables for the solver are built once, on first use.
    """

    __slots__ = ("_tables", "active", "nets", "spacing", "ticks")

    def __init__(self, ticks: tuple[int, ...], nets: tuple[int, ...], spacing: int) -> None:
        """Use :meth:`of`."""
        self.ticks = ticks
        self.nets = nets
        self.spacing = spacing
        self.active = (0, *accumulate(nets))
        self._tables: tuple[TickTable, TickTable] | None = None
        if not 0 < spacing <= _MAX_SPACING:
            raise ValueError(f"tick spacing {spacing} is outside 1…{_MAX_SPACING}")
        if ticks and (ticks[0] < MIN_TICK or ticks[-1] > MAX_TICK):
            raise ValueError(f"ticks {ticks[0]}…{ticks[-1]} are outside ±{MAX_TICK}")
        for tick in ticks:
            if tick % spacing:
                raise ValueError(f"tick {tick} is not a multiple of the spacing {spacing}")
        if self.active[-1] != 0 or min(self.active) < 0 or max(self.active) > _MAX_LIQUIDITY:
            raise ValueError("liquidityNet of the ticks is not that of any set of positions")

    @classmethod
    def of(cls, liquidity_net: Mapping[int, int], tick_spacing: int) -> TickMap:
        """From tick → liquidityNet of *every* initialised tick, those with a net of 0 included.

        A swap stops at each of them, and each stop rounds. Raises ValueError where no set of
        positions has these ticks.
        """
        ticks = tuple(sorted(liquidity_net))
        return cls(ticks, tuple(liquidity_net[tick] for tick in ticks), tick_spacing)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TickMap):
            return NotImplemented
        return self is other or (
            (self.spacing, self.ticks, self.nets) == (other.spacing, other.ticks, other.nets)
        )

    def __hash__(self) -> int:
        return hash((self.spacing, self.ticks, self.nets))

    def __repr__(self) -> str:
        return f"TickMap({len(self.ticks)} ticks, spacing {self.spacing})"

    def __reduce__(self) -> tuple[object, ...]:
        return (TickMap, (self.ticks, self.nets, self.spacing))

    def liquidity_at(self, tick: int) -> int:
        """The liquidity in range at a tick."""
        return self.active[bisect_right(self.ticks, tick)]

    def tables(self) -> tuple[TickTable, TickTable]:
        """For selling token0 (u = 1/√P) and token1 (u = √P); float images of exact √P.

        The first and the last piece have liquidity; between them is a piece of none where positions
        leave a hole. Without any liquidity both tables are empty.
        """
        if self._tables is None:
            roots = np.array([sqrt_price_at(tick) / _Q96 for tick in self.ticks])
            inside = np.array(self.active[1:-1], dtype=np.float64)
            used = np.flatnonzero(inside)
            first, last = (used[0], used[-1] + 1) if used.size else (0, 0)
            inside = inside[first:last]
            roots = roots[first : last + 1] if used.size else roots[:0]
            self._tables = (
                TickTable(1.0 / roots[::-1], inside[::-1].copy()),
                TickTable(roots, inside),
            )
        return self._tables


class ConcentratedPool(Struct, frozen=True, kw_only=True):
    """A Uniswap v3 pool: fee in millionths of the input, √P as Q64.96, liquidity in range.

    ``gas_per_tick`` is charged for each initialised tick that a swap crosses. Raises ValueError for
    values that no contract can have: √P, tick, liquidity and ticks must agree.
    """

    id: str
    token0: TokenId
    token1: TokenId
    fee_pips: int
    tick_spacing: int
    sqrt_price_x96: int
    tick: int
    liquidity: int
    ticks: TickMap
    gas: int
    gas_per_tick: int

    def __post_init__(self) -> None:
        if not 0 <= self.fee_pips < PIPS:
            raise ValueError(f"{self.id}: a fee of {self.fee_pips} pips")
        if self.tick_spacing != self.ticks.spacing:
            raise ValueError(f"{self.id}: spacing {self.tick_spacing}, ticks {self.ticks.spacing}")
        if not MIN_SQRT_PRICE <= self.sqrt_price_x96 < MAX_SQRT_PRICE:
            raise ValueError(f"{self.id}: √P {self.sqrt_price_x96} is no price")
        # A swap down to a tick leaves the tick below it at that tick's price: both ends are valid.
        if not (
            MIN_TICK <= self.tick < MAX_TICK
            and sqrt_price_at(self.tick) <= self.sqrt_price_x96 <= sqrt_price_at(self.tick + 1)
        ):
            raise ValueError(f"{self.id}: tick {self.tick} is not that of √P {self.sqrt_price_x96}")
        if self.liquidity != self.ticks.liquidity_at(self.tick):
            raise ValueError(
                f"{self.id}: liquidity {self.liquidity}, "
                f"by its ticks {self.ticks.liquidity_at(self.tick)}"
            )

    @property
    def tokens(self) -> tuple[TokenId, ...]:
        """Both tokens, in the contract's order."""
        return (self.token0, self.token1)

    def swap(self, token_in: TokenId, token_out: TokenId, amount: int, exact: Exact) -> Step:
        """See :class:`solver.core.venue.Pool`: to the end of liquidity, where it saturates.

        A swap that would give nothing is not made.
        """
        if {token_in, token_out} != {self.token0, self.token1}:
            raise ValueError(f"{self.id} does not trade {token_in} for {token_out}")
        down = token_in == self.token0
        limit = MIN_SQRT_PRICE + 1 if down else MAX_SQRT_PRICE - 1
        at_the_end = self.sqrt_price_x96 <= limit if down else self.sqrt_price_x96 >= limit
        if amount <= 0 or at_the_end:
            return Step(0, 0, 0, self)
        step = self.swap_to(token_in, amount, exact, limit)
        return step if step.amount_out else Step(0, 0, 0, self)

    def swap_to(
        self, token_in: TokenId, amount: int, exact: Exact, sqrt_price_limit_x96: int
    ) -> Step:
        """Swap until the amount is used up or the price limit is reached, as the contract does.

        Unlike :meth:`swap` this moves a pool even where the output is 0. Amounts of 0 and less give
        a zero step. Raises ValueError for a foreign token and for a limit that is not beyond the
        price in the direction of the swap, strictly inside the range of prices.
        """
        if token_in not in (self.token0, self.token1):
            raise ValueError(f"{self.id} does not trade {token_in}")
        zero_for_one = token_in == self.token0
        limit, price = sqrt_price_limit_x96, self.sqrt_price_x96
        in_range = MIN_SQRT_PRICE < limit < MAX_SQRT_PRICE
        if not in_range or not (limit < price if zero_for_one else limit > price):
            raise ValueError(f"{self.id}: price limit {limit} at √P {price}")
        if amount <= 0:
            return Step(0, 0, 0, self)
        exact_in = exact is Exact.IN
        ticks, active = self.ticks.ticks, self.ticks.active
        word = self.tick_spacing << 8
        tick, liquidity = self.tick, self.liquidity
        index = bisect_right(ticks, tick)  # of the first initialised tick above
        left = min(amount, _MAX_AMOUNT)
        paid = taken = crossed = 0
        while left and price != limit:
            # The contract looks for the next tick in one word of its bitmap only, and stops at the
            # word's edge. Without liquidity these stops move nothing and are left out.
            if zero_for_one:
                edge = tick // word * word if liquidity else MIN_TICK
                found = index > 0 and ticks[index - 1] >= edge
                stop = ticks[index - 1] if found else max(edge, MIN_TICK)
            else:
                edge = MAX_TICK
                if liquidity:  # the last place of the word that holds the place after this tick
                    place = tick // self.tick_spacing + 1
                    edge = (place | 255) * self.tick_spacing
                found = index < len(ticks) and ticks[index] <= edge
                stop = ticks[index] if found else min(edge, MAX_TICK)
            at_stop = sqrt_price_at(stop)
            target = max(at_stop, limit) if zero_for_one else min(at_stop, limit)
            before = price
            price, amount_in, amount_out, fee = step_within(
                price, target, liquidity, left, self.fee_pips, exact_in
            )
            paid += amount_in + fee
            taken += amount_out
            left -= amount_in + fee if exact_in else amount_out
            if price == at_stop:
                tick = stop - 1 if zero_for_one else stop
                if found:
                    index += -1 if zero_for_one else 1
                    liquidity = active[index]
                    crossed += 1
            elif price != before:
                tick = tick_at(price)
        after = replace(self, sqrt_price_x96=price, tick=tick, liquidity=liquidity)
        return Step(paid, taken, self.gas + self.gas_per_tick * crossed, after)

    def arcs(self) -> Sequence[Arc]:
        """One exact arc per direction that has liquidity ahead."""
        sells0, sells1 = self.ticks.tables()
        if not sells0.edges.size:
            return ()
        root = self.sqrt_price_x96 / _Q96
        fee = self.fee_pips / PIPS
        found = []
        for token_in, token_out, table, u in (
            (self.token0, self.token1, sells0, 1.0 / root),
            (self.token1, self.token0, sells1, root),
        ):
            if u < table.edges[-1]:
                start = max(u, float(table.edges[0]))
                found.append(
                    TicksArc(token_in, token_out, table, start, fee, self.gas, self.gas_per_tick)
                )
        return found

    def encode(self, leg: Leg) -> Sequence[Call]:
        """A pool of an instance file cannot be called."""
        raise NotExecutable(f"{self.id}: {leg.amount_in} in has no contract to go to")
