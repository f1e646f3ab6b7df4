"""The conformance kit: what every adapter's pools must do, checked on seeded random amounts.

An adapter's test needs one line: ``pools = await check_venue(venue, reader)``. A broken rule raises
:class:`Nonconformance`, which names the rule and the amounts.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Mapping, Sequence
from itertools import permutations

from solver.core import curves, kernels
from solver.core.pools import NotExecutable
from solver.core.types import Exact, Leg, TokenId
from solver.core.venue import (
    Arc,
    BlockRef,
    DeclaresArcs,
    EventLog,
    Pool,
    ReadError,
    StatesRoutes,
    Step,
    Venue,
)

_RELATIVE_ROOM = 1e-9  # floats declare arcs, integers execute them
_RECEIVER = "0x" + "77" * 20


class Nonconformance(AssertionError):
    """A pool broke a rule of the protocol."""


class FixedReader:
    """A reader that answers from a table, so that an adapter is tested without a chain."""

    def __init__(
        self,
        answers: Mapping[tuple[str, str], str],
        logs: Sequence[EventLog] = (),
        block: BlockRef | None = None,
    ) -> None:
        self.block = block or BlockRef(31337, 1, "0x" + "01" * 32, 1_700_000_000)
        self._answers = {
            (to.lower(), data.lower()): answer for (to, data), answer in answers.items()
        }
        self._logs = list(logs)

    async def call(
        self, calls: Sequence[tuple[str, str]], code: Mapping[str, str] | None = None
    ) -> list[str]:
        """The answers of the table; a call that is not in it fails as it would on chain.

        Answers of a helper that the adapter puts in place with ``code`` belong into the table too.
        """
        for target, data in calls:
            if (target.lower(), data.lower()) not in self._answers:
                raise ReadError(f"{target}: execution reverted ({data[:10]})")
        return [self._answers[target.lower(), data.lower()] for target, data in calls]

    async def logs(self, address: str, topic: str, from_block: int) -> list[EventLog]:
        """The given events of a contract."""
        return [
            log
            for log in self._logs
            if log.address == address.lower() and log.topics[0] == topic and log.block >= from_block
        ]


async def check_venue(venue: Venue, reader: FixedReader, seed: int = 0) -> list[Pool]:
    """Read the venue twice and check every pool; returns the pools."""
    pools = list(await venue.pools(reader))
    _must(bool(pools), f"{venue.name}: no pools to check")
    again = list(await venue.pools(reader))
    _must(pools == again, f"{venue.name}: two readings of one block differ")
    _must(len({pool.id for pool in pools}) == len(pools), f"{venue.name}: a pool id occurs twice")
    for pool in pools:
        if not isinstance(pool, StatesRoutes):
            chains = {token.chain for token in pool.tokens}
            _must(chains == {venue.chain}, f"{pool.id}: tokens of chains {chains}")
        check_pool(pool, seed)
    return pools


def check_pool(pool: Pool, seed: int = 0, samples: int = 64) -> None:
    """Check one pool in every direction on ``samples`` amounts, small and huge ones among them."""
    chance = random.Random(f"{seed}{pool.id}")
    _must(len(set(pool.tokens)) >= 2, f"{pool.id}: fewer than two tokens")
    _check_pickle(pool)
    directions = [ends for ends in permutations(pool.tokens, 2) if _trades(pool, *ends)]
    _must(bool(directions), f"{pool.id}: trades in no direction")
    for token_in, token_out in directions:
        amounts = sorted({int(2 ** chance.uniform(0, 110)) for _ in range(samples)})
        one_way = (token_out, token_in) not in directions
        _check_direction(pool, token_in, token_out, amounts, one_way)
    if isinstance(pool, DeclaresArcs):
        _must(list(pool.arcs()) == list(pool.arcs()), f"{pool.id}: arcs differ from call to call")


def _check_pickle(pool: Pool) -> None:
    """The solver is another process: a pool must get there."""
    try:
        copy = pickle.loads(pickle.dumps(pool, protocol=5))
    except Exception as error:
        raise Nonconformance(f"{pool.id}: has no pickle: {error}") from error
    _must(copy.id == pool.id, f"{pool.id}: its pickle is another pool")


def _trades(pool: Pool, token_in: TokenId, token_out: TokenId) -> bool:
    """Whether a pool trades in this direction; one that does not raises ValueError."""
    try:
        pool.swap(token_in, token_out, 0, Exact.IN)
    except ValueError:
        return False
    return True


def _check_direction(
    pool: Pool, token_in: TokenId, token_out: TokenId, amounts: Sequence[int], one_way: bool
) -> None:
    zero = pool.swap(token_in, token_out, 0, Exact.IN)
    _must((zero.amount_in, zero.amount_out) == (0, 0), f"{pool.id}: nothing in gives {zero}")
    last = zero
    for amount in amounts:
        step = pool.swap(token_in, token_out, amount, Exact.IN)
        _check_step(pool, token_in, token_out, amount, step, Exact.IN)
        _must(
            step.amount_out >= last.amount_out and step.amount_in >= last.amount_in,
            f"{pool.id}: {amount} in gives {step.amount_out}, less in gave {last.amount_out}",
        )
        last = step
        _check_arcs(pool, token_in, token_out, step)
        _check_exact_out(pool, token_in, token_out, step)
        if not one_way:
            _check_round_trip(pool, token_in, token_out, step)
        _check_calls(pool, token_in, token_out, step)


def _check_step(
    pool: Pool, token_in: TokenId, token_out: TokenId, amount: int, step: Step, exact: Exact
) -> None:
    twice = pool.swap(token_in, token_out, amount, exact)
    same = (step.amount_in, step.amount_out, step.gas) == (
        twice.amount_in,
        twice.amount_out,
        twice.gas,
    )
    _must(same, f"{pool.id}: swap is not pure: {amount} gave {step}, then {twice}")
    whole = all(type(value) is int for value in (step.amount_in, step.amount_out, step.gas))
    _must(whole, f"{pool.id}: an amount is no integer: {step}")
    _must(min(step.amount_in, step.amount_out, step.gas) >= 0, f"{pool.id}: below zero: {step}")
    given = step.amount_in if exact is Exact.IN else step.amount_out
    _must(given <= amount, f"{pool.id}: asked for {amount}, moved {given}")
    _must(
        step.next_pool.id == pool.id and step.next_pool.tokens == pool.tokens,
        f"{pool.id}: the pool after a swap is another pool",
    )


def _check_exact_out(pool: Pool, token_in: TokenId, token_out: TokenId, step: Step) -> None:
    """What an input bought can be asked for by name, and costs no more than that input.

    One unit more is allowed, some contracts round an input up even where it divides; and more where
    it buys no second unit: concentrated liquidity goes to the end of a step whose output rounds
    down to what is asked.
    """
    if step.amount_out == 0:
        return
    back = pool.swap(token_in, token_out, step.amount_out, Exact.OUT)
    _check_step(pool, token_in, token_out, step.amount_out, back, Exact.OUT)
    again = pool.swap(token_in, token_out, back.amount_in, Exact.IN)
    _must(
        back.amount_in <= step.amount_in + 1 or again.amount_out <= back.amount_out + 1,
        f"{pool.id}: {step.amount_out} out costs {back.amount_in}, {step.amount_in} buy as much",
    )
    _must(
        again.amount_out >= back.amount_out,
        f"{pool.id}: {back.amount_in} in should bring {back.amount_out}, brings {again.amount_out}",
    )


def _check_round_trip(pool: Pool, token_in: TokenId, token_out: TokenId, step: Step) -> None:
    back = step.next_pool.swap(token_out, token_in, step.amount_out, Exact.IN)
    _must(
        back.amount_out <= step.amount_in,
        f"{pool.id}: {step.amount_in} there and back gives {back.amount_out}",
    )


def _check_arcs(pool: Pool, token_in: TokenId, token_out: TokenId, step: Step) -> None:
    """Declared arcs are an outer bound: no swap gives more than they say."""
    if not isinstance(pool, DeclaresArcs):
        return
    most = sum(
        _output(arc, step.amount_in)
        for arc in pool.arcs()
        if (arc.token_in, arc.token_out) == (token_in, token_out)
    )
    _must(
        step.amount_out <= most * (1.0 + _RELATIVE_ROOM) + 1.0,
        f"{pool.id}: {step.amount_in} in gives {step.amount_out}, the arcs allow {most}",
    )


def _output(arc: Arc, amount: float) -> float:
    given, left = 0.0, float(amount)
    rows = curves.levels(arc)
    kind, par, capacity = curves.packed(rows)
    for k in range(len(rows)):
        used = min(left, float(capacity[k]))
        given += kernels.level_output(kind[k], par[k], used)
        left -= used
    return given


def _check_calls(pool: Pool, token_in: TokenId, token_out: TokenId, step: Step) -> None:
    if step.amount_in == 0 or step.amount_out == 0:
        return
    leg = Leg(pool.id, token_in, token_out, step.amount_in, step.amount_out, step.gas, _RECEIVER)
    try:
        calls = pool.encode(leg)
    except NotExecutable:
        return
    _must(bool(calls), f"{pool.id}: encode gives no call")
    for call in calls:
        _must(_is_hex(call.target, 40), f"{pool.id}: {call.target!r} is not an address")
        _must(_is_hex(call.data), f"{pool.id}: calldata {call.data[:20]!r}… is not hex")
        if call.approve is not None:
            token, amount = call.approve
            _must(
                token == token_in.address and amount <= step.amount_in,
                f"{pool.id}: approves {amount} of {token}, the leg is {step.amount_in}",
            )


def _is_hex(text: str, digits: int | None = None) -> bool:
    body = text[2:]
    return (
        text.startswith("0x")
        and all(digit in "0123456789abcdef" for digit in body)
        and (len(body) == digits if digits else len(body) >= 8 and len(body) % 2 == 0)
    )


def _must(holds: bool, message: str) -> None:
    if not holds:
        raise Nonconformance(message)
