"""The drawing itself, with matplotlib: venue graph on the left, flow on the right.

Nothing of the clock or of chance is in a file, so that the same answer is the same picture.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from msgspec import Struct

from solver.core.types import Solution, TokenId
from solver.core.venue import Pool
from solver.picture.flow import Role, Tokens
from solver.picture.layout import Layout, Ribbon

ENDINGS = (".png", ".svg")
# Okabe and Ito's colours, which people with any kind of colour vision can tell apart
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
_INK, _FAINT, _OTHER = "#333333", "#C8C8C8", "#8C8C8C"
_WIDTH = 0.012  # of a box
_STEPS = 40  # points of a ribbon's edge
_MOST_FAINT = 200  # unused pools that are drawn


class NoLibrary(Exception):
    """The plotting library is not installed."""


class Scene(Struct, frozen=True):
    """What is drawn: the pools of the snapshot, the answer, its flow in place, and names."""

    pools: tuple[Pool, ...]
    solution: Solution
    layout: Layout
    tokens: Tokens


def load() -> Any:
    """pyplot, drawing into files only. Raises NoLibrary."""
    try:
        import_module("matplotlib").use("Agg")
        plt: Any = import_module("matplotlib.pyplot")
    except ImportError as error:
        raise NoLibrary("pictures need matplotlib: pip install 'thalweg[picture]'") from error
    return plt


def draw(scene: Scene, path: Path) -> None:
    """Write the picture; the form follows the ending. Raises NoLibrary, OSError."""
    plt = load()
    height = min(14.0, max(5.5, 0.25 * len(scene.layout.places) + 2.0))
    with plt.rc_context({"font.size": 9, "svg.hashsalt": "thalweg", "svg.fonttype": "path"}):
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(15, height), width_ratios=(1, 1.9), dpi=110
        )
        colours = _colours(scene)
        _graph(left, scene, colours)
        _flow(right, scene, colours)
        figure.suptitle(_title(scene), color=_INK, fontsize=11, x=0.02, y=0.98, ha="left")
        figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=0.9, wspace=0.02)
        free = {".svg": {"Date": None}, ".png": {"Software": None}}[path.suffix]
        figure.savefig(path, format=path.suffix[1:], metadata=free, facecolor="white")
        plt.close(figure)


def _title(scene: Scene) -> str:
    solution = scene.solution
    proven, filled = solution.certificate, len(solution.fills)
    return (
        f"{filled} of {filled + _unfilled(solution)} orders filled, {len(solution.legs)} uses of "
        f"pools   |   surplus {float(proven.value):,.6g}   |   proven within "
        f"{float(proven.net_gap_bps):.3g} bp of the best   |   stage: {solution.stage}"
    )


def _unfilled(solution: Solution) -> int:
    filled = {fill.digest for fill in solution.fills}
    return len({reason.digest for reason in solution.open} - filled)


def _colours(scene: Scene) -> dict[TokenId, str]:
    """A colour for each token of the answer; more tokens than colours share the last, grey."""
    used = {token for r in scene.layout.ribbons for token in (r.band.token_in, r.band.token_out)}
    ordered = sorted(used, key=lambda token: (scene.tokens.symbol(token), token))
    return {token: _COLOURS[k] if k < len(_COLOURS) else _OTHER for k, token in enumerate(ordered)}


def _flow(axes: Any, scene: Scene, colours: Mapping[TokenId, str]) -> None:
    axes.set_xlim(-0.16, 1.2)
    axes.set_ylim(-0.03, 1.03)
    axes.axis("off")
    axes.set_title("who gives, what carries it, who gets", color=_INK, loc="left")
    for ribbon in scene.layout.ribbons:
        _ribbon(axes, ribbon, colours)
    for place in scene.layout.places:
        role = place.box.role
        axes.fill_between(
            [place.x - _WIDTH / 2, place.x + _WIDTH / 2], place.low, place.high, color=_INK, lw=0
        )
        middle = (place.low + place.high) / 2
        if role is Role.SELLER:
            axes.text(place.x - _WIDTH, middle, place.box.label, ha="right", va="center")
        elif role is Role.TOKEN:
            axes.text(
                place.x, place.high + 0.006, place.box.label, ha="center", va="bottom",
                weight="bold",
            )  # fmt: skip
        else:
            axes.text(place.x + _WIDTH, middle, place.box.label, ha="left", va="center")


def _ribbon(axes: Any, ribbon: Ribbon, colours: Mapping[TokenId, str]) -> None:
    """A band whose edges begin and end level; a pool's is named in its middle."""
    x0, x1 = ribbon.x0 + _WIDTH / 2, ribbon.x1 - _WIDTH / 2
    xs, low, high = [], [], []
    for step in range(_STEPS + 1):
        part = step / _STEPS
        bend = part * part * (3.0 - 2.0 * part)
        xs.append(x0 + (x1 - x0) * part)
        base = ribbon.low0 + (ribbon.low1 - ribbon.low0) * bend
        low.append(base)
        high.append(base + ribbon.height0 + (ribbon.height1 - ribbon.height0) * bend)
    colour = colours[ribbon.band.token_in]
    axes.fill_between(xs, low, high, color=colour, alpha=0.55 if ribbon.band.name else 0.4, lw=0)
    if ribbon.band.name:
        middle = _STEPS // 2
        axes.text(
            xs[middle], (low[middle] + high[middle]) / 2, _short(ribbon.band.name), ha="center",
            va="center", fontsize=7, color=_INK, zorder=4,
            bbox={"facecolor": "white", "alpha": 0.7, "lw": 0, "pad": 0.8},
        )  # fmt: skip


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:11]}…{name[-10:]}"


def _graph(axes: Any, scene: Scene, colours: Mapping[TokenId, str]) -> None:
    """Tokens in a circle; pools that the answer uses in ink, the others between them faint."""
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_xlim(-1.35, 1.35)
    axes.set_ylim(-1.35, 1.35)
    axes.set_title("venues between these tokens", color=_INK, loc="left")
    spots = _circle(list(colours))
    used: dict[tuple[TokenId, TokenId], float] = defaultdict(float)
    for leg in scene.solution.legs:
        used[leg.token_in, leg.token_out] += scene.tokens.worth(leg.token_in, leg.amount_in)
    faint = _faint(scene.pools, {leg.pool for leg in scene.solution.legs}, spots)
    for (one, two), count in faint.items():
        _line(axes, spots[one], spots[two], 0.6 + 0.3 * min(count, 10), _FAINT, 0.0)
    largest = max(used.values(), default=0.0) or 1.0
    for (one, two), worth in sorted(used.items()):
        _line(axes, spots[one], spots[two], 1.0 + 5.0 * worth / largest, colours[one], 0.12)
        _arrow(axes, spots[one], spots[two], colours[one])
    for token, (x, y) in spots.items():
        axes.plot([x], [y], "o", markersize=15, color=colours[token], zorder=3)
        axes.text(
            1.17 * x, 1.17 * y, scene.tokens.symbol(token), ha="center", va="center", weight="bold"
        )
    axes.text(
        -1.3, -1.33, "line: worth through pools, in the colour of what is sold; grey: not used",
        fontsize=7, color=_INK,
    )  # fmt: skip


def _circle(tokens: Sequence[TokenId]) -> dict[TokenId, tuple[float, float]]:
    turn = 2.0 * math.pi / max(1, len(tokens))
    return {token: (math.sin(k * turn), math.cos(k * turn)) for k, token in enumerate(tokens)}


def _faint(
    pools: Sequence[Pool], used: set[str], spots: Mapping[TokenId, object]
) -> dict[tuple[TokenId, TokenId], int]:
    """How many unused pools join two of the tokens."""
    found: dict[tuple[TokenId, TokenId], int] = defaultdict(int)
    for pool in pools:
        ends = [token for token in pool.tokens if token in spots]
        if pool.id in used or len(found) >= _MOST_FAINT:
            continue
        for k, one in enumerate(ends):
            for two in ends[k + 1 :]:
                found[min(one, two), max(one, two)] += 1
    return found


def _bent(
    one: tuple[float, float], two: tuple[float, float], bend: float, part: float
) -> tuple[float, float]:
    """A point of a curve between two spots, off the straight line on its left."""
    (x0, y0), (x1, y1) = one, two
    off = 4.0 * bend * part * (1.0 - part)
    return x0 + (x1 - x0) * part - off * (y1 - y0), y0 + (y1 - y0) * part + off * (x1 - x0)


def _line(
    axes: Any, one: tuple[float, float], two: tuple[float, float], width: float, colour: str,
    bend: float,
) -> None:  # fmt: skip
    points = [_bent(one, two, bend, step / _STEPS) for step in range(_STEPS + 1)]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    axes.plot(xs, ys, color=colour, lw=width, solid_capstyle="round")


def _arrow(axes: Any, one: tuple[float, float], two: tuple[float, float], colour: str) -> None:
    start, end = _bent(one, two, 0.12, 0.52), _bent(one, two, 0.12, 0.58)
    style = {"arrowstyle": "-|>", "color": colour, "mutation_scale": 16, "lw": 0}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)
