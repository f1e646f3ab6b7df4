"""Reports that are continued: of the same code only, and never in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bench, crash, machine


def test_a_crash_report_belongs_to_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    played: list[int] = []

    async def one_round(seed: int, kills: int) -> dict[str, Any]:
        played.append(kills)
        return {"seed": seed, "kills": kills, "exits": 0, "wrong": []}

    monkeypatch.setattr(crash, "one_round", one_round)
    path = tmp_path / "reports" / "crash.json"
    words = ["--kills", "15", "--report", str(path)]
    for code, again, rounds in (
        ("one", [], 2), ("one", [], 0), ("two", [], 2), ("two", ["--fresh"], 2), ("", [], 0),
    ):  # fmt: skip
        played.clear()
        monkeypatch.setattr(machine, "code", lambda code=code: code)
        assert crash.main([*words, *again]) == 0
        assert len(played) == rounds
        said = capsys.readouterr().out
        assert ("complete" in said and "FRESH=1" in said) == (rounds == 0)
        assert ("other code" in said) == (rounds > 0 and code == "two" and not again)
        report = json.loads(path.read_text(encoding="utf-8"))
        assert report["kills"] == 15
        assert report["code"] == (code or "two")


def test_the_time_inside_the_optimiser_is_part_of_the_whole() -> None:
    alone, several = bench.programs([(5, 1), (8, 3)], 1)
    assert alone["programs"] == 0
    assert several["programs"] > 0
    assert 0.0 < several["programMilliseconds"] <= several["milliseconds"]


def test_the_code_has_a_name() -> None:
    assert machine.code() == machine.code()
    assert len(machine.code().partition("+")[0]) in (0, 40)
