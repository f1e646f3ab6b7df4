"""Pictures of batches: nothing is lost on the way, and the same answer is the same picture."""

from __future__ import annotations

import json
import random
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.batches import disguised, random_batch
from solver import picture
from solver.cli import app
from solver.core.batch import solve_batch
from solver.core.types import Intent, Solution, Token
from solver.core.venue import Snapshot
from solver.picture.flow import Flow, Role
from solver.picture.layout import Layout
from tests.make import UNIT, A, B, pair, signed, snapshot, swap

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "batch.json"


def tokens_of(market: Snapshot) -> picture.Tokens:
    names = {token: Token(token, f"T{token.address[-1]}", 0) for token in market.prices}
    return picture.Tokens(names, market.prices)


def drawn(market: Snapshot, intents: list[Intent]) -> tuple[Solution, Flow, Layout]:
    solution, tokens = solve_batch(market, intents), tokens_of(market)
    flow = picture.flow_of(intents, solution, tokens)
    return solution, flow, picture.layout_of(flow, tokens)


@pytest.mark.parametrize("seed", range(40))
def test_what_comes_to_a_token_leaves_it(seed: int) -> None:
    market, intents = random_batch(random.Random(seed))
    solution, flow, _ = drawn(market, intents)
    into: Counter[str] = Counter()
    out: Counter[str] = Counter()
    for band in flow.bands:
        assert band.amount_in > 0 and band.amount_out > 0
        into[band.target] += band.amount_out
        out[band.source] += band.amount_in
    for box in flow.boxes:
        if box.role is Role.TOKEN:
            assert into[box.name] == out[box.name]
    sold = {f.digest: f.sell for f in solution.fills}
    assert sum(out[box.name] for box in flow.boxes if box.role is Role.SELLER) == sum(sold.values())


@pytest.mark.parametrize("seed", range(40))
def test_boxes_do_not_overlap_and_bands_stay_inside(seed: int) -> None:
    market, intents = random_batch(random.Random(seed))
    _, flow, layout = drawn(market, intents)
    places = {place.box.name: place for place in layout.places}
    for one in layout.places:
        assert -1e-9 <= one.low <= one.high <= 1 + 1e-9 or len(flow.boxes) > 40
        for two in layout.places:
            if one is not two and one.x == two.x:
                assert one.high <= two.low or two.high <= one.low
    for ribbon in layout.ribbons:
        assert min(ribbon.height0, ribbon.height1) > 0
        for name, low, height in (
            (ribbon.band.source, ribbon.low0, ribbon.height0),
            (ribbon.band.target, ribbon.low1, ribbon.height1),
        ):
            assert places[name].low - 1e-9 <= low
            assert low + height <= places[name].high + 1e-9


def test_ids_and_arrival_change_no_width() -> None:
    rng = random.Random(5)
    market, intents = random_batch(rng)
    widths = []
    for orders in (intents, disguised(rng, intents)):
        _, _, layout = drawn(market, orders)
        widths.append(sorted((r.height0, r.height1) for r in layout.ribbons))
    assert widths[0] == widths[1]


def test_small_orders_are_drawn_together() -> None:
    market = snapshot([pair("p", A, B, 10**4 * UNIT, 10**4 * UNIT)])
    intents = [signed(swap(A, B, k * UNIT, UNIT // 2, nonce=k)) for k in range(1, 31)]
    solution, flow, _ = drawn(market, intents)
    sellers = [box for box in flow.boxes if box.role is Role.SELLER]
    assert len(sellers) == 12
    (others,) = (box for box in sellers if "others" in box.label)
    assert others.label.startswith("19 others: ")
    total = sum(fill.sell for fill in solution.fills)
    assert sum(b.amount_in for b in flow.bands if b.source.startswith("sell")) == total


def test_a_batch_without_fills_is_an_empty_picture(tmp_path: Path) -> None:
    market, orders = snapshot([]), [signed(swap(A, B))]
    solution, _, layout = drawn(market, orders)
    scene = picture.Scene(market.pools, solution, layout, tokens_of(market))
    picture.draw(scene, tmp_path / "empty.svg")
    assert (tmp_path / "empty.svg").stat().st_size > 0


@pytest.mark.parametrize("ending", picture.ENDINGS)
def test_the_same_answer_is_the_same_file(ending: str, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}{ending}" for name in ("one", "two")]
    for file in files:
        result = CliRunner().invoke(app, ["solve", str(EXAMPLE), "--picture", str(file)])
        assert result.exit_code == 0, result.output
    one, two = (file.read_bytes() for file in files)
    assert one == two
    assert one.startswith(b"\x89PNG" if ending == ".png" else b"<?xml")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("batch.gif", "ends neither in .png nor in .svg"),
        ("batch", "ends neither in .png nor in .svg"),
        ("nowhere/batch.png", "cannot be written"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_any_work(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("solver.cli.solve_batch", lambda *_: pytest.fail("solved"))
    words = ["solve", str(EXAMPLE), "--picture", str(tmp_path / name)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert said in result.output


def test_without_the_library_it_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(picture.render, "import_module", gone)
    words = ["solve", str(EXAMPLE), "--picture", str(tmp_path / "batch.png")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "thalweg[picture]" in result.output


def test_the_worked_example_does_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "batches.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    for line in block.splitlines():
        words, _, target = line.partition(" > ")
        result = CliRunner().invoke(app, shlex.split(words)[1:])
        assert result.exit_code == 0, result.output
        if target:
            Path(target).write_text(result.stdout, encoding="utf-8")
    assert "accepted" in result.stdout
    assert Path("batch.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads(Path("answer.json").read_text(encoding="utf-8"))["fills"]
