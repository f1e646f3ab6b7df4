"""The checker accepts every honest answer and rejects every false one."""

from __future__ import annotations

import json
import random

import pytest

from benchmarks.answers import random_instance
from benchmarks.fuzz import Answer, play, verdict_of


@pytest.mark.parametrize("seed", range(50))
def test_every_honest_answer_is_accepted(seed: int) -> None:
    rng = random.Random(seed)
    answer = Answer(rng, random_instance(rng))
    verdict = verdict_of((answer.body, answer.said))
    assert verdict.accepted, verdict.violations


@pytest.mark.parametrize("seed", range(7_000, 7_010))
def test_no_false_claim_is_accepted(seed: int) -> None:
    """A seeded share of ``make fuzz``."""
    played = play(seed, 15)
    assert sum(played["made"].values()) >= 10
    assert not played["survivors"], json.dumps(played)
