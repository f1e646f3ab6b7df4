"""A recorded batch against itself: the integers derived again, and the whole solved anew.

What was decided leads to the same integers on every machine, so these are compared byte for byte.
A new solve may differ in the last digits of its floats (and where the record lacks a pool), so only
its surplus is compared.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from solver.core.batch import solve_batch
from solver.core.derivation import derive
from solver.core.types import BPS, Infeasible
from solver.wire import instance
from solver.wire.instance import Instance, InstanceProposal
from solver.wire.jsonio import Invalid


class Verdict(Struct, frozen=True, rename="camel"):
    """``differs`` says what of the record does not follow from its decisions, and is empty if all
    does. The surplus of the record and of a new solve are in the numeraire; the difference is new
    minus recorded, in basis points of the volume.
    """

    holds: bool
    differs: str
    recorded: str
    value: str
    difference_bps: str
    stage: str


def replay(document: Instance, tolerance_bps: float) -> Verdict:
    """Raises Invalid where nothing is recorded, or where the record makes no sense."""
    recorded = document.proposal
    if recorded is None:
        raise Invalid("no_proposal", "not the record of a batch that was sent", "/proposal")
    snapshot, intents, _ = instance.to_core(document)
    snapshot, terms = replace(snapshot, hash=document.seed), instance.terms_to_core(document)
    decided, alone = instance.decision_of(recorded, intents), instance.alone_of(recorded)
    derived = derive(snapshot, intents, terms, decided, alone)
    if isinstance(derived, Infeasible):
        differs = f"{derived.code}: {derived.detail}"
    else:
        differs = _difference(recorded, instance.derived_again(recorded, derived))
    solution = solve_batch(snapshot, intents, terms)
    swaps = {intent.digest: intent.swap for intent in intents}
    volume = sum(
        snapshot.prices.get(swaps[fill.digest].buy, 0.0) * (int(fill.buy) + int(fill.fee))
        for fill in recorded.fills
        if fill.digest in swaps
    )
    value = solution.certificate.value
    gained = float(value) - float(recorded.value)
    apart = gained / volume * BPS if volume > 0.0 else float(gained != 0.0) * BPS
    holds = not differs and abs(apart) <= tolerance_bps
    return Verdict(holds, differs, recorded.value, value, f"{apart:.6f}", solution.stage)


def _difference(recorded: InstanceProposal, derived: InstanceProposal) -> str:
    """The first member whose bytes differ; empty if none does."""
    for name in recorded.__struct_fields__:
        one, two = (msgspec.json.encode(getattr(each, name)) for each in (recorded, derived))
        if one != two:
            return f"{name}: {one.decode()[:200]} is recorded, {two.decode()[:200]} follows"
    return ""
