"""The rules of import-linter cover every module of the solver, those that come later as well."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Who may import which rooms of the solver, its own included; parts of the core are ruled apart.
MAY = {
    "the core is pure": {"core"},
    "the wire translates and nothing else": {"core", "wire"},
    "the picture draws and nothing else": {"core", "picture"},
    "the api does not know chains or venues": {"api", "core", "cow_api", "door", "wire"},
    "the market does not know intents": {"chain", "core", "fence", "market"},
    "the ledger does not know HTTP, venues or chains": {"core", "ledger"},
    "the chain does not know why a bundle exists": {"chain", "core"},
    "venues know the core's types and the protocol": {"core"},
    "the checker knows neither the optimiser nor the solver's own proof": {"checker", "core"},
}


def contracts() -> dict[str, Any]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = tomllib.loads(text)["tool"]["importlinter"]["contracts"]
    return {contract["name"]: contract for contract in found}


def rooms() -> set[str]:
    files = (ROOT / "solver").glob("*.py")
    folders = (path.parent for path in (ROOT / "solver").glob("*/__init__.py"))
    return {path.stem for path in (*files, *folders)} - {"__init__", "__main__"}


@pytest.mark.parametrize("name", MAY)
def test_every_room_that_is_not_allowed_is_forbidden(name: str) -> None:
    forbidden = {
        module.removeprefix("solver.")
        for module in contracts()[name]["forbidden_modules"]
        if module.startswith("solver.") and module.count(".") == 1
    }
    assert forbidden == rooms() - MAY[name]


def test_the_optimiser_has_one_door() -> None:
    (contract,) = (c for c in contracts().values() if c.get("ignore_imports"))
    assert contract["source_modules"] == ["solver", "venues"]
    assert contract["forbidden_modules"] == ["ortools"]
    assert contract["ignore_imports"] == ["solver.core.program.optimiser -> ortools"]


def test_adapters_are_all_kept_apart() -> None:
    kits = {"__init__", "settings", "pool_reader", "testing"}
    adapters = {f"venues.{path.stem}" for path in (ROOT / "venues").glob("*.py")}
    listed = contracts()["venues do not know each other"]["modules"]
    assert set(listed) == adapters - {f"venues.{name}" for name in kits}
