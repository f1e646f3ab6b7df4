"""``thalweg solve``: answers, warnings, and one clear line with exit code 2 for bad files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from solver.cli import EXIT_BAD_INPUT, EXIT_DONE, EXIT_NOTHING_FILLED, app
from solver.wire.instance import swap_from_core
from tests.make import SETTLEMENT, UNIT, A, B, swap


def instance(*, pools: list[Any] | None = None, limit: int = UNIT * 9 // 10) -> dict[str, Any]:
    """Two orders that overlap at the market price."""
    swaps = [swap(A, B, UNIT, limit), swap(B, A, UNIT, limit, nonce=1)]
    return {
        "format": "thalweg.instance/1",
        "chains": [{"chainId": 1, "settlement": SETTLEMENT}],
        "assets": [
            {"chainId": 1, "address": token.address, "decimals": 18, "price": "1e-18"}
            for token in (A, B)
        ],
        "intents": [{"swap": swap_from_core(order)} for order in swaps],
        "pools": pools or [],
    }


def run(tmp_path: Path, document: object, *options: str) -> Any:
    file = tmp_path / "instance.json"
    text = document if isinstance(document, str) else json.dumps(document)
    file.write_text(text, encoding="utf-8")
    return CliRunner().invoke(app, ["solve", str(file), *options])


def test_overlapping_orders_fill_each_other(tmp_path: Path) -> None:
    result = run(tmp_path, instance(), "--json")
    answer = json.loads(result.stdout)
    assert result.exit_code == EXIT_DONE
    assert [(fill["sell"], fill["buy"]) for fill in answer["fills"]] == [(str(UNIT), str(UNIT))] * 2
    assert answer["legs"] == []
    assert float(answer["certificate"]["netGap"]) < 1e-9


def test_the_table_names_fills_and_proof(tmp_path: Path) -> None:
    result = run(tmp_path, instance())
    assert result.exit_code == EXIT_DONE
    assert "net gap" in result.stdout


def test_nothing_filled_has_its_own_exit_code(tmp_path: Path) -> None:
    result = run(tmp_path, instance(limit=2 * UNIT), "--json")
    assert result.exit_code == EXIT_NOTHING_FILLED
    assert {reason["code"] for reason in json.loads(result.stdout)["open"]}


def test_an_unknown_pool_is_a_warning(tmp_path: Path) -> None:
    result = run(tmp_path, instance(pools=[{"kind": "volatile"}]), "--json")
    assert result.exit_code == EXIT_DONE
    assert "volatile" in result.stderr


def spoilt(path: list[str | int], value: object) -> dict[str, Any]:
    document: Any = instance()
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return dict(document)


SELL: list[str | int] = ["intents", 0, "swap", "sellAmount"]


@pytest.mark.parametrize(
    "document",
    [
        "{",
        '{"format": "thalweg.instance/1", "format": "x"}',
        "[" * 100_000,
        spoilt(["format"], "thalweg.instance/9"),
        spoilt(["extra"], 1),
        spoilt(SELL, "1_000"),
        spoilt(SELL, "-1"),
        spoilt(SELL, 1.5),
        spoilt(SELL, str(2**256)),
        spoilt(SELL, "9" * 5_000),
        spoilt(SELL, "01"),
        spoilt(SELL, "１"),
        spoilt(["intents", 0, "swap", "owner"], "0x12"),
        spoilt(["intents", 0, "swap", "kind"], "exactly"),
    ],
)
def test_bad_files_get_one_line_and_exit_2(tmp_path: Path, document: object) -> None:
    result = run(tmp_path, document, "--json")
    assert result.exit_code == EXIT_BAD_INPUT
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_a_missing_file_is_named() -> None:
    result = CliRunner().invoke(app, ["solve", "nowhere.json"])
    assert result.exit_code == EXIT_BAD_INPUT
    assert "nowhere.json" in result.stderr
