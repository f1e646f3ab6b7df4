"""The answers of CoW Protocol's reference engine, byte for byte, through the HTTP door.

Byte for byte after normalisation: the members of an object in any order, addresses and hex in lower
case; ``gas`` and ``fee`` included.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cow import Config, opened
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
