"""Pools of three or more coins: one joint state behind all their pairs.

In the units of the pool's invariant let R_i be the balances, n_i the net amount that coin i gains
after the fee. A trade is possible when

    weighted   Σ w_i log(1 + n_i/R_i) ≥ 0
    stable     log(1 + Σn/E) + Σ log(1 + n_i/R_i) ≥ 0,   E = (Ann·ΣR + D − Ann·D)/Ann

the second being Ann·Σx + D − Ann·D ≥ K/Πx in logarithms. For prices ν and multipliers λ > 0 (of the
invariant) and μ > 0 (of a name for Σn) weak duality gives what any joint trade can gain at most:

    Σ_i max_n [what coin i costs or brings at ν + λ w_i log(1 + n/R_i) + μ n]
        + max_s [λ log(1 + s/E) − μ s]

Every maximum has a closed form. A sum over the pairs would count the same depth more than once.
"""

from __future__ import annotations

from math import inf, log

import numpy as np

from solver.core.jit import compiled
from solver.core.kernels import (
    LOG,
    Array,
    IntArray,
    KindArray,
    stable_given,
    stable_other,
    stable_pair,
)


@compiled
def _bowl(size: float, moved: float) -> float:
    """moved·log(moved/size) − moved + size ≥ 0: what a term gains whose balance is so moved.

    A dust trade in a deep pool keeps its digits, and a withdrawal of all there is its limit.
    """
    t = (moved - size) / size
    if abs(t) < 0.5:
        return max(0.0, size * ((1.0 + t) * np.log1p(t) - t))
    if moved <= 0.0:
        return size
    return moved * log(moved / size) - (moved - size)


@compiled
def coin_gain(
    reserve: float, weight: float, into: float, out: float, price: float, lam: float, mu: float
) -> float:
    """max over n of one coin's term; ``into`` is units per numeraire paid in, ``out`` the reverse.

    Depositing x costs price·x and brings n = into·x; withdrawing v brings price·out·v at n = −v.
    """
    best = 0.0
    scaled = lam * weight
    cost = price / into - mu  # of one unit of n
    if cost <= 0.0:
        return inf
    if scaled > cost * reserve:
        best = _bowl(cost * reserve, scaled)
    worth = price * out - mu  # what one unit withdrawn brings beyond its part of Σn
    if worth > 0.0 and scaled < worth * reserve:
        best = max(best, _bowl(worth * reserve, scaled))
    return best


@compiled
def joint_gain(
    token: IntArray,
    reserve: Array,
    weight: Array,
    into: Array,
    out: Array,
    excess: float,
    nu: Array,
    lam: float,
    mu: float,
) -> float:
    """An upper bound on what any joint trade gains at prices ν; true for any λ, μ > 0.

    ``excess`` is E, or 0 for a weighted pool. Coins without a token (−1) do not trade.
    """
    total = 0.0
    if excess > 0.0:
        total += _bowl(mu * excess, lam)
    else:
        mu = 0.0
    for c in range(len(token)):
        if token[c] >= 0:
            price = nu[token[c]]
            total += coin_gain(reserve[c], weight[c], into[c], out[c], price, lam, mu)
    return total


@compiled
def _net(
    reserve: float, weight: float, into: float, out: float, price: float, lam: float, mu: float
) -> float:
    """The n at which :func:`coin_gain` has its maximum."""
    cost = price / into - mu
    if cost <= 0.0:
        return inf
    n = lam * weight / cost - reserve
    if n > 0.0:
        return n
    worth = price * out - mu
    if worth > 0.0 and lam * weight < worth * reserve:
        return lam * weight / worth - reserve
    return 0.0


@compiled
def _name_of_sum(
    token: IntArray, reserve: Array, weight: Array, into: Array, out: Array, excess: float,
    nu: Array, lam: float, most: float,
) -> float:  # fmt: skip
    """μ at which s = λ/μ − E equals Σn; both sides are monotone in μ on (0, most)."""
    low, high = 0.0, most
    mu = min(lam / excess, 0.999999 * most)
    for _ in range(80):
        miss = lam / mu - excess
        bend = -lam / (mu * mu)
        for c in range(len(token)):
            if token[c] >= 0:
                price = nu[token[c]]
                n = _net(reserve[c], weight[c], into[c], out[c], price, lam, mu)
                miss -= n
                if n > 0.0:
                    bend -= (n + reserve[c]) / (price / into[c] - mu)
                elif n < 0.0:
                    bend -= (n + reserve[c]) / (price * out[c] - mu)
        if miss > 0.0:
            low = mu
        else:
            high = mu
        step = mu - miss / bend
        if not low < step < high:
            step = 0.5 * (low + high)
        if abs(step - mu) <= 1e-14 * mu:
            return step
        mu = step
    return mu


@compiled
def tightest(
    token: IntArray,
    reserve: Array,
    weight: Array,
    into: Array,
    out: Array,
    excess: float,
    nu: Array,
) -> float:
    """The least :func:`joint_gain` over the multipliers: by bisection on λ until the invariant of
    the trade that λ implies is kept. Any λ that it ends at proves a bound.
    """
    most, high, low = inf, 0.0, inf
    for c in range(len(token)):
        if token[c] >= 0:
            price = nu[token[c]] / into[c]
            most = min(most, price)
            share = 1.0 / reserve[c] + (1.0 / excess if excess > 0.0 else 0.0)
            if price > 0.0:
                low = min(low, price / (share * weight[c]))
                high = max(high, price / (share * weight[c]))
    if most <= 0.0:
        return inf if high > 0.0 else 0.0
    left, right = low / 1.5, high * 1.5
    lam, mu = left, 0.0
    for _ in range(60):
        lam = np.sqrt(left * right)
        invariant = 0.0
        if excess > 0.0:
            mu = _name_of_sum(token, reserve, weight, into, out, excess, nu, lam, most)
            invariant = log(lam / (mu * excess))
        for c in range(len(token)):
            if token[c] >= 0:
                price = nu[token[c]]
                n = _net(reserve[c], weight[c], into[c], out[c], price, lam, mu)
                invariant += weight[c] * np.log1p(n / reserve[c])
        if invariant > 0.0:
            right = lam
        else:
            left = lam
        if right - left <= 1e-13 * right:
            break
    return joint_gain(token, reserve, weight, into, out, excess, nu, lam, mu)


@compiled
def known_gain(
    token: IntArray,
    reserve: Array,
    weight: Array,
    into: Array,
    out: Array,
    excess: float,
    nu: Array,
    lam: float,
    mu: float,
) -> float:
    """:func:`joint_gain` where the multipliers are known, ∞ where they are not."""
    if lam > 0.0 and (mu > 0.0) == (excess > 0.0):
        return joint_gain(token, reserve, weight, into, out, excess, nu, lam, mu)
    return inf


@compiled
def joint_total(
    group: IntArray,
    gains: Array,
    start: IntArray,
    token: IntArray,
    reserve: Array,
    weight: Array,
    into: Array,
    out: Array,
    excess: Array,
    nu: Array,
    lam: Array,
    mu: Array,
    exact: bool,
) -> float:
    """The sum of gains with each joint pool (``group`` ≥ 0) counted once, by its joint bound.

    ``lam`` and ``mu`` (0 where unknown) are multipliers to try before a search for better ones. Not
    ``exact``, the pairs' sum stands in for a search; that estimates a bound but proves none.
    """
    total = 0.0
    pairs, best = np.zeros(len(start) - 1), np.zeros(len(start) - 1)
    for a in range(len(group)):
        if group[a] < 0:
            total += gains[a]
        else:
            best[group[a]] = max(best[group[a]], gains[a])
            pairs[group[a]] += gains[a]
    for j in range(len(best)):
        if best[j] <= 0.0:
            continue
        part = slice(start[j], start[j + 1])
        found = known_gain(
            token[part], reserve[part], weight[part], into[part], out[part], excess[j], nu,
            lam[j], mu[j],
        )  # fmt: skip
        if exact and not found <= best[j] * (1.0 + 1e-9):  # nothing gains less than its best pair
            searched = tightest(
                token[part], reserve[part], weight[part], into[part], out[part], excess[j], nu
            )
            found = searched if not found <= searched else found
        if not exact and not found <= pairs[j]:
            found = pairs[j]
        total += max(found, 0.0)
    return total


@compiled
def gaining_pairs(
    group: IntArray,
    pool_of: IntArray,
    first_arc: IntArray,
    coin_in: IntArray,
    coin_out: IntArray,
    token: IntArray,
    reserve: Array,
    weight: Array,
    into: Array,
    out: Array,
    nu: Array,
    lam: Array,
    mu: Array,
) -> IntArray:
    """The pairs that the joint trade at λ and μ uses, of the pools in ``group`` (−1 is none).

    Such a pair need not gain by itself: what others trade makes its coin cheap or dear.
    """
    found = np.empty(16, np.int64)
    n = 0
    seen = np.zeros(len(pool_of), np.bool_)
    for j in group:
        if j < 0 or seen[j] or lam[j] <= 0.0:
            continue
        seen[j] = True
        for a in range(first_arc[pool_of[j]], first_arc[pool_of[j] + 1]):
            i, o = coin_in[a], coin_out[a]
            pays = _net(reserve[i], weight[i], into[i], out[i], nu[token[i]], lam[j], mu[j])
            takes = _net(reserve[o], weight[o], into[o], out[o], nu[token[o]], lam[j], mu[j])
            if pays > 0.0 and takes < 0.0:
                if n >= len(found):
                    found = np.append(found, np.empty(n, np.int64))
                found[n] = a
                n += 1
    return found[:n]


@compiled
def pair_output(state: Array, weight: Array, ann: float, i: int, j: int, n: float) -> float:
    """What coin j gives for n of coin i after the fee, both in their units, at ``state``."""
    if ann <= 0.0:
        return -state[j] * np.expm1(-weight[i] / weight[j] * np.log1p(n / state[i]))
    q, constant = stable_pair(state, ann, i, j)
    return stable_given(stable_other(state[i], q, constant), state[i], n, q, constant)


@compiled
def star_levels(
    joint: IntArray,
    sells: Array,
    buys: Array,
    start: IntArray,
    token: IntArray,
    reserve: Array,
    weight: Array,
    into: Array,
    out: Array,
    excess: Array,
    local: IntArray,
    first_node: int,
    amount: float,
    nu: Array,
    tail: IntArray,
    head: IntArray,
    third: IntArray,
    drain: Array,
    kappa: Array,
    kind: KindArray,
    par: Array,
    capacity: Array,
    coin: IntArray,
    node_nu: Array,
    scales: Array,
) -> tuple[int, int]:
    """Joint pools as stars of LOG levels around nodes of their own; numbers of levels and nodes.

    Flows are in units of ``amount``. A pool has a node for its invariant and, if stable, one for
    Σn. ``sells[c]`` and ``buys[c]`` say which coins may be paid in and taken out; ``local`` maps
    the network's tokens. ``coin[level]`` is c + 1 for a payment in, −(c + 1) for one out, else 0.
    """
    n, node, pool = 0, first_node, 0
    for j in joint:
        first, last = start[j], start[j + 1]
        inner = node
        node += 1
        curved = 0.0
        price, some = 0.0, 0
        for c in range(first, last):
            if token[c] >= 0 and local[token[c]] >= 0:
                price += nu[local[token[c]]]
                some += 1
            curved += 1.0 / reserve[c]
        price = price / some if some else 1.0
        stable = excess[j] > 0.0
        if stable:
            named = node
            node += 1
            scale = 1.0 / (amount * (curved / (last - first) + 1.0 / excess[j]))
            node_nu[named - first_node] = price * scale * amount / excess[j]
            for reverse in range(2):
                tail[n], head[n], third[n] = named, inner, named
                drain[n], kappa[n] = 1.0 - reverse, float(reverse)
                kind[n] = LOG
                par[n, 0] = scale
                par[n, 1] = amount / excess[j] * (1.0 - 2.0 * reverse)
                capacity[n] = excess[j] / amount * (1.0 - 1e-9) if reverse else inf
                coin[n] = 0
                n += 1
        else:
            named = inner
            scale = 0.0
            for c in range(first, last):
                scale += reserve[c] / amount
        node_nu[inner - first_node] = price
        scales[pool] = scale
        pool += 1
        for c in range(first, last):
            if token[c] < 0 or local[token[c]] < 0:
                continue
            place = local[token[c]]
            if sells[c] > 0.0:
                tail[n], head[n], third[n] = place, inner, named
                drain[n], kappa[n] = 1.0, into[c] if stable else 0.0
                kind[n] = LOG
                par[n, 0], par[n, 1] = scale * weight[c], into[c] * amount / reserve[c]
                capacity[n] = inf
                coin[n] = c + 1
                n += 1
            if buys[c] > 0.0:
                tail[n], head[n], third[n] = named if stable else place, inner, place
                drain[n], kappa[n] = 1.0 if stable else 0.0, out[c]
                kind[n] = LOG
                par[n, 0], par[n, 1] = scale * weight[c], -amount / reserve[c]
                capacity[n] = reserve[c] / amount * (1.0 - 1e-9)
                coin[n] = -(c + 1)
                n += 1
    return n, node - first_node


@compiled
def payout_scale(reserve: Array, weight: Array, excess: float, paid: Array, asked: Array) -> float:
    """The t at which a pool that is ``paid`` can just pay out t·``asked``; both in its units, ≥ 0.

    By bisection on the invariant, which falls with t; 0 where nothing is asked.
    """
    high = inf
    for c in range(len(reserve)):
        if asked[c] > 0.0:
            high = min(high, (reserve[c] + paid[c]) / asked[c])
    if high == inf:
        return 0.0
    low = 0.0
    for _ in range(200):
        t = 0.5 * (low + high)
        kept, total = 0.0, 0.0
        for c in range(len(reserve)):
            n = paid[c] - t * asked[c]
            total += n
            kept += weight[c] * np.log1p(max(n / reserve[c], -1.0 + 1e-300))
        if excess > 0.0:
            kept += np.log1p(max(total / excess, -1.0 + 1e-300))
        if kept >= 0.0:
            low = t
        else:
            high = t
        if high - low <= 1e-15 * high:
            break
    return low


@compiled
def star_flows(
    coin: IntArray,
    x: Array,
    kappa: Array,
    coin_in: IntArray,
    coin_out: IntArray,
    coins: int,
    flow: Array,
) -> None:
    """Write the input of each candidate pair of a joint pool into ``flow`` (other arcs: coin −1).

    What a coin pays in is spread over the coins that the pool pays out, in their proportions.
    """
    net = np.zeros(coins)
    for k in range(len(coin)):
        if coin[k] > 0:
            net[coin[k] - 1] += x[k]
        elif coin[k] < 0:
            net[-coin[k] - 1] -= x[k] * kappa[k]
    shares = np.zeros(coins)
    for a in range(len(flow)):
        if coin_in[a] >= 0:
            shares[coin_in[a]] += max(0.0, -net[coin_out[a]])
    for a in range(len(flow)):
        if coin_in[a] >= 0:
            i = coin_in[a]
            flow[a] = 0.0
            if shares[i] > 0.0 and net[i] > 0.0:
                flow[a] = net[i] * max(0.0, -net[coin_out[a]]) / shares[i]
