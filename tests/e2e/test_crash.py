"""A seeded share of `make crash`: a few kills, then every account agrees."""

from __future__ import annotations

import pytest

from benchmarks.crash import one_round

pytestmark = pytest.mark.xdist_group("daemon")


async def test_nothing_is_lost_and_nothing_happens_twice() -> None:
    result = await one_round(seed=1_000, kills=4)
    assert result["wrong"] == []
    assert (result["kills"], result["exits"]) == (4, 0)
    assert result["acknowledged"] > 0
    assert result["states"].get("settled", 0) > 0
