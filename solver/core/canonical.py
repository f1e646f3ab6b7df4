"""The one order in which the orders of a batch are looked at, whoever sends them and when.

Orders are sorted by what they ask for. Two that ask for the same are told apart by a hash of what
their owners signed, seeded by the block that closed the batch: nobody can choose it, because the
seed is not known before. Neither the id nor the signature counts, nor the order of arrival.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from solver.core.crypto import keccak
from solver.core.intent import struct_hash
from solver.core.types import Intent


def canonical(intents: Sequence[Intent], seed: str) -> list[Intent]:
    """The intents without duplicates, by (tokens, kind, limit, amounts, content hash)."""
    ranked = {intent.digest: (_wish(intent), rank(intent, seed), intent) for intent in intents}
    return [intent for *_, intent in sorted(ranked.values(), key=lambda entry: entry[:2])]


def rank(intent: Intent, seed: str) -> bytes:
    """The tie-breaker: a hash of the seed and of everything signed, without id and signature."""
    state = f"{seed}|{intent.filled}|{intent.remaining}|"
    return keccak(state.encode() + struct_hash(intent.swap))


def _wish(intent: Intent) -> tuple[object, ...]:
    swap = intent.swap
    limit = Fraction(swap.buy_amount, swap.sell_amount)
    return swap.sell, swap.buy, swap.kind.value, limit, intent.remaining, swap.partial_fill
