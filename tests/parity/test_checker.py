"""The checker accepts the answers to public auctions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from solver.cli import EXIT_DONE, app
from tests.parity.cases import files, load


@pytest.mark.parametrize(
    "path", [*files("cow-baseline"), *files("solver-template-py", "*.modern.json")]
)
def test_the_answer_to_an_auction_is_accepted(path: Path, tmp_path: Path) -> None:
    case = load(path)
    request = case.get("request", case)
    file, answer = tmp_path / "auction.json", tmp_path / "answer.json"
    file.write_text(json.dumps(request), encoding="utf-8")
    solved = CliRunner().invoke(app, ["solve", str(file)])
    if solved.exit_code != EXIT_DONE:
        pytest.skip("nothing of this auction can be filled")
    answer.write_text(solved.stdout, encoding="utf-8")
    result = CliRunner().invoke(app, ["verify-solution", str(file), str(answer)])
    assert result.exit_code == EXIT_DONE, result.output
