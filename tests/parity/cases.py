"""Where the reference data is, and its cases as parameters."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("THALWEG_PARITY_DATA", ROOT.parent / "shared" / "data"))


def files(family: str, pattern: str = "*.json") -> list[Any]:
    """One parameter per file of a family; a single visible skip where the family is absent."""
    found = sorted((DATA / family).glob(pattern))
    if not found:
        absent = pytest.mark.skip(reason=f"{family} is not in {DATA.name}")
        return [pytest.param(None, id=f"{family}/absent", marks=absent)]
    return [pytest.param(path, id=f"{family}/{path.stem}") for path in found]


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def rows(family: str, name: str, key: str) -> list[Any]:
    """Two parameters, the file's content and a case, for each case under a key of one file."""
    path = DATA / family / name
    if not path.is_file():
        absent = pytest.mark.skip(reason=f"{family}/{name} is not in {DATA.name}")
        return [pytest.param(None, None, id=f"{family}/{path.stem}/absent", marks=absent)]
    data = load(path)
    found = data[key]
    return [
        pytest.param(data, case, id=f"{family}/{path.stem}/{key}/{name}")
        for name, case in (found.items() if isinstance(found, dict) else enumerate(found))
    ]


def calls(family: str, file: str) -> list[Any]:
    """One parameter per row of a file; a single visible skip where the file is absent."""
    path = DATA / family / file
    if not path.exists():
        return files(family, file)
    return [
        pytest.param(row, id=f"{family}/{path.stem}-{number}-{row['fn']}")
        for number, row in enumerate(load(path)["rows"])
    ]
