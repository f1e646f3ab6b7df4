"""The interior point's problem for a set of candidate arcs, and the way back to flows per arc."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from solver.core.jit import compiled
from solver.core.kernels import LINEAR, PRODUCT, STABLE, WEIGHTED, WIDTH, Array, IntArray, KindArray
from solver.core.routing.arcs import IndexArray, expand
from solver.core.routing.flow import order_tokens, prune, push
from solver.core.routing.interior import interior_point
from solver.core.routing.joint import star_flows, star_levels
from solver.core.routing.network import Network

_SLACK = 4e-3
_PRICINGS = 4
_SAME = 2e-3  # a change of prices that leaves the levels near the money as they are
_WORTHLESS = 1e-6
_FINE = 1e-8  # of the order, between the value of the flows and their bound
_FINEST = 1e-11  # flows up to a limit reach it only so


class Local(Struct, frozen=True):
    """The part of the graph that candidates span: the source is token 0, the target token 1.

    ``place`` are the positions, among the candidates, of the arcs that some flow can use.
    """

    tokens: IntArray
    tail: IntArray
    head: IntArray
    place: IntArray


def localise(
    network: Network, candidates: IntArray, source: int, target: int, whole: bool = False
) -> Local | None:
    """Local numbers for the tokens of useful candidates; None when nothing connects the ends.

    With ``whole``, arcs into the source and out of the target stay: cycles may run through them.
    """
    tail, head = network.tail[candidates], network.head[candidates]
    kept = np.ones(len(candidates), np.bool_)
    every, inverse = np.unique(np.concatenate([tail, head, [source, target]]), return_inverse=True)
    count = len(candidates)
    prune(
        inverse[:count],
        inverse[count:-2],
        len(every),
        int(inverse[-2]),
        int(inverse[-1]),
        kept,
        whole,
    )
    place = np.nonzero(kept)[0]
    if len(place) == 0:
        return None
    tokens, inverse = np.unique(np.concatenate([tail[place], head[place]]), return_inverse=True)
    # the system is solved from the last token to the first: few neighbours last, few fill-ins
    degree = np.bincount(inverse, minlength=len(tokens))
    degree[tokens == source] = len(inverse) + 2
    degree[tokens == target] = len(inverse) + 1
    order = np.argsort(-degree, kind="stable")
    rank = np.empty(len(tokens), np.int64)
    rank[order] = np.arange(len(tokens))
    ends = rank[inverse]
    return Local(tokens[order].astype(np.int64), ends[: len(place)], ends[len(place) :], place)


def walk(
    network: Network, arcs: IntArray, local: Local, flow: Array, least: float, amount: float
) -> tuple[float, IntArray, Array] | None:
    """A feasible route for ``amount`` in the proportions of the flows above ``least``.

    What arrives, the arcs in topological order, and the input of each; None if nothing arrives.
    """
    joint, tokens = network.joint, len(local.tokens)
    kept = flow > least
    prune(local.tail, local.head, tokens, 0, 1, kept)
    order = order_tokens(local.tail, local.head, tokens, 0, kept, flow)
    prune(local.tail, local.head, tokens, 0, 1, kept)
    used = np.zeros(len(arcs))
    arrived = push(
        order, local.tail, local.head, kept, flow, tokens, 0, 1, amount, arcs,
        network.kind, network.par, network.table, network.rows,
        joint.of_pool[network.pool[arcs]], joint.start, joint.coin_in[arcs],
        joint.coin_out[arcs], joint.reserve.copy(), joint.weight, joint.ann, joint.into,
        joint.out, joint.gross, used,
    )  # fmt: skip
    there = np.nonzero(used > 0.0)[0]
    if not (len(there) and arrived > 0.0):
        return None
    rank = np.empty(tokens, np.int64)
    rank[order] = np.arange(len(order))
    there = there[np.argsort(rank[local.tail[there]], kind="stable")]
    return arrived, arcs[there], used[there]


Columns = tuple[IntArray, IntArray, IntArray, Array, Array, KindArray, Array, Array]
"""Of levels: tail, head, third node, drain, κ, kind, numbers, capacity."""


class Stars(Struct, frozen=True):
    """The levels of joint pools around nodes of their own, as :func:`star_levels` writes them."""

    tail: IntArray
    head: IntArray
    third: IntArray
    drain: Array
    kappa: Array
    kind: KindArray
    par: Array
    capacity: Array
    coin: IntArray
    scale: Array
    node_nu: Array

    def behind(
        self,
        tail: IndexArray | IntArray,
        head: IndexArray | IntArray,
        kind: KindArray,
        par: Array,
        capacity: Array,
    ) -> Columns:
        """Plain levels, which drain what they take and pay no third node, and then these."""
        plain = len(tail)
        return (
            np.concatenate([tail, self.tail]),
            np.concatenate([head, self.head]),
            np.concatenate([np.zeros(plain, np.int64), self.third]),
            np.concatenate([np.ones(plain), self.drain]),
            np.concatenate([np.zeros(plain), self.kappa]),
            np.concatenate([kind, self.kind]),
            np.concatenate([par, self.par]),
            np.concatenate([capacity, self.capacity]),
        )


_NO_PLACE, _NO_NUMBER = np.empty(0, np.int64), np.empty(0)
_NO_STARS = Stars(
    _NO_PLACE, _NO_PLACE, _NO_PLACE, _NO_NUMBER, _NO_NUMBER, np.empty(0, np.int8),
    np.empty((0, WIDTH)), _NO_NUMBER, _NO_PLACE, _NO_NUMBER, _NO_NUMBER,
)  # fmt: skip


class JointCoins(Protocol):
    """Pools of three or more coins, coin by coin, as :class:`solver.core.routing.coins.Coins`."""

    start: IntArray
    token: IntArray
    reserve: Array
    weight: Array
    into: Array
    out: Array
    excess: Array


def stars_of(
    joint: JointCoins, joints: IntArray, sells: Array, buys: Array, index: IntArray, amount: float,
    nu: Array,
) -> Stars:  # fmt: skip
    """Levels for the coins that pools take (``sells`` > 0) and give (``buys`` > 0).

    ``index`` numbers the tokens, −1 for those that take no part; ``nu`` are their prices.
    """
    room = 2 * (np.count_nonzero(sells > 0.0) + np.count_nonzero(buys > 0.0) + len(joints))
    ends = np.zeros((3, room), np.int64)
    numbers = np.zeros((3, room))
    kind, par = np.zeros(room, np.int8), np.zeros((room, WIDTH))
    coin, node_nu, scale = np.zeros(room, np.int64), np.zeros(2 * len(joints)), np.zeros(room)
    n, nodes = star_levels(
        joints, sells, buys, joint.start, joint.token, joint.reserve, joint.weight, joint.into,
        joint.out, joint.excess, index, len(nu), amount, nu, ends[0], ends[1], ends[2],
        numbers[0], numbers[1], kind, par, numbers[2], coin, node_nu, scale,
    )  # fmt: skip
    return Stars(
        ends[0, :n], ends[1, :n], ends[2, :n], numbers[0, :n], numbers[1, :n], kind[:n], par[:n],
        numbers[2, :n], coin[:n], scale[: len(joints)], node_nu[:nodes],
    )  # fmt: skip


class Model(Struct):
    """Levels with flows in units of the order; the first ``plain`` belong to arcs, others to stars.

    ``arc_of`` is the position of a plain level's arc; ``coin`` as :func:`star_levels` returns it.
    """

    network: Network
    arcs: IntArray
    local: Local
    amount: float
    plain: int
    arc_of: IntArray
    tail: IntArray
    head: IntArray
    third: IntArray
    drain: Array
    kappa: Array
    kind: KindArray
    par: Array
    capacity: Array
    coin: IntArray
    node_nu: Array
    joints: IntArray
    scale: Array
    keeps: bool
    warm_start: Array

    def solve(self, x: Array, nu: Array, mu: float, tolerance: float) -> bool:
        """Run the interior point in place from the given start."""
        solved, _ = interior_point(
            self.tail, self.head, self.third, self.drain, self.kappa, self.kind, self.par,
            self.capacity, 0, 1, x, nu, mu, tolerance,
        )  # fmt: skip
        return solved

    def arc_flow(self, x: Array) -> Array:
        """Input per candidate arc; what a star takes in is spread over the pairs that it pays."""
        flow: Array = np.bincount(
            self.arc_of, weights=x[: self.plain], minlength=len(self.arcs)
        ).astype(float)
        if len(self.joints):
            joint = self.network.joint
            star_flows(
                self.coin, x[self.plain :], self.kappa[self.plain :],
                joint.coin_in[self.arcs], joint.coin_out[self.arcs], len(joint.token), flow,
            )  # fmt: skip
        return flow

    def multipliers(self, nu: Array) -> tuple[Array, Array]:
        """λ and μ of every joint pool in numeraire; 0 for those that took no part."""
        joint = self.network.joint
        lam, mu = np.zeros(len(joint.ann)), np.zeros(len(joint.ann))
        node = len(self.local.tokens)
        for j, scale in zip(self.joints, self.scale, strict=True):
            lam[j] = nu[node] * scale * self.amount
            node += 1
            if joint.excess[j] > 0.0:
                mu[j] = nu[node]
                node += 1
        return lam, mu


def build_model(
    network: Network,
    arcs: IntArray,
    local: Local,
    nu: Array,
    amount: float,
    flow: Array,
    keep_rate: float = 0.0,
    most: Array | None = None,
) -> Model:
    """Levels of the arcs near the money at prices ν, joint pools as stars.

    ``flow`` (in units of the order) is where a warm start begins. With a ``keep_rate`` the order
    may keep any part of its input at that worth: one more level, the last, from source to target.
    ``most``, in the same units and positive, limits what plain arcs take in.
    """
    model = _build(network, arcs, local, nu, amount, flow, most)
    if keep_rate <= 0.0:
        return model
    one = np.zeros((1, WIDTH))
    one[0, 0] = keep_rate
    return replace(
        model,
        tail=np.append(model.tail, 0),
        head=np.append(model.head, 1),
        third=np.append(model.third, 0),
        drain=np.append(model.drain, 1.0),
        kappa=np.append(model.kappa, 0.0),
        kind=np.append(model.kind, np.int8(LINEAR)),
        par=np.concatenate([model.par, one]),
        capacity=np.append(model.capacity, 1.0),
        coin=np.append(model.coin, 0),
        keeps=True,
        warm_start=np.append(model.warm_start, max(1e-4, 0.9 * (1.0 - float(flow.sum())))),
    )


def best_flow(
    network: Network,
    arcs: IntArray,
    local: Local,
    guess: Array,
    amount: float,
    most: Array | None = None,
) -> Array | None:
    """The flows, in units of the order, that bring most over some arcs; None if that fails.

    ``guess`` are prices of the network's tokens; they are priced again until the levels near the
    money are the right ones. ``most`` is as for :func:`build_model`.
    """
    near = guess[local.tokens]
    nu = np.where(near > _WORTHLESS, near, 1.0)
    nu[1] = 1.0
    flow = np.zeros(len(arcs))
    for _ in range(_PRICINGS):
        model = build_model(network, arcs, local, nu, amount, flow, most=most)
        x = np.minimum(0.4 * model.capacity, 0.03)
        prices = np.concatenate([nu, model.node_nu])
        model.solve(x, prices, 1e-2, _FINE if most is None else _FINEST)
        if not (np.all(np.isfinite(x)) and np.all(np.isfinite(prices))):
            return None
        before, nu = nu, np.maximum(prices[: len(nu)], 1e-4)
        if np.all(np.abs(nu - before) <= _SAME * before):
            break
    return model.arc_flow(x)


def _build(
    network: Network,
    arcs: IntArray,
    local: Local,
    nu: Array,
    amount: float,
    flow: Array,
    most: Array | None,
) -> Model:
    joint = network.joint
    group = joint.of_pool[network.pool[arcs]]
    single = np.nonzero(group < 0)[0]
    arc_of, kind, par, capacity = spread_levels(
        network, arcs[single], nu[local.tail[single]], nu[local.head[single]], amount
    )
    arc_of = single[arc_of]
    if most is not None:
        capacity = _up_to(arc_of, capacity, most)
        kept = capacity > 0.0
        arc_of, kind, par, capacity = arc_of[kept], kind[kept], par[kept], capacity[kept]
    plain = len(arc_of)
    joints = np.unique(group[group >= 0])
    warm = np.minimum(np.maximum(_spread(flow, arc_of, capacity), 1e-4), 0.9 * capacity)
    both = np.nonzero(group >= 0)[0]
    coin_in, coin_out = joint.coin_in[arcs[both]], joint.coin_out[arcs[both]]
    sells, buys = np.zeros(len(joint.token)), np.zeros(len(joint.token))
    stars = _NO_STARS
    if len(joints):
        sells[coin_in] = 1.0
        buys[coin_out] = 1.0
        np.add.at(sells, coin_in, flow[both])
        np.add.at(buys, coin_out, flow[both])
        index = np.full(len(network.tokens), -1, np.int64)
        index[local.tokens] = np.arange(len(local.tokens))
        stars = stars_of(network.joint, joints, sells, buys, index, amount, nu)
    coin = stars.coin
    begun = np.full(len(coin), 1e-4)
    begun[coin > 0] = sells[coin[coin > 0] - 1] - 1.0
    begun[coin < 0] = buys[-coin[coin < 0] - 1] - 1.0
    warm = np.concatenate([warm, np.maximum(begun, 1e-4)])
    columns = stars.behind(local.tail[arc_of], local.head[arc_of], kind, par, capacity)
    return Model(
        network, arcs, local, amount, plain, arc_of, *columns, coin, stars.node_nu, joints,
        stars.scale, False, np.minimum(warm, 0.9 * columns[-1]),
    )  # fmt: skip


def spread_levels(
    network: Network,
    arcs: IntArray,
    price_in: Array,
    price_out: Array,
    amount: float,
    slack: float = _SLACK,
    most: float = 2.0,
) -> tuple[IntArray, KindArray, Array, Array]:
    """Levels with flows in units of the order: arc position, kind, numbers, capacity."""
    room = 4 * len(arcs) + 64
    while True:
        arc_of = np.empty(room, np.int64)
        kind = np.zeros(room, np.int8)
        par = np.zeros((room, WIDTH))
        capacity = np.empty(room)
        n = expand(
            arcs, price_in, price_out, slack, most * amount, network.kind, network.par,
            network.table, network.rows, arc_of, kind, par, capacity,
        )  # fmt: skip
        if n >= 0:
            break
        room *= 2
    arc_of, kind, par, capacity = arc_of[:n], kind[:n], par[:n], capacity[:n]
    pooled = (kind == PRODUCT) | (kind == WEIGHTED)
    par[pooled, :2] /= amount
    stable = kind == STABLE
    par[stable, 2] *= amount
    par[stable, 3] /= amount
    return arc_of, kind, par, capacity / amount


@compiled
def _spread(flow: Array, arc_of: IntArray, capacity: Array) -> Array:
    """Flows of arcs over their levels, in order."""
    left = flow.copy()
    x = np.zeros(len(arc_of))
    for k in range(len(arc_of)):
        x[k] = min(left[arc_of[k]], capacity[k])
        left[arc_of[k]] -= x[k]
    return x


@compiled
def _up_to(arc_of: IntArray, capacity: Array, most: Array) -> Array:
    """Capacities of levels, those of one arc in order, that add up to at most ``most`` per arc."""
    left = most.copy()
    cut = np.empty(len(capacity))
    for k in range(len(capacity)):
        cut[k] = max(0.0, min(capacity[k], left[arc_of[k]]))
        left[arc_of[k]] -= cut[k]
    return cut
