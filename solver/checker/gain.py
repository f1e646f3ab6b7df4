"""What a pool gains at most at given prices: max of ν·out − ν·in over its trades, from above.

With balances R, a convex trading set {x after the fee: F(x) ≥ F(R)} and prices ν, any c with
ν_k·γ_out ≤ c_k ≤ ν_k/γ_in for every coin gives the bound

    c·R − min {c·x : F(x) ≥ F(R)},

because c·x − c·R is at most what the trade costs at ν. The minimum has a closed form:

    constant product, weighted   Π (R_k·c_k/w_k)^w_k,  Σw = 1
    stable, any λ ≥ 0            λ·(Ann − 1)·D + (n + 1)·(λ·K·Π(c_k − λ·Ann))^(1/(n + 1))

(the second by weak duality on Ann·Σx − K/Πx ≥ (Ann − 1)·D, K = D^(n+1)/n^n, and the inequality of
the means). It holds for all coins of the pool jointly. The c and λ that make the bound tight are
searched in floats; the bound itself is evaluated exactly or rounded outward, so a bad search gives
a loose bound, never a wrong one. Price levels and ticks are closed sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import pairwise, permutations
from math import exp, inf, log

from msgspec import Struct

from solver.checker.rounding import UP, down, exp_down, ln_down, root_down, total_up, up
from solver.core.pools import (
    BookPool,
    BufferPool,
    ConcentratedPool,
    ConstantProductPool,
    CurvePool,
    CurveVariant,
    LimitOrderPool,
    StablePool,
    WeightedPool,
)
from solver.core.pools.tick_math import PIPS, sqrt_price_at
from solver.core.types import BPS, Exact, TokenId
from solver.core.venue import DeclaresArcs, Pool

_ONE = 10**18
_SAMPLES = 96
_SAMPLE_START = 10**3
_HALVINGS = 200

Price = Mapping[TokenId, Fraction]


class Unknown(Exception):
    """A pool of a kind whose curve the checker does not know."""


class Levels(Struct, frozen=True):
    """Price levels of one direction: (capacity of the input, output per input)."""

    token_in: TokenId
    token_out: TokenId
    levels: tuple[tuple[Fraction, Fraction], ...]


class Coins(Struct, frozen=True):
    """A pool of coins in the units of its invariant.

    ``worth[k]`` is invariant units per base unit, ``into`` and ``out`` what is left after the fees.
    ``ann`` is 0 for a weighted pool, whose ``weights`` sum to one.
    """

    tokens: tuple[TokenId, ...]
    balances: tuple[Fraction, ...]
    worth: tuple[Fraction, ...]
    into: Fraction
    out: Fraction
    weights: tuple[Fraction, ...] = ()
    ann: Fraction = Fraction(0)


class Ticks(Struct, frozen=True):
    """One direction of a concentrated pool: pieces (liquidity, u at start, u at end), u rising.

    From u to v a piece takes L·(v − u)/γ in and gives L·(1/u − 1/v).
    """

    token_in: TokenId
    token_out: TokenId
    pieces: tuple[tuple[int, Fraction, Fraction], ...]
    left: Fraction


Curve = Levels | Coins | Ticks


def curves(pool: Pool) -> list[Curve]:
    """What the pool can do, exactly. Raises Unknown."""
    if isinstance(pool, ConstantProductPool):
        sizes = Fraction(pool.reserve0), Fraction(pool.reserve1)
        left = 1 - Fraction(pool.fee_num, pool.fee_den)
        half = (Fraction(1, 2),) * 2
        return _coins(Coins(pool.tokens, sizes, (Fraction(1),) * 2, left, Fraction(1), half))
    if isinstance(pool, WeightedPool):
        return _weighted(pool)
    if isinstance(pool, StablePool | CurvePool):
        return _stable(pool)
    if isinstance(pool, ConcentratedPool):
        return _ticks(pool)
    if isinstance(pool, BookPool):
        return _book(pool)
    if isinstance(pool, LimitOrderPool):
        if min(pool.taker_amount, pool.maker_amount) <= 0:
            return []
        level = Fraction(pool.taker_amount), Fraction(pool.maker_amount, pool.taker_amount)
        return [Levels(pool.taker_token, pool.maker_token, (level,))]
    if isinstance(pool, BufferPool):
        if pool.rate <= 0:
            return []
        rate = Fraction(pool.rate, _ONE)
        return [
            Levels(pool.underlying, pool.wrapped, ((pool.wrapped_left * rate, 1 / rate),)),
            Levels(pool.wrapped, pool.underlying, ((pool.underlying_left / rate, rate),)),
        ]
    if isinstance(pool, DeclaresArcs):
        raise Unknown(f"{pool.id} is a {type(pool).__name__}")
    return _sampled(pool)


def is_sampled(pool: Pool) -> bool:
    """Whether the pool's curve is known only from samples, so that its concavity is assumed."""
    return not isinstance(pool, DeclaresArcs)


def _coins(pool: Coins) -> list[Curve]:
    return [pool] if min(pool.into, pool.out, *pool.balances) > 0 else []


def _weighted(pool: WeightedPool) -> list[Curve]:
    kept = [k for k, size in enumerate(pool.balances) if min(size, pool.weights[k]) > 0]
    whole = sum(pool.weights[k] for k in kept)
    if len(kept) < 2:
        return []
    return _coins(
        Coins(
            tuple(pool.coins[k] for k in kept),
            tuple(Fraction(pool.balances[k]) for k in kept),
            (Fraction(1),) * len(kept),
            1 - Fraction(pool.fee, _ONE),
            Fraction(1),
            tuple(Fraction(pool.weights[k], whole) for k in kept),
        )
    )


def _stable(pool: StablePool | CurvePool) -> list[Curve]:
    if isinstance(pool, StablePool):
        pairs = zip(pool.scaling, pool.rates, strict=True)
        worth = tuple(Fraction(scaling * rate, _ONE) for scaling, rate in pairs)
        into, out, precision = 1 - Fraction(pool.fee, _ONE), Fraction(1), 1000
    else:
        worth = tuple(Fraction(rate, _ONE) for rate in pool.rates)
        into, out = Fraction(1), 1 - Fraction(pool.fee, 10**10)
        precision = 1 if pool.variant is CurveVariant.PLAIN else 100
    # balances in the invariant's units round down, as the contract's do
    sizes = tuple(
        Fraction(size * unit.numerator // unit.denominator)
        for size, unit in zip(pool.balances, worth, strict=True)
    )
    ann = Fraction(pool.amp * len(pool.coins), precision)
    return _coins(Coins(pool.coins, sizes, worth, into, out, (), ann)) if ann > 0 else []


def _ticks(pool: ConcentratedPool) -> list[Curve]:
    roots = [Fraction(sqrt_price_at(tick), 2**96) for tick in pool.ticks.ticks]
    ranges = list(zip(pool.ticks.active[1:-1], roots, roots[1:], strict=False))
    now = Fraction(pool.sqrt_price_x96, 2**96)
    left = 1 - Fraction(pool.fee_pips, PIPS)
    rising = tuple((d, max(low, now), high) for d, low, high in ranges if d and high > now)
    falling = tuple(
        (d, 1 / min(high, now), 1 / low) for d, low, high in reversed(ranges) if d and low < now
    )
    return [
        Ticks(pool.token1, pool.token0, rising, left),
        Ticks(pool.token0, pool.token1, falling, left),
    ]


def _book(pool: BookPool) -> list[Curve]:
    fee = Fraction(pool.taker_fee_bps, BPS)
    bids = tuple(
        (Fraction(v.lots * pool.lot_size), v.price * (1 - fee) / pool.lot_size) for v in pool.bids
    )
    asks = tuple(
        (v.lots * v.price * (1 + fee), pool.lot_size / (v.price * (1 + fee)))
        for v in pool.asks
        if v.price > 0
    )
    return [Levels(pool.base, pool.quote, bids), Levels(pool.quote, pool.base, asks)]


def _sampled(pool: Pool) -> list[Curve]:
    """Exact swaps at amounts that double from a thousand base units, and their concave majorant."""
    found: list[Curve] = []
    for token_in in pool.tokens:
        for token_out in pool.tokens:
            if token_in != token_out:
                hull: list[tuple[int, int]] = []
                for x, y in _points(pool, token_in, token_out):
                    while len(hull) >= 2:
                        (x0, y0), (x1, y1) = hull[-2:]
                        if (y1 - y0) * (x - x1) > (y - y1) * (x1 - x0):
                            break
                        hull.pop()
                    hull.append((x, y))
                steps = pairwise(hull)
                levels = tuple(
                    (Fraction(x1 - x0), Fraction(y1 - y0, x1 - x0)) for (x0, y0), (x1, y1) in steps
                )
                found.append(Levels(token_in, token_out, levels))
    return found


def _points(pool: Pool, token_in: TokenId, token_out: TokenId) -> list[tuple[int, int]]:
    points, amount = [(0, 0)], _SAMPLE_START
    for _ in range(_SAMPLES):
        step = pool.swap(token_in, token_out, amount, Exact.IN)
        if step.amount_out > points[-1][1] and step.amount_in > points[-1][0]:
            points.append((step.amount_in, step.amount_out))
            if len(points) > 2 and step.amount_out < points[-2][1] * 1.01:
                break
        elif len(points) > 1:
            break
        amount *= 2
    return points


def marginal_rates(curve: Curve) -> list[tuple[TokenId, TokenId, float]]:
    """Output per input of the first units (of each piece), as floats."""
    if isinstance(curve, Levels):
        return [(curve.token_in, curve.token_out, float(rate)) for _, rate in curve.levels]
    if isinstance(curve, Ticks):
        ends = curve.token_in, curve.token_out
        return [(*ends, float(curve.left / (low * low))) for _, low, _ in curve.pieces]
    return [
        (curve.tokens[i], curve.tokens[o], rate)
        for (i, o), rate in zip(_pairs(curve), _slopes(curve), strict=True)
    ]


def _slopes(curve: Coins) -> list[float]:
    """The marginal rate of each ordered pair, base units out per base unit in."""
    if curve.ann:
        product = 1.0
        scale = float(_invariant(curve)[0])
        for size in curve.balances:
            product *= scale / (len(curve.balances) * float(size))
        slope = [float(curve.ann) + scale * product / float(size) for size in curve.balances]
    else:
        pairs = zip(curve.weights, curve.balances, strict=True)
        slope = [float(weight / size) for weight, size in pairs]
    left = float(curve.into * curve.out)
    value = [s * float(unit) for s, unit in zip(slope, curve.worth, strict=True)]
    return [left * value[i] / value[o] for i, o in _pairs(curve)]


def gain(curve: Curve, nu: Price, impact: Fraction | None = None) -> Decimal:
    """Not below max(ν·out − ν·in). ``impact`` caps how far a marginal rate may fall."""
    if isinstance(curve, Levels):
        price_in, price_out = nu[curve.token_in], nu[curve.token_out]
        return total_up(
            up(size * (price_out * rate - price_in))
            for size, rate in curve.levels
            if price_out * rate > price_in
        )
    if isinstance(curve, Ticks):
        return total_up(_pieces(curve, nu[curve.token_in], nu[curve.token_out], impact))
    prices = [nu[token] / unit for token, unit in zip(curve.tokens, curve.worth, strict=True)]
    if impact is None or impact >= 1:
        return _joint(curve, prices)[0]
    rates = {(i, o): rate for (i, o), rate in zip(_pairs(curve), _slopes(curve), strict=True)}
    # with this limit of the operator the program counts each pair of a pool by itself
    return total_up(_capped(curve, prices, impact, pair, rates[pair]) for pair in _pairs(curve))


def _pairs(curve: Coins) -> list[tuple[int, int]]:
    return list(permutations(range(len(curve.tokens)), 2))


def _capped(
    curve: Coins, prices: list[Fraction], impact: Fraction, pair: tuple[int, int], slope: float
) -> Decimal:
    """Selling i for o: ν·out − (ν + μ)·in + μ·capacity for the best μ ≥ 0."""
    i, o = pair
    rate = Fraction(slope) * curve.worth[o] / curve.worth[i]
    least = prices[o] * rate * (1 - impact)
    if prices[i] >= prices[o] * rate * (1 + Fraction(1, 10**9)):
        return Decimal(0)
    dearer = list(prices)
    dearer[i] = max(prices[i], least)
    bound, after = _joint(curve, dearer, pair)
    capacity = max(Fraction(0), after[i] - curve.balances[i]) / curve.into
    charge = (dearer[i] - prices[i]) * capacity * (1 + Fraction(1, 10**14))
    return UP.add(bound, up(charge))


def _pieces(
    curve: Ticks, price_in: Fraction, price_out: Fraction, impact: Fraction | None
) -> list[Decimal]:
    """On a piece the gain h(u) is concave: its tangent near the best u bounds it."""
    found = []
    cost = price_in / curve.left
    ratio = price_out / cost if cost else None
    best = root_down(ratio, 2) if ratio is not None else None
    for depth, low, high in curve.pieces:
        if impact is not None and impact < 1:
            high = min(high, low / root_down(1 - impact, 2))
        if ratio is not None and low * low >= ratio:
            break  # pieces rise in u, and none further on gains
        at = high if best is None else min(max(best, low), high)
        at = Fraction(round(at * 2**400), 2**400)
        slope = depth * (price_out / (at * at) - cost)
        value = depth * (price_out * (1 / low - 1 / at) - cost * (at - low))
        furthest = high - at if slope > 0 else low - at
        found.append(up(value + slope * furthest))
    return found


def _joint(
    curve: Coins, prices: Sequence[Fraction], only: tuple[int, int] | None = None
) -> tuple[Decimal, list[Fraction]]:
    """The bound, and about where the balances end; ``only`` leaves the other coins as they are."""
    traded = range(len(prices)) if only is None else only
    if min(prices[k] for k in traded) == 0:
        kept = (prices[k] * curve.out * curve.balances[k] for k in traded)
        return up(sum(kept, Fraction(0))), list(curve.balances)
    low = [price * curve.out for price in prices]
    high = [price / curve.into for price in prices]
    for k in range(len(prices)):
        if k not in traded:  # any price of it is as good as another
            low[k], high[k] = Fraction(0), max(high) * 10**30
    return (_stable_gain if curve.ann else _weighted_gain)(curve, low, high)


def _weighted_gain(
    curve: Coins, low: list[Fraction], high: list[Fraction]
) -> tuple[Decimal, list[Fraction]]:
    sizes, weights = curve.balances, curve.weights
    free = [weight / size for weight, size in zip(weights, sizes, strict=True)]
    ends = [log(_ratio(c, f)) if c else -inf for c, f in zip(low, free, strict=True)]
    tops = [log(_ratio(c, f)) for c, f in zip(high, free, strict=True)]
    share = [float(weight) for weight in weights]
    below, above = min(e for e in ends if e > -inf), max(tops)
    for _ in range(_HALVINGS):
        middle = 0.5 * (below + above)
        parts = zip(share, ends, tops, strict=True)
        if sum(w * min(max(middle, a), b) for w, a, b in parts) > middle:
            below = middle
        else:
            above = middle
    base = (
        Fraction(1, 1)
        * Fraction(exp(middle - max(tops)))
        * max(c / f for c, f in zip(high, free, strict=True))
    )
    chosen = [min(max(base * f, a), b) for f, a, b in zip(free, low, high, strict=True)]
    worth = [c * size for c, size in zip(chosen, sizes, strict=True)]
    whole = sum(worth, Fraction(0))
    after = [base * weight / c for weight, c in zip(weights, chosen, strict=True)]
    if set(weights) == {Fraction(1, 2)}:
        return up(whole - 2 * root_down(worth[0] * worth[1], 2)), after
    logs = [
        _times_down(weight, ln_down(part / weight))
        for weight, part in zip(weights, worth, strict=True)
    ]
    least = exp_down(-total_up(-value for value in logs))
    return UP.subtract(up(whole), least), after


def _ratio(one: Fraction, two: Fraction) -> float:
    """As a float that neither overflows nor vanishes."""
    ratio = one / two
    shift = ratio.numerator.bit_length() - ratio.denominator.bit_length()
    if abs(shift) > 1000:
        raise Unknown("numbers beyond the range of the search")
    return float(ratio)


def _times_down(weight: Fraction, value: Decimal) -> Decimal:
    exact = weight * Fraction(value)
    return down(exact)


def _power(base: Fraction, exponent: int) -> Fraction:
    return Fraction(base.numerator**exponent, base.denominator**exponent)


def _invariant(curve: Coins) -> tuple[Fraction, Fraction]:
    """D from below and from above."""
    sizes, ann, count = curve.balances, curve.ann, len(curve.balances)
    total = sum(sizes, Fraction(0))
    product = Fraction(1)
    for size in sizes:
        product *= size

    for _ in range(count):
        product *= count

    def excess(d: Fraction) -> Fraction:
        return ann * total + d - ann * d - _power(d, count + 1) / product

    with localcontext(UP) as context:
        context.prec = 60
        d = up(total)
        whole, factor = up(total), up(ann)
        parts = [up(size) for size in sizes]
        for _ in range(255):
            power = d
            for part in parts:
                power = power * d / (count * part)
            numerator = (factor * whole + count * power) * d
            following = numerator / ((factor - 1) * d + (count + 1) * power)
            if abs(following - d) <= d * Decimal("1e-55"):
                break
            d = following
    middle = Fraction(d)
    step = middle / 10**48
    below, above = middle - step, middle + step
    if not excess(below) >= 0 >= excess(above):
        raise Unknown("the invariant of a stable pool was not found")
    return below, above


def _stable_gain(
    curve: Coins, low: list[Fraction], high: list[Fraction]
) -> tuple[Decimal, list[Fraction]]:
    count = len(low)
    least_d, most_d = _invariant(curve)
    d_used = least_d if curve.ann >= 1 else most_d
    rate, level = _stable_search(curve, low, high, least_d)
    lam = 1 / rate
    chosen: list[Fraction] = []
    after: list[Fraction] = []
    for size, a, b in zip(curve.balances, low, high, strict=True):
        c = min(max(lam * (curve.ann + level / size), a), b)
        chosen.append(c)
        excess = rate * c - curve.ann
        after.append(level / excess if excess > 0 else size)
    over = [c - lam * curve.ann for c in chosen]
    whole = sum((c * size for c, size in zip(chosen, curve.balances, strict=True)), Fraction(0))
    if min(over) < 0:
        return up(whole), list(curve.balances)
    product = lam * _power(least_d, count + 1) / count**count
    for part in over:
        product *= part
    least = lam * (curve.ann - 1) * d_used + (count + 1) * root_down(product, count + 1)
    return up(whole - least), after


def _stable_search(
    curve: Coins, low: list[Fraction], high: list[Fraction], invariant: Fraction
) -> tuple[Fraction, Fraction]:
    """1/λ and m = K/Πx at the best trade: bisection in floats, then Newton in decimals.

    In units of D and with 1/λ = t, coin k ends at x_k = m/(t·c_k − Ann): at R_k where a c_k in its
    range allows it, else c_k is the nearest end of the range.
    """
    count, ann = len(low), float(curve.ann)
    unit = max(high)
    lows, highs = [float(a / unit) for a in low], [float(b / unit) for b in high]
    sizes = [float(size / invariant) for size in curve.balances]
    constant = float(count) ** -count

    def ends(t: float, m: float) -> list[float]:
        found = []
        for size, a, b in zip(sizes, lows, highs, strict=True):
            out, into = t * a - ann, t * b - ann
            x = min(size, m / out) if out > 0 else size
            found.append(max(x, m / into) if into > 0 else 1e300)
        return found

    def level(t: float) -> float:
        small, large = -700.0, 50.0
        for _ in range(50):
            middle = 0.5 * (small + large)
            log_sum = middle + sum(log(x) for x in ends(t, exp(middle)) if x > 0)
            small, large = (middle, large) if log_sum < log(constant) else (small, middle)
        return exp(0.5 * (small + large))

    start = ann / min(highs)
    small, large = log(start) - 60.0, log(start) + 140.0
    t = m = 0.0
    for _ in range(55):
        middle = 0.5 * (small + large)
        t = start + exp(middle)
        m = level(t)
        if ann * sum(ends(t, m)) - m > ann - 1.0:
            small = middle
        else:
            large = middle
    fixed: dict[int, Fraction] = {}
    for k, size in enumerate(sizes):
        if t * lows[k] - ann > 0 and m / (t * lows[k] - ann) < size:
            fixed[k] = low[k] / unit
        elif m / max(t * highs[k] - ann, 1e-300) > size:
            fixed[k] = high[k] / unit
    refined = _refine(curve, fixed, invariant, t)
    rate, depth = refined if refined is not None else (Decimal(t), Decimal(m))
    return Fraction(rate) / unit, Fraction(depth) * invariant


def _refine(
    curve: Coins, fixed: Mapping[int, Fraction], invariant: Fraction, start: float
) -> tuple[Decimal, Decimal] | None:
    """t and m to 50 digits where the ends that ``fixed`` names are right; None without them."""
    count, ann = len(curve.balances), up(curve.ann)
    with localcontext(UP) as context:
        context.prec = 60
        still = [up(size / invariant) for k, size in enumerate(curve.balances) if k not in fixed]
        constant = 1 / Decimal(count) ** count
        for size in still:
            constant /= size
        ends = [up(c) for c in fixed.values()]
        t = Decimal(start)
        m = constant
        for _ in range(40):
            over = [t * c - ann for c in ends]
            if ends and min(over) <= 0:
                return None
            product = constant
            for part in over:
                product *= part
            m = (product.ln() / (len(ends) + 1)).exp()
            if not ends:
                return t, m
            into = sum((c / part for c, part in zip(ends, over, strict=True)), Decimal(0))
            turn = into / (len(ends) + 1)
            xs = [m / part for part in over]
            miss = ann * (sum(xs, Decimal(0)) + sum(still, Decimal(0))) - m - (ann - 1)
            bends = (x * (turn - c / part) for x, c, part in zip(xs, ends, over, strict=True))
            bend = ann * sum(bends, Decimal(0)) - m * turn
            if bend == 0:
                return None
            step = miss / bend
            t -= step
            if abs(step) <= abs(t) * Decimal("1e-50"):
                return t, m
    return None
