"""Uniswap v2 pairs and their forks, read many in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from solver.core.abi import encode_call
from solver.core.pools import ConstantProductPool
from solver.core.types import BPS, Call, Exact, Leg, TokenId
from solver.core.venue import Pool, Reader, ReadError, Step
from venues import pool_reader
from venues import settings as read

SWAP_GAS = 80_000
MAX_RESERVE = 2**112 - 1  # a pair reverts above it


class V2Pair(ConstantProductPool, frozen=True, kw_only=True):
    """One pair contract: transfer first, then ``swap``."""

    address: str

    def swap(self, token_in: TokenId, token_out: TokenId, amount: int, exact: Exact) -> Step:
        """As the constant product; saturates where the pair's reserve would overflow."""
        step = super().swap(token_in, token_out, amount, exact)
        room = MAX_RESERVE - (self.reserve0 if token_in == self.token0 else self.reserve1)
        if step.amount_in <= room:
            return step
        return super().swap(token_in, token_out, room, Exact.IN)

    def encode(self, leg: Leg) -> Sequence[Call]:
        """Pay the pair, then take exactly ``leg.amount_out`` to ``leg.receiver``."""
        outputs = (0, leg.amount_out) if leg.token_in == self.token0 else (leg.amount_out, 0)
        pay = encode_call("transfer(address,uint256)", self.address, leg.amount_in)
        take = encode_call("swap(uint256,uint256,address,bytes)", *outputs, leg.receiver, b"")
        return (Call(leg.token_in.address, pay), Call(self.address, take))


class _Facts(Struct, frozen=True):
    """What never changes about a pair."""

    token0: TokenId
    token1: TokenId


class UniswapV2:
    """Options: ``pairs``, or ``factory`` with ``tokens`` or ``max_pairs``; ``fee_bps``, ``gas``.

    With a factory and ``tokens``, the pairs of every two of them; without, all pairs that it lists,
    refused above ``max_pairs``. A pair's tokens are asked once.
    """

    def __init__(self, name: str, chain: int, options: Mapping[str, object]) -> None:
        known = {"pairs", "factory", "tokens", "max_pairs", "fee_bps", "gas"}
        read.refuse_unknown(options, known)
        self.name = name
        self.chain = chain
        self._factory = ""
        self._pairs: tuple[str, ...] = ()
        self._questions: tuple[str, ...] = ()
        if read.exactly_one(options, "pairs", "factory") == "pairs":
            self._pairs = tuple(dict.fromkeys(read.addresses(options, "pairs")))
        else:
            self._factory = read.address(options, "factory")
        if "tokens" in options:
            self._questions = tuple(
                encode_call("getPair(address,address)", *two)
                for two in read.token_pairs(options, "tokens")
            )
        self._max_pairs = read.integer(options, "max_pairs", 1_000, least=1)
        self._fee_bps = read.integer(options, "fee_bps", 30)
        if self._fee_bps >= BPS:
            raise ValueError(f"fee_bps must be below {BPS}")
        self._gas = read.integer(options, "gas", SWAP_GAS)
        self._facts: dict[str, _Facts] = {}

    async def pools(self, reader: Reader) -> Sequence[Pool]:
        """The pairs at the pinned block; a pair without liquidity trades nothing."""
        pairs = await self._listed(reader) if self._factory else self._pairs
        await self._learn(reader, pairs)
        states = await pool_reader.reserves(reader, pairs)
        return [self._pair(address, state) for address, state in zip(pairs, states, strict=True)]

    async def _listed(self, reader: Reader) -> tuple[str, ...]:
        """What the factory lists; asked in every block, since pairs come (and go, in a reorg)."""
        questions = self._questions
        if not questions:
            length = encode_call("allPairsLength()")
            (count,) = await pool_reader.ask_one(reader, self._factory, [length])
            if count is None:
                raise ReadError(f"{self._factory} is no factory: allPairsLength() fails")
            if count > self._max_pairs:
                raise ReadError(
                    f"{self._factory} lists {count} pairs, max_pairs is {self._max_pairs}: "
                    "name tokens or raise it"
                )
            questions = tuple(encode_call("allPairs(uint256)", index) for index in range(count))
        answers = await pool_reader.ask_one(reader, self._factory, questions)
        if None in answers:
            raise ReadError(f"{self._factory} is no factory of pairs")
        return tuple(dict.fromkeys(f"0x{word:040x}" for word in answers if word))

    async def _learn(self, reader: Reader, pairs: Sequence[str]) -> None:
        new = [pair for pair in pairs if pair not in self._facts]
        if not new:
            return
        tokens0 = await pool_reader.ask(reader, new, "token0()")
        tokens1 = await pool_reader.ask(reader, new, "token1()")
        for pair, token0, token1 in zip(new, tokens0, tokens1, strict=True):
            if not token0 or not token1:
                raise ReadError(f"{pair} is no pair: it names no tokens")
            self._facts[pair] = _Facts(
                TokenId(self.chain, f"0x{token0:040x}"), TokenId(self.chain, f"0x{token1:040x}")
            )

    def _pair(self, address: str, state: tuple[int, int] | None) -> V2Pair:
        if state is None:
            raise ReadError(f"{address} is no pair: getReserves() fails")
        return V2Pair(
            id=f"{self.name}:{self.chain}:{address}",
            token0=self._facts[address].token0,
            token1=self._facts[address].token1,
            reserve0=state[0],
            reserve1=state[1],
            fee_num=self._fee_bps,
            fee_den=BPS,
            gas=self._gas,
            address=address,
        )
