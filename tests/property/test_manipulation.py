"""What an owner cannot gain, and that the report of what he can is whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks import manipulation, report

#: Those that are the truth in another guise, and what rounding may make of them in bp.
SAME = ("other ids, order and repetition", "a partial order in two")
ROUNDING_BPS = 0.01


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("reports") / "manipulation.json"
    assert manipulation.main(["--batches", "8", "--report", str(path)]) == 0
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert manipulation.main(["--batches", "8", "--report", str(path)]) == 0  # all is there
    assert json.loads(path.read_text(encoding="utf-8"))["summary"] == content["summary"]
    return content


def test_the_truth_in_another_guise_gains_nothing(
    found: dict[str, Any],
) -> None:
    for played in found["batches"].values():
        gains = played["gainsBps"]
        for name in SAME:
            assert abs(gains.get(name, 0.0)) <= ROUNDING_BPS


def test_no_batch_has_less_than_its_reference_outcome(found: dict[str, Any]) -> None:
    for played in found["batches"].values():
        shares = played["shares"]
        assert shares["batchBps"] >= shares["referenceBps"] - ROUNDING_BPS


def test_every_deviation_is_in_the_page(found: dict[str, Any]) -> None:
    summary = found["summary"]
    deviations = summary["deviations"]
    assert set(deviations) == {SAME[0], *manipulation.DEVIATIONS}
    text = "\n".join(report.manipulation_text(summary))
    assert all(f"| {name} |" in text for name in deviations)


def test_a_fake_counts_at_what_it_really_costs() -> None:
    """Half an order withheld, or a fake the other way that is filled, is paid for by its owner."""
    played = [manipulation.play(seed)["gainsBps"] for seed in range(3)]
    assert all(gains["half withheld"] < 5.0 for gains in played)
    assert min(gains["fake opposite at 0.998 of the reference"] for gains in played) < 0.0
