"""The closed forms of the arc kinds, vectorised over arcs.

All functions take arrays in the same (normalised) units. An arc's output f is concave with
f(0) = 0: constant product f(x) = b·γx/(a + γx), or linear f(x) = rate·x; both up to a capacity.
Source of the constant-product forms: Angeris et al., "Optimal Routing for CFMMs", §3.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Arcs(Struct, frozen=True):
    """Struct of arrays, one entry per arc. ``b`` = 0 marks a linear arc of slope ``rate``."""

    tail: IntArray
    head: IntArray
    a: Array
    b: Array
    gamma: Array
    rate: Array
    capacity: Array

    @property
    def is_linear(self) -> NDArray[np.bool_]:
        """Which arcs are linear."""
        return np.equal(self.b, 0.0)


def output(arcs: Arcs, x: Array) -> Array:
    """f(x)."""
    curved = arcs.b * arcs.gamma * x / (arcs.a + arcs.gamma * x)
    return np.where(arcs.is_linear, arcs.rate * x, curved)


def slope(arcs: Arcs, x: Array) -> Array:
    """f′(x)."""
    curved = arcs.a * arcs.b * arcs.gamma / (arcs.a + arcs.gamma * x) ** 2
    return np.where(arcs.is_linear, arcs.rate, curved)


def input_at(arcs: Arcs, marginal: Array) -> Array:
    """x*(r): the largest x with f′(x) ≥ r, within capacity; r > 0."""
    root = np.sqrt(arcs.a * arcs.b * arcs.gamma / marginal)
    curved = np.clip((root - arcs.a) / arcs.gamma, 0.0, arcs.capacity)
    linear = np.where(arcs.rate >= marginal, arcs.capacity, 0.0)
    return np.where(arcs.is_linear, linear, curved)


def impact_capacity(arcs: Arcs, max_impact: float) -> Array:
    """The input at which the marginal rate has fallen by ``max_impact`` of its start."""
    start = slope(arcs, np.zeros_like(arcs.a))
    limited = input_at(arcs, np.maximum(start * (1.0 - max_impact), np.finfo(float).tiny))
    return np.where(arcs.is_linear, arcs.capacity, limited)


def arbitrage(arcs: Arcs, nu: Array) -> Array:
    """max over x of ν_out·f(x) − ν_in·x per arc, at token prices ν (one per node); ≥ 0."""
    price_in, price_out = nu[arcs.tail], nu[arcs.head]
    ratio = price_in / np.where(price_out > 0.0, price_out, 1.0)
    best = input_at(arcs, np.maximum(ratio, 1e-100))
    gain = price_out * output(arcs, best) - price_in * best
    return np.where(price_out > 0.0, np.maximum(gain, 0.0), 0.0)
