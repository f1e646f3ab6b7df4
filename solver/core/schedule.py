"""The operator's fees beside gas, taken from each fill after its pair has one gross rate.

All orders of a pair trade at one rate; what is taken from each then depends on its own limit, by
the policies of :mod:`solver.core.fees`, in this order:

1. *volume*, for which the order's limit is tightened before the batch is solved, so that it takes
   nobody below what was signed;
2. *surplus* over the signed limit;
3. *improvement* over what the order would have got alone, from the same snapshot;
4. the *solver*'s own share of the volume, never more than the surplus that is left.

They are in the order's surplus token: the bought token of an exact-in order, which then gets less,
the sold token of an exact-out order, which then pays more. Every fee is rounded down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from solver.core.fees import (
    PARTS,
    Execution,
    FeePolicy,
    PriceImprovementFee,
    ReferenceQuote,
    SurplusFee,
    VolumeFee,
    charge,
    parts_of,
)
from solver.core.types import NO_CHARGES, Charges, Fill, Intent, Kind, Solution, StandAlone, Swap

MAX_VOLUME_FACTOR = 0.5


class FeeSchedule(Struct, frozen=True):
    """Shares in [0, 1]; of the volume at most a half. The caps are shares of the volume.

    Raises ValueError for other numbers.
    """

    volume_factor: float = 0.0
    surplus_factor: float = 0.0
    surplus_max_volume_factor: float = 0.0
    improvement_factor: float = 0.0
    improvement_max_volume_factor: float = 0.0
    solver_factor: float = 0.0

    def __post_init__(self) -> None:
        VolumeFee(self.volume_factor)
        SurplusFee(self.surplus_factor, self.surplus_max_volume_factor)
        SurplusFee(self.improvement_factor, self.improvement_max_volume_factor)
        VolumeFee(self.solver_factor)
        if self.volume_factor > MAX_VOLUME_FACTOR:
            raise ValueError(f"a share of the volume is at most {MAX_VOLUME_FACTOR}")


NO_FEES = FeeSchedule()


def tightened(intents: Sequence[Intent], schedule: FeeSchedule) -> list[Intent]:
    """The orders with limits that leave room for the volume fee; at least what it can take.

    Of a gross amount g at a tightened limit, g less ⌊g·f⌋ (exact-in), or g and ⌊g·f⌋ (exact-out),
    keeps the signed one.
    """
    part = parts_of(schedule.volume_factor)
    if not part:
        return list(intents)
    return [replace(intent, swap=_tighter(intent, part)) for intent in intents]


def charged(
    solution: Solution, intents: Sequence[Intent], schedule: FeeSchedule = NO_FEES
) -> Solution:
    """The solution with every fill net of the fees. ``intents`` have their signed limits."""
    if schedule == NO_FEES:
        return solution
    known = {intent.digest: intent for intent in intents}
    fills = take(solution.fills, known, solution.alone, schedule)
    return replace(solution, fills=fills)


def take(
    fills: Sequence[Fill],
    intents: Mapping[str, Intent],
    alone: Sequence[StandAlone],
    schedule: FeeSchedule,
) -> tuple[Fill, ...]:
    """Gross fills net of the fees, which their ``charges`` name."""
    by_itself = {answer.digest: answer for answer in alone}
    return tuple(
        _take(fill, intents[fill.digest], by_itself.get(fill.digest), schedule) for fill in fills
    )


def gross(fill: Fill, kind: Kind) -> Fill:
    """The fill before the fees were taken, at its pair's rate."""
    total = fill.charges.total
    if kind is Kind.EXACT_IN:
        return replace(fill, buy=fill.buy + total, charges=NO_CHARGES)
    return replace(fill, sell=fill.sell - total, charges=NO_CHARGES)


def _tighter(intent: Intent, part: int) -> Swap:
    swap = intent.swap
    if swap.kind is Kind.EXACT_IN:
        return replace(swap, buy_amount=-(-swap.buy_amount * PARTS // (PARTS - part)))
    # A limit of one unit stays: the fee on one unit is none.
    return replace(swap, sell_amount=max(1, swap.sell_amount * PARTS // (PARTS + part)))


def _take(fill: Fill, intent: Intent, alone: StandAlone | None, schedule: FeeSchedule) -> Fill:
    swap = intent.swap
    execution = Execution(swap.kind, swap.sell_amount, swap.buy_amount, fill.sell, fill.buy)
    paid = charge(execution, _policies(schedule, fill, alone), schedule.solver_factor)
    volume, surplus, improvement = paid.policies
    return replace(
        fill,
        sell=paid.execution.sell,
        buy=paid.execution.buy,
        charges=Charges(volume, surplus, improvement, paid.solver),
    )


def _policies(
    schedule: FeeSchedule, fill: Fill, alone: StandAlone | None
) -> tuple[FeePolicy, FeePolicy, FeePolicy]:
    factors = schedule.improvement_factor, schedule.improvement_max_volume_factor
    improvement: FeePolicy
    if alone is None:  # nobody else was in the batch: this is what it gets alone
        improvement = PriceImprovementFee(*factors, ReferenceQuote(fill.sell, fill.buy))
    elif alone.sell and alone.buy:
        improvement = PriceImprovementFee(*factors, ReferenceQuote(alone.sell, alone.buy))
    else:  # alone it would have got nothing: all beyond its limit is improvement
        improvement = SurplusFee(*factors)
    return (
        VolumeFee(schedule.volume_factor),
        SurplusFee(schedule.surplus_factor, schedule.surplus_max_volume_factor),
        improvement,
    )
