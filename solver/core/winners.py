"""Winner selection: which of several solutions to one auction are carried out.

The mechanism of CoW Protocol (a combinatorial auction with uniform directional prices):

1. A *trade* scores its surplus over the limit plus the protocol fees in it, in the bought token,
   turned into native token at the auction's prices. A *solution* scores the sum, and the sum per
   directed pair.
2. *Fairness*: a solution with several directed pairs is dropped when a solution with only one of
   them scores more on it. Nobody is to pay for being batched with others.
3. *Winners*: from the best score down, each solution that trades no directed pair of a winner
   before it, at most ``max_winners``.
4. The *reference score* of a winning solver is what the winners score when they are picked again,
   in the order of the ranking, without that solver's solutions.

Scores are integers in wei and rounded down. The ranking is a function of what the solutions hold:
equal scores go by a hash of the content, without the solver's name and the id, under a seed that
nobody knew in time; only equal contents go by the hash of solver and id.

A greedy pick is not the best set, so a reference score may exceed the score of the winners.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

from solver.core.crypto import keccak
from solver.core.fees import Execution, FeePolicy, Unscorable, charged
from solver.core.types import UINT256_MAX, Kind

PRICE_UNIT = 10**18
MAX_WINNERS = 10

_Pair = tuple[str, str]


class Order(Struct, frozen=True):
    """A signed order: the limit of the whole in base units, and the policies of its fees."""

    kind: Kind
    sell_token: str
    buy_token: str
    sell_amount: int
    buy_amount: int
    policies: tuple[FeePolicy, ...] = ()
    owner: str = ""


class Trade(Struct, frozen=True):
    """What left and reached the owner of an order, all fees taken; base units."""

    order: str
    sell: int
    buy: int


class Bid(Struct, frozen=True):
    """A solution that a solver stands for. ``own_orders`` are orders that it brings itself."""

    solver: str
    id: str
    trades: tuple[Trade, ...]
    own_orders: Mapping[str, Order] = {}


class Auction(Struct, frozen=True):
    """What every solution is measured with.

    ``prices`` are wei per 10^18 base units of a token. ``aliases`` name tokens that are the same to
    a clearing price, such as the native token and its wrapped form. An order that a solution brings
    itself scores only if its owner is one of ``surplus_owners``.
    """

    orders: Mapping[str, Order]
    prices: Mapping[str, int]
    aliases: Mapping[str, str] = {}
    surplus_owners: frozenset[str] = frozenset()
    max_winners: int = MAX_WINNERS
    seed: bytes = b""


class Standing(str, Enum):
    """What became of a solution."""

    WINNER = "winner"
    LOSER = "loser"
    UNFAIR = "unfair"
    INVALID = "invalid"


class Ranked(Struct, frozen=True):
    """A solution with its score in wei, in all and per directed pair, and why it did not win.

    ``covers`` are the directed pairs that no other winner may trade: aliases resolved, and with
    those of orders that do not score.
    """

    bid: Bid
    standing: Standing
    score: int = 0
    pairs: Mapping[_Pair, int] = {}
    covers: frozenset[_Pair] = frozenset()
    reason: str = ""


class Ranking(Struct, frozen=True):
    """All solutions: winners, losers, unfair ones, invalid ones, each best first.

    ``reference_scores`` has an entry, in wei, for every solver that won something.
    """

    solutions: tuple[Ranked, ...]
    reference_scores: Mapping[str, int]

    def having(self, *standings: Standing) -> list[Ranked]:
        """The solutions with one of these standings, in order."""
        return [ranked for ranked in self.solutions if ranked.standing in standings]

    @property
    def winners(self) -> list[Ranked]:
        """The solutions to carry out, best first."""
        return self.having(Standing.WINNER)

    @property
    def fair(self) -> list[Ranked]:
        """What passed the fairness filter: winners first, then by score."""
        return self.having(Standing.WINNER, Standing.LOSER)


def score(order: Order, trade: Trade, price: int) -> int:
    """Surplus and protocol fees of a trade in wei, at ``price`` wei per 10^18 of the bought token.

    The surplus of an exact-out order is in the sold token and becomes bought token at the order's
    own limit rate, not at market prices, so that a limit far from the market gains nothing.
    ⌊⌊surplus·buy_amount/sell_amount⌋·price/10^18⌋, at most 2²⁵⁶ − 1. Raises Unscorable where the
    trade is below its limit or trades nothing, ValueError where an amount is none.
    """
    execution = Execution(order.kind, order.sell_amount, order.buy_amount, trade.sell, trade.buy)
    exact_in = order.kind is Kind.EXACT_IN
    if not (trade.sell if exact_in else trade.buy):
        raise Unscorable(f"{trade.order} trades nothing")
    if execution.surplus < 0:
        raise Unscorable(f"{trade.order} is worse than its limit")
    gained = execution.surplus + sum(charged(execution, order.policies))
    if not exact_in:
        gained = gained * order.buy_amount // order.sell_amount
    return min(gained * price // PRICE_UNIT, UINT256_MAX)


def select(auction: Auction, bids: Iterable[Bid]) -> Ranking:
    """Rank the solutions and pick the winners; the order of ``bids`` does not matter.

    Raises ValueError for two solutions of one solver with the same id.
    """
    ordered = sorted(bids, key=lambda bid: _tie(auction.seed, bid))
    names = [(bid.solver, bid.id) for bid in ordered]
    if len(set(names)) != len(names):
        raise ValueError("two solutions of one solver have the same id")
    scored, invalid = [], []
    for bid in ordered:
        try:
            pairs = _pair_scores(auction, bid)
        except ValueError as error:
            invalid.append(Ranked(bid, Standing.INVALID, reason=str(error)))
        else:
            total = min(sum(pairs.values()), UINT256_MAX)
            # A standing until the pick below has been made.
            covers = directed_pairs(auction, bid)
            scored.append(Ranked(bid, Standing.LOSER, total, pairs, covers))
    scored.sort(key=lambda ranked: -ranked.score)
    fair, unfair = _partition(scored)
    winners, losers = _pick(auction, fair)
    return Ranking(
        (*winners, *losers, *unfair, *invalid),
        {
            solver: _reference_score(auction, [*winners, *losers], solver)
            for solver in dict.fromkeys(winner.bid.solver for winner in winners)
        },
    )


def directed_pairs(auction: Auction, bid: Bid) -> frozenset[_Pair]:
    """The directed pairs that a solution trades, those of its own orders included.

    Raises ValueError for a trade of an unknown order.
    """
    alias = auction.aliases
    pairs = set()
    for trade in bid.trades:
        order, _ = _order(auction, bid, trade)
        pairs.add(
            (
                alias.get(order.sell_token, order.sell_token),
                alias.get(order.buy_token, order.buy_token),
            )
        )
    return frozenset(pairs)


def content_hash(bid: Bid, seed: bytes = b"") -> bytes:
    """A hash of what a solution does, whoever sent it and under whatever id."""
    lines = [f"{trade.order} {trade.sell} {trade.buy}" for trade in bid.trades]
    lines += [
        f"{name} {order.kind.value} {order.sell_token} {order.buy_token}"
        f" {order.sell_amount} {order.buy_amount} {order.owner}"
        for name, order in bid.own_orders.items()
    ]
    return keccak(seed + keccak("\n".join(sorted(lines)).encode("utf-8", "surrogatepass")))


def _tie(seed: bytes, bid: Bid) -> tuple[bytes, bytes]:
    name = f"{bid.solver}\n{bid.id}".encode("utf-8", "surrogatepass")
    return content_hash(bid, seed), keccak(seed + keccak(name))


def _order(auction: Auction, bid: Bid, trade: Trade) -> tuple[Order, bool]:
    """The order of a trade and whether it counts towards the score."""
    known = auction.orders.get(trade.order)
    if known is not None:
        return known, True
    own = bid.own_orders.get(trade.order)
    if own is None:
        raise ValueError(f"no order {trade.order}")
    return own, own.owner in auction.surplus_owners


def _pair_scores(auction: Auction, bid: Bid) -> dict[_Pair, int]:
    """The score of each directed pair; raises ValueError where there is none to be compared."""
    scores: dict[_Pair, int] = {}
    if len({trade.order for trade in bid.trades}) != len(bid.trades):
        raise ValueError("an order is traded twice")
    for trade in bid.trades:
        order, counts = _order(auction, bid, trade)
        if not counts:
            continue
        price = auction.prices.get(order.buy_token)
        if price is None:
            raise ValueError(f"no price of {order.buy_token}")
        pair = order.sell_token, order.buy_token
        scores[pair] = min(scores.get(pair, 0) + score(order, trade, price), UINT256_MAX)
    if not scores:
        raise ValueError("it trades no order that counts")
    return scores


def _partition(scored: Sequence[Ranked]) -> tuple[list[Ranked], list[Ranked]]:
    """The fair solutions and the others. A solution with one pair is always fair."""
    best: dict[_Pair, Ranked] = {}
    for ranked in scored:
        if len(ranked.pairs) == 1:
            # The best comes first.
            best.setdefault(next(iter(ranked.pairs)), ranked)
    fair, unfair = [], []
    for ranked in scored:
        better = [
            (pair, best[pair])
            for pair, own in sorted(ranked.pairs.items())
            if len(ranked.pairs) > 1 and pair in best and own < best[pair].score
        ]
        if better:
            pair, other = better[0]
            reason = (
                f"{other.bid.solver} {other.bid.id} scores {other.score} on {pair[0]}>{pair[1]}"
                f" alone, this solution {ranked.pairs[pair]}"
            )
            unfair.append(replace(ranked, standing=Standing.UNFAIR, reason=reason))
        else:
            fair.append(ranked)
    return fair, unfair


def _pick(auction: Auction, ranked: Sequence[Ranked]) -> tuple[list[Ranked], list[Ranked]]:
    """Winners and losers, each in the given order: none of the winners shares a directed pair."""
    taken: dict[_Pair, Ranked] = {}
    winners: list[Ranked] = []
    losers: list[Ranked] = []
    for candidate in ranked:
        held = min((pair for pair in candidate.covers if pair in taken), default=None)
        if held is not None:
            other = taken[held].bid
            reason = f"{held[0]}>{held[1]} goes to {other.solver} {other.id}"
            losers.append(replace(candidate, standing=Standing.LOSER, reason=reason))
        elif len(winners) >= auction.max_winners:
            reason = f"there are {auction.max_winners} winners already"
            losers.append(replace(candidate, standing=Standing.LOSER, reason=reason))
        else:
            winners.append(replace(candidate, standing=Standing.WINNER))
            taken.update(dict.fromkeys(candidate.covers, candidate))
    return winners, losers


def _reference_score(auction: Auction, ranked: Sequence[Ranked], solver: str) -> int:
    others = [candidate for candidate in ranked if candidate.bid.solver != solver]
    winners, _ = _pick(auction, others)
    return min(sum(winner.score for winner in winners), UINT256_MAX)
