"""``make setup`` names everything that is missing before it installs anything."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).resolve().parents[2] / "Makefile"
_NODE = '#!/bin/sh\ncase "$1" in --version) echo v16.20.0;; *) exit 1;; esac\n'
_PYTHON = '#!/bin/sh\ncase "$2" in *version_info*) exit {old};; *) exit 1;; esac\n'


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize(
    ("tools", "missing"),
    [
        ({}, ["python3 (Python 3.11 or newer)", "node (Node 18 or newer)", "npm ("]),
        (
            {"python3": _PYTHON.format(old=1), "node": _NODE, "npm": "#!/bin/sh\n"},
            ["python3 is older", "Node 18 or newer, this is v16.20.0"],
        ),
        (
            {"python3": _PYTHON.format(old=0), "node": "#!/bin/sh\n", "npm": "#!/bin/sh\n"},
            ["the venv module"],
        ),
    ],
)
def test_all_that_is_missing_is_named_at_once(
    tmp_path: Path, tools: dict[str, str], missing: list[str]
) -> None:
    room, path = tmp_path / "room", tmp_path / "bin"
    room.mkdir()
    path.mkdir()
    for name in ("requirements-dev.lock", "pyproject.toml", "package.json", "package-lock.json"):
        (room / name).touch()
    for name in ("uname", "touch", "sh"):
        (path / name).symlink_to(str(shutil.which(name)))
    for name, text in tools.items():
        (path / name).write_text(text, encoding="utf-8")
        (path / name).chmod(0o755)
    done = subprocess.run(
        [str(shutil.which("make")), "-f", str(MAKEFILE), "setup"],
        cwd=room,
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("missing prerequisite")]
    assert len(said) == len(missing), done.stderr
    for line, part in zip(said, missing, strict=True):
        assert part in line
    assert sorted(path.name for path in room.iterdir()) == sorted(
        ("requirements-dev.lock", "pyproject.toml", "package.json", "package-lock.json")
    )
