"""Pools of three or more coins in a program on whole curves: stars around rows of their own.

A pair by pair sum would count the depth of such a pool once per pair. See
:func:`solver.core.routing.joint.star_levels` for the levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from solver.core.kernels import Array, IntArray
from solver.core.problem import JointPool, Problem
from solver.core.routing import model
from solver.core.routing.joint import star_flows


class Stars(Struct, frozen=True):
    """Levels between the program's nodes and inner ones, which are numbered on from the nodes.

    A level takes ``drain``·x from ``tail``, brings f(x) to ``head`` and ``kappa``·x to ``third``.
    ``pairs`` are the arcs that the levels replace, ``coin_in`` and ``coin_out`` the coins of these.
    """

    levels: model.Stars
    pairs: IntArray
    coin_in: IntArray
    coin_out: IntArray
    coins: int

    def flows(self, x: Array) -> Array:
        """The input of each of ``pairs``."""
        found = np.zeros(len(self.pairs))
        star_flows(
            self.levels.coin, x, self.levels.kappa, self.coin_in, self.coin_out, self.coins, found
        )
        return found


class _Coins(Struct):
    """The coins of some pools of a problem, one pool after another."""

    start: IntArray
    token: IntArray
    reserve: Array
    weight: Array
    into: Array
    out: Array
    excess: Array


def stars(problem: Problem, pools: Sequence[JointPool], open_arcs: Array) -> Stars:
    """The levels of some pools; coins move only as the pairs that are open (> 0) move them."""
    sizes = [len(pool.token) for pool in pools]
    coins = _Coins(
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        _joined([pool.token for pool in pools]),
        _numbers([pool.reserve for pool in pools]),
        _numbers([pool.weight for pool in pools]),
        _numbers([pool.into for pool in pools]),
        _numbers([pool.out for pool in pools]),
        np.array([pool.excess for pool in pools]),
    )
    firsts = list(zip(pools, coins.start[:-1], strict=True))
    coin_in = _joined([pool.coin_in + first for pool, first in firsts])
    coin_out = _joined([pool.coin_out + first for pool, first in firsts])
    pairs = _joined([pool.pairs for pool in pools])
    usable = open_arcs[pairs] > 0.0
    sells, buys = np.zeros((2, coins.start[-1]))
    sells[coin_in[usable]] = 1.0
    buys[coin_out[usable]] = 1.0
    nodes = np.arange(problem.node_count)
    levels = model.stars_of(coins, np.arange(len(pools)), sells, buys, nodes, 1.0, problem.first_nu)
    return Stars(levels, pairs, coin_in, coin_out, int(coins.start[-1]))


def _joined(parts: Sequence[IntArray]) -> IntArray:
    return np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int64)


def _numbers(parts: Sequence[Array]) -> Array:
    return np.concatenate([np.empty(0), *parts])
