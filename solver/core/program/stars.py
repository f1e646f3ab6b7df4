"""Pools of three or more coins in a program on whole curves: stars around rows of their own.

A pair by pair sum would count the depth of such a pool once per pair. See
:func:`solver.core.routing.joint.star_levels` for the levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from solver.core.kernels import WIDTH, Array, IntArray, KindArray
from solver.core.problem import JointPool, Problem
from solver.core.routing.joint import star_flows, star_levels


class Stars(Struct, frozen=True):
    """Levels between the program's nodes and inner ones, which are numbered on from the nodes.

    A level takes ``drain``·x from ``tail``, brings f(x) to ``head`` and ``kappa``·x to ``third``.
    ``guess`` are prices of the inner nodes to begin with, ``pairs`` the arcs that the levels
    replace, and ``coin_in`` and ``coin_out`` the coins of these.
    """

    tail: IntArray
    head: IntArray
    third: IntArray
    drain: Array
    kappa: Array
    kind: KindArray
    par: Array
    capacity: Array
    coin: IntArray
    guess: Array
    pairs: IntArray
    coin_in: IntArray
    coin_out: IntArray
    coins: int

    def flows(self, x: Array) -> Array:
        """The input of each of ``pairs``."""
        found = np.zeros(len(self.pairs))
        star_flows(
            self.coin, x, self.kappa, self.coin_in, self.coin_out, self.coins, found
        )  # fmt: skip
        return found


def stars(problem: Problem, pools: Sequence[JointPool], open_arcs: Array) -> Stars:
    """The levels of some pools; coins move only as the pairs that are open (> 0) move them."""
    sizes = [len(pool.token) for pool in pools]
    start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    coin_in = _joined([pool.coin_in + first for pool, first in zip(pools, start[:-1], strict=True)])
    coin_out = _joined(
        [pool.coin_out + first for pool, first in zip(pools, start[:-1], strict=True)]
    )
    pairs = _joined([pool.pairs for pool in pools])
    usable = open_arcs[pairs] > 0.0
    sells, buys = np.zeros((2, start[-1]))
    sells[coin_in[usable]] = 1.0
    buys[coin_out[usable]] = 1.0
    room = 2 * (int(start[-1]) + len(pools))
    ends, numbers = np.zeros((3, room), np.int64), np.zeros((3, room))
    kind, par = np.zeros(room, np.int8), np.zeros((room, WIDTH))
    coin, guess = np.zeros(room, np.int64), np.zeros(2 * len(pools))
    n, nodes = star_levels(
        np.arange(len(pools)), sells, buys, start,
        _joined([pool.token for pool in pools]), _numbers([pool.reserve for pool in pools]),
        _numbers([pool.weight for pool in pools]), _numbers([pool.into for pool in pools]),
        _numbers([pool.out for pool in pools]), np.array([pool.excess for pool in pools]),
        np.arange(problem.node_count), problem.node_count, 1.0, problem.first_nu,
        ends[0], ends[1], ends[2], numbers[0], numbers[1], kind, par, numbers[2], coin, guess,
        np.zeros(len(pools)),
    )  # fmt: skip
    return Stars(
        ends[0, :n], ends[1, :n], ends[2, :n], numbers[0, :n], numbers[1, :n], kind[:n], par[:n],
        numbers[2, :n], coin[:n], guess[:nodes], pairs, coin_in, coin_out, int(start[-1]),
    )  # fmt: skip


def _joined(parts: Sequence[IntArray]) -> IntArray:
    return np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int64)


def _numbers(parts: Sequence[Array]) -> Array:
    return np.concatenate([np.empty(0), *parts])
