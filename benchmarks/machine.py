"""What a figure was measured on, and files that grow while they are written."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

_ROOT = Path(__file__).resolve().parents[1]
_CODE = ("solver", "venues", "contracts", "benchmarks", "config.toml", "requirements.lock")
_PACKAGES = ("numpy", "numba", "ortools", "cvxpy", "clarabel")


def describe() -> dict[str, Any]:
    """Processor, cores, memory and versions."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "memoryGb": round(pages / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {package: version(package) for package in _PACKAGES},
    }


def code() -> str:
    """The commit that runs, with ``+`` and a hash of what is changed since; empty without git."""
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(_ROOT), *words], check=True, capture_output=True
            ).stdout
            for words in (["rev-parse", "HEAD"], ["diff", "HEAD", "--", *_CODE])
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    name = commit.decode().strip()
    return f"{name}+{hashlib.sha256(changes).hexdigest()[:12]}" if changes else name


def begun(path: Path, empty: dict[str, Any], fresh: bool) -> dict[str, Any]:
    """The report to go on with: the one that is there, if it is of this code, else an empty one."""
    current = code()
    empty = {"code": current, **empty}
    if fresh or not path.exists():
        return empty
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if not current or report.get("code") == current:
        return report | {"code": current}
    print(f"{path} is of other code ({str(report.get('code'))[:12]}), begun again", flush=True)
    return empty


def play_on(
    report: dict[str, Any],
    path: Path,
    batches: int,
    workers: int,
    play_many: Callable[[int], dict[str, Any]],
    per_task: int,
) -> None:
    """Play seeds in their order until a report has so many, which is written after each round.

    Of what ``play_many`` gives, counters, numbers and lists are added to the report's.
    """
    with ProcessPoolExecutor(workers) as pool:
        while report["batches"] < batches:
            firsts = [report["batches"] + k * per_task for k in range(2 * workers)]
            for done in pool.map(play_many, firsts):
                report["batches"] += per_task
                for name, found in done.items():
                    if isinstance(found, Counter):
                        report[name] = dict(Counter(report[name]) + found)
                    else:
                        report[name] += found
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(".part")
            draft.write_text(json.dumps(report, indent=1), encoding="utf-8")
            draft.replace(path)
            print(f"{report['batches']} batches, {len(report['wrong'])} wrong", flush=True)


def load() -> float:
    """Runnable processes of the last minute: figures from a busy machine are not the machine's."""
    return round(os.getloadavg()[0], 2)


def spread(values: list[float], digits: int = 3) -> dict[str, float]:
    """p50, p90, p99 and max."""
    if not values:
        return {}
    found = np.percentile(values, [50, 90, 99, 100])
    return {
        name: float(f"{number:.{digits + 1}g}")
        for name, number in zip(("p50", "p90", "p99", "max"), found, strict=True)
    }


class Report:
    """A JSON file of finished parts, written whole after each."""

    def __init__(self, path: Path, fresh: bool) -> None:
        self._path = path
        self.content: dict[str, Any] = {}
        if path.is_file() and not fresh:
            self.content = json.loads(path.read_text(encoding="utf-8"))
        self.content["machine"] = describe()

    def has(self, section: str, key: str) -> bool:
        """Whether a part is finished."""
        return key in self.content.get(section, {})

    def put(self, section: str, key: str, value: Any) -> None:
        """Add a finished part and write the file; a crash leaves the one before."""
        self.content.setdefault(section, {})[key] = value
        self.save()

    def save(self) -> None:
        """Write the file."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(".part")
        draft.write_text(json.dumps(self.content, indent=1, allow_nan=False), encoding="utf-8")
        draft.replace(self._path)
