"""The questions before all others run every compiled function."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys

from solver.core import jit

#: Of no use to any caller so far.
_UNUSED = {"arc_capacity"}
_PROGRAM = """
import json, sys
from solver import warm
from solver.core.batch import Memory, solve_batch

ran, memory, stages = set(), Memory(), []
sys.setprofile(lambda frame, event, _: ran.add(frame.f_code) if event == "call" else None)
for snapshot, intents, terms in warm.questions():
    stages.append(solve_batch(snapshot, intents, terms, memory=memory).stage)
sys.setprofile(None)
print(json.dumps([stages, [[code.co_filename, code.co_name] for code in ran]]))
"""


def test_no_later_question_compiles_anything() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    stages, ran = json.loads(done.stdout)
    assert set(stages) == {"route", "program", "reference"}
    names, bodies = {name for file, name in ran if "/solver/core/" in file}, _compiled()
    reached = names & bodies.keys()
    for _ in bodies:  # whoever is compiled has what it calls compiled with it
        reached |= {name for caller in reached for name in bodies[caller]} & bodies.keys()
    assert bodies.keys() - reached <= _UNUSED


def _compiled() -> dict[str, set[str]]:
    """The functions that carry the decorator, each with the names in its body."""
    return {
        node.name: {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        for source in jit.SOURCES
        for node in ast.parse(source.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and "compiled" in map(ast.unparse, node.decorator_list)
    }
