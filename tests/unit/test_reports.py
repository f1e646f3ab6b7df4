"""Reports that are continued: of the same code only, and never in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import batches, bench, crash, machine


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


def test_random_batches_are_counted_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "batches.json"
    words = ["--workers", "1", "--report", str(path)]
    monkeypatch.setattr(batches, "PER_TASK", 1)
    for code, wanted, fresh, begun in (
        ("one", 2, [], 0), ("one", 4, [], 2), ("one", 4, [], 4), ("two", 2, [], 0),
        ("two", 2, ["--fresh"], 0),
    ):  # fmt: skip
        monkeypatch.setattr(machine, "code", lambda code=code: code)
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"batches": 0}
        assert batches.main([*words, "--batches", str(wanted), *fresh]) == 0
        said = capsys.readouterr().out
        report = json.loads(path.read_text(encoding="utf-8"))
        assert (report["code"], report["batches"], report["wrong"]) == (code, wanted, [])
        assert sum(report["stages"].values()) == wanted <= report["orders"]
        assert ("complete" in said) == (begun == wanted)
        assert ("other code" in said) == (begun == 0 and code == "two" and not fresh)
        assert begun in (0, before["batches"])


def test_the_time_inside_the_optimiser_is_part_of_the_whole() -> None:
    alone, several = bench.programs([(5, 1), (8, 3)], 1)
    assert alone["programs"] == 0
    assert several["programs"] > 0
    assert 0.0 < several["programMilliseconds"] <= several["milliseconds"]


def test_the_code_has_a_name() -> None:
    assert machine.code() == machine.code()
    assert len(machine.code().partition("+")[0]) in (0, 40)
