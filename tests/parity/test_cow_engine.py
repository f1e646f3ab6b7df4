"""The answers of CoW Protocol's reference engine, byte for byte, through the HTTP door.

Byte for byte after normalisation: the members of an object in any order, addresses and hex in lower
case; ``gas`` and ``fee`` included.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from solver.config import CowConfig
from solver.service import engine_of
from tests.cow import Config, answered, check, opened, scores, solutions
from tests.parity.cases import files, load


def normal(value: Any) -> str:
    return json.dumps(value, sort_keys=True).lower()


@pytest.mark.parametrize("path", files("cow-baseline"))
async def test_the_baseline_is_the_reference(path: Path, tmp_path: Path) -> None:
    case = load(path)
    async with opened(Config("baseline", case["solver_config"]).engine(), tmp_path) as driver:
        status, answer = await driver.ask("/cow/solve", case["request"])
    assert status == 200
    assert normal(answer) == normal(case["expected"])


def never_lower(request: Any, config: CowConfig) -> None:
    """Each solution of the baseline is among those of the full profile, or one that does more."""
    plain = answered(request, engine_of(replace(config, profile="baseline")).settings)
    full = answered(request, engine_of(replace(config, profile="full")).settings)
    found = [scores(request, solution) for solution in solutions(full)]
    for solution in solutions(plain):
        ((uid, score),) = scores(request, solution).items()
        assert any(other.get(uid, -1) >= score for other in found)
    for solution in solutions(full):
        check(request, solution, config.chain_id)
    identities = [solution["id"] for solution in solutions(full)]
    assert len(set(identities)) == len(identities)


@pytest.mark.parametrize("path", files("cow-baseline"))
def test_full_is_never_lower(path: Path) -> None:
    case = load(path)
    never_lower(case["request"], Config("full", case["solver_config"]).engine())


@pytest.mark.parametrize("path", files("solver-template-py", "*.modern.json"))
def test_full_is_never_lower_in_a_real_auction(path: Path) -> None:
    request = {"deadline": "2106-01-01T00:00:00Z", **load(path)}
    never_lower(request, CowConfig(chain_id=100, max_hops=2))
