"""Where everything of a flow is drawn: heights are worths, columns go from left to right.

The unit square, with (0, 0) below on the left. A picture of the same flow is the same picture.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from solver.picture.flow import Band, Box, Flow, Tokens

_GAP = 0.018  # between the boxes of a column
_LEAST = 0.002  # height of a band, so that a small one is seen


class Place(Struct, frozen=True):
    """A box from ``low`` to ``high`` at ``x``."""

    box: Box
    x: float
    low: float
    high: float


class Ribbon(Struct, frozen=True):
    """A band from x0 to x1: its lower edge and its height at either end."""

    band: Band
    x0: float
    x1: float
    low0: float
    low1: float
    height0: float
    height1: float


class Layout(Struct, frozen=True):
    """All boxes and bands with their places."""

    places: tuple[Place, ...]
    ribbons: tuple[Ribbon, ...]


def layout_of(flow: Flow, tokens: Tokens) -> Layout:
    """The layout of a flow; empty for an empty one."""
    if not flow.boxes:
        return Layout((), ())
    sizes = _sizes(flow, tokens)
    heights = _through(flow, sizes)
    columns: dict[int, list[Box]] = defaultdict(list)
    for box in flow.boxes:
        columns[box.column].append(box)
    last = max(columns)
    places: dict[str, Place] = {}
    for column in sorted(columns):
        boxes = sorted(columns[column], key=lambda box: _rank(box, flow, places))
        top = 0.5 + (sum(heights[b.name] for b in boxes) + _GAP * (len(boxes) - 1)) / 2
        for box in boxes:
            low = top - heights[box.name]
            places[box.name] = Place(box, column / last, low, top)
            top = low - _GAP
    return Layout(tuple(places.values()), _ribbons(flow, sizes, places))


def _sizes(flow: Flow, tokens: Tokens) -> list[tuple[float, float]]:
    """The height of each band at its ends, so that the fullest column just fits."""
    worths = [
        (tokens.worth(b.token_in, b.amount_in), tokens.worth(b.token_out, b.amount_out))
        for b in flow.bands
    ]
    columns: dict[int, float] = defaultdict(float)
    gaps: dict[int, float] = defaultdict(float)
    through = _through(flow, worths)
    for box in flow.boxes:
        columns[box.column] += through[box.name]
        gaps[box.column] += _GAP
    fullest = max(columns.values()) or 1.0
    scale = (1.0 - max(gaps.values())) / fullest
    return [(max(_LEAST, one * scale), max(_LEAST, two * scale)) for one, two in worths]


def _through(flow: Flow, sizes: Sequence[tuple[float, float]]) -> dict[str, float]:
    """The larger of what comes in and goes out, by box."""
    into: dict[str, float] = defaultdict(float)
    out: dict[str, float] = defaultdict(float)
    for band, (one, two) in zip(flow.bands, sizes, strict=True):
        out[band.source] += one
        into[band.target] += two
    return {box.name: max(into[box.name], out[box.name]) for box in flow.boxes}


def _rank(box: Box, flow: Flow, places: Mapping[str, Place]) -> tuple[float, str]:
    """From above: by the middle of where its bands come from, those of no one by their label."""
    middles = [
        (places[band.source].low + places[band.source].high) / 2
        for band in flow.bands
        if band.target == box.name and band.source in places
    ]
    ends = sorted(band.target for band in flow.bands if band.source == box.name)
    return (-sum(middles) / len(middles) if middles else 0.0, " ".join(ends) + box.label)


def _ribbons(
    flow: Flow, ends: Sequence[tuple[float, float]], places: Mapping[str, Place]
) -> tuple[Ribbon, ...]:
    """Bands leave and reach a box from above in the order of their other ends, so few cross."""
    sizes = dict(zip(flow.bands, ends, strict=True))
    starts = _stacked(flow, places, lambda b: (b.source, b.target), sizes, 0)
    stops = _stacked(flow, places, lambda b: (b.target, b.source), sizes, 1)
    return tuple(
        Ribbon(
            band, places[band.source].x, places[band.target].x, starts[band], stops[band],
            *sizes[band],
        )
        for band in flow.bands
    )  # fmt: skip


def _stacked(
    flow: Flow,
    places: Mapping[str, Place],
    ends: Callable[[Band], tuple[str, str]],
    sizes: Mapping[Band, tuple[float, float]],
    side: int,
) -> dict[Band, float]:
    """The lower edge of each band at one of its ends; ``ends`` names that box first."""
    top = {name: place.high for name, place in places.items()}
    found = {}
    for band in sorted(flow.bands, key=lambda b: (-places[ends(b)[1]].high, b.name)):
        here = ends(band)[0]
        top[here] -= sizes[band][side]
        found[band] = top[here]
    return found
