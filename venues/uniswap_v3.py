"""Uniswap v3 pools, read with their ticks, many in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from solver.core.abi import encode_call
from solver.core.pools import ConcentratedPool, TickMap
from solver.core.types import Call, Leg, TokenId
from solver.core.venue import Pool, Reader, ReadError
from venues import pool_reader
from venues import settings as read
from venues.pool_reader import RawPool

SWAP_GAS = 130_000
TICK_GAS = 30_000
FEES = (100, 500, 3_000, 10_000)
WORDS = 2
_WORD = 256


class V3Pool(ConcentratedPool, frozen=True, kw_only=True):
    """One pool contract, called through a V3Swapper, which answers the pool's callback."""

    address: str
    swapper: str

    def encode(self, leg: Leg) -> Sequence[Call]:
        """Sell exactly ``leg.amount_in`` for at least ``leg.amount_out``, to ``leg.receiver``."""
        data = encode_call(
            "swap(address,address,address,uint256,uint256,address)",
            self.address,
            leg.token_in.address,
            leg.token_out.address,
            leg.amount_in,
            leg.amount_out,
            leg.receiver,
        )
        return (Call(self.swapper, data, (leg.token_in.address, leg.amount_in)),)


class _Facts(Struct, frozen=True):
    """What never changes about a pool."""

    token0: TokenId
    token1: TokenId
    fee_pips: int
    spacing: int


class UniswapV3:
    """Options: ``swapper``; ``pools``, or ``factory`` with ``tokens`` and ``fees``; ``words``, gas.

    With a factory, the pools of every two ``tokens`` in each of ``fees`` (millionths).
    ``words`` is how many words of the tick bitmap, 256 usable ticks each, are read on each side of
    the price; liquidity further away is left out, so that a swap saturates there. ``gas`` is that
    of a swap, ``gas_per_tick`` of each initialised tick that it crosses.
    """

    def __init__(self, name: str, chain: int, options: Mapping[str, object]) -> None:
        known = {"swapper", "pools", "factory", "tokens", "fees", "words", "gas", "gas_per_tick"}
        read.refuse_unknown(options, known)
        self.name = name
        self.chain = chain
        self._swapper = read.address(options, "swapper")
        self._factory = ""
        self._pools: tuple[str, ...] = ()
        self._questions: tuple[str, ...] = ()
        if read.exactly_one(options, "pools", "factory") == "pools":
            self._pools = tuple(dict.fromkeys(read.addresses(options, "pools")))
        else:
            self._factory = read.address(options, "factory")
            self._questions = tuple(
                encode_call("getPool(address,address,uint24)", *two, fee)
                for two in read.token_pairs(options, "tokens")
                for fee in read.integers(options, "fees", FEES)
            )
        self._words = read.integer(options, "words", WORDS)
        self._gas = read.integer(options, "gas", SWAP_GAS)
        self._gas_per_tick = read.integer(options, "gas_per_tick", TICK_GAS)
        self._facts: dict[str, _Facts] = {}
        self._maps: dict[str, tuple[tuple[int, int, bytes], TickMap]] = {}

    async def pools(self, reader: Reader) -> Sequence[Pool]:
        """The pools at the pinned block; one without a price yet is left out."""
        addresses = await self._listed(reader) if self._factory else self._pools
        await self._learn(reader, addresses)
        states = await pool_reader.concentrated(reader, addresses, self._words)
        found = []
        for address, state in zip(addresses, states, strict=True):
            if state is None:
                raise ReadError(f"{address} is no Uniswap v3 pool")
            if state.sqrt_price_x96:
                found.append(self._pool(address, state))
        return found

    async def _listed(self, reader: Reader) -> tuple[str, ...]:
        """What the factory has; asked in every block, since pools come (and go, in a reorg)."""
        answers = await pool_reader.ask_one(reader, self._factory, self._questions)
        if None in answers:
            raise ReadError(f"{self._factory} is no factory: getPool() fails")
        return tuple(dict.fromkeys(f"0x{word:040x}" for word in answers if word))

    async def _learn(self, reader: Reader, addresses: Sequence[str]) -> None:
        new = [address for address in addresses if address not in self._facts]
        if not new:
            return
        names = ("token0()", "token1()", "fee()", "tickSpacing()")
        columns = [await pool_reader.ask(reader, new, name) for name in names]
        for address, token0, token1, fee, spacing in zip(new, *columns, strict=True):
            if not token0 or not token1 or fee is None or not spacing:
                raise ReadError(f"{address} is no Uniswap v3 pool")
            self._facts[address] = _Facts(
                TokenId(self.chain, f"0x{token0:040x}"),
                TokenId(self.chain, f"0x{token1:040x}"),
                fee,
                spacing,
            )

    def _pool(self, address: str, state: RawPool) -> V3Pool:
        facts = self._facts[address]
        return V3Pool(
            id=f"{self.name}:{self.chain}:{address}",
            token0=facts.token0,
            token1=facts.token1,
            fee_pips=facts.fee_pips,
            tick_spacing=facts.spacing,
            sqrt_price_x96=state.sqrt_price_x96,
            tick=state.tick,
            liquidity=state.liquidity,
            ticks=self._ticks(address, state, facts.spacing),
            gas=self._gas,
            gas_per_tick=self._gas_per_tick,
            address=address,
            swapper=self._swapper,
        )

    def _ticks(self, address: str, state: RawPool, spacing: int) -> TickMap:
        """The ticks of the window, closed at its ends; the last map again where nothing changed.

        The ends are the first places of bitmap words, so that the stops inside, and with them the
        roundings, are the contract's. One map for all blocks shares its tables.
        """
        nets = state.nets()
        below = state.liquidity - sum(net for tick, net in nets.items() if tick <= state.tick)
        first = (state.tick // spacing // _WORD) - self._words
        key = (first, below, state.raw_ticks)
        known = self._maps.get(address)
        if known is not None and known[0] == key:
            return known[1]
        above = below + sum(nets.values())
        if below:
            low = first * _WORD * spacing
            nets[low] = nets.get(low, 0) + below
        if above:
            high = (first + 2 * self._words + 1) * _WORD * spacing
            nets[high] = nets.get(high, 0) - above
        ticks = TickMap.of(nets, spacing)
        self._maps[address] = (key, ticks)
        return ticks
