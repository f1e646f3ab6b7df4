"""Whether the fees on the fills are those of the terms, and leave everybody what was signed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from solver.checker.document import Claim, Violation
from solver.core.fees import Unscorable
from solver.core.intent import respects_limit
from solver.core.schedule import FeeSchedule, gross, take
from solver.core.types import Fill, Intent


def violations(
    claim: Claim, intents: Sequence[Intent], schedule: FeeSchedule
) -> Iterator[Violation]:
    """Every fill whose charges do not follow from the schedule, or that is below its signed limit.

    An improvement is measured by the claim's own stand-alone answers.
    """
    known = {intent.digest: intent for intent in intents}
    for k, fill in enumerate(claim.fills):
        intent, place = known.get(fill.digest), f"/fills/{k}"
        if intent is None:
            continue  # named by the check of the fills
        if not respects_limit(intent.swap, fill.sell, fill.buy):
            yield Violation("limit", place, f"{fill.buy} for {fill.sell} is beyond what was signed")
        before = gross(fill, intent.swap.kind)
        try:
            (expected,) = take([before], known, claim.alone, schedule)
        except (Unscorable, ValueError) as error:
            yield Violation("charges_differ", f"{place}/charges", str(error))
            continue
        if expected.charges != fill.charges:
            detail = f"the terms say {expected.charges}, not {fill.charges}"
            yield Violation("charges_differ", f"{place}/charges", detail)


def before(fills: Sequence[Fill], intents: Sequence[Intent]) -> tuple[Fill, ...]:
    """The fills at their pairs' rates, before anything was taken; unknown ones as they are."""
    kinds = {intent.digest: intent.swap.kind for intent in intents}
    return tuple(
        gross(fill, kinds[fill.digest]) if fill.digest in kinds else fill for fill in fills
    )
