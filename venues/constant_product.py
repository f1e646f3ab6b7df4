"""Constant-product pairs with the interface of Uniswap v2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from solver.core.abi import decode_answer, encode_call
from solver.core.pools import ConstantProductPool
from solver.core.types import BPS, Call, Leg, TokenId
from solver.core.venue import Pool, Reader
from venues import settings as read

SWAP_GAS = 75_000


class Pair(ConstantProductPool, frozen=True, kw_only=True):
    """One pair contract: transfer first, then ``swap``."""

    address: str

    def encode(self, leg: Leg) -> Sequence[Call]:
        """Pay the pair, then take exactly ``leg.amount_out`` to ``leg.receiver``."""
        forward = leg.token_in == self.token0
        outputs = (0, leg.amount_out) if forward else (leg.amount_out, 0)
        return (
            Call(
                leg.token_in.address,
                encode_call("transfer(address,uint256)", self.address, leg.amount_in),
            ),
            Call(
                self.address,
                encode_call("swap(uint256,uint256,address)", *outputs, leg.receiver),
            ),
        )


class ConstantProduct:
    """Options: ``pairs``, ``fee_bps`` (asked from the contract when absent), ``gas``."""

    def __init__(self, name: str, chain: int, options: Mapping[str, object]) -> None:
        read.refuse_unknown(options, {"pairs", "fee_bps", "gas"})
        self.name = name
        self.chain = chain
        self._pairs = read.addresses(options, "pairs")
        self._fee_bps = read.integer(options, "fee_bps", -1, least=-1)
        self._gas = read.integer(options, "gas", SWAP_GAS)

    async def pools(self, reader: Reader) -> Sequence[Pool]:
        """All pairs, read in one batch."""
        questions = ["token0()", "token1()", "getReserves()"]
        if self._fee_bps < 0:
            questions.append("feeBps()")
        calls = [(pair, encode_call(name)) for pair in self._pairs for name in questions]
        answers = await reader.call(calls)
        width = len(questions)
        return [
            self._pair(pair, answers[index * width : (index + 1) * width])
            for index, pair in enumerate(self._pairs)
        ]

    def _pair(self, address: str, answers: Sequence[str]) -> Pair:
        (token0,) = decode_answer(["address"], answers[0])
        (token1,) = decode_answer(["address"], answers[1])
        reserve0, reserve1, _ = decode_answer(["uint112", "uint112", "uint32"], answers[2])
        fee_bps = self._fee_bps
        if fee_bps < 0:
            (fee_bps,) = decode_answer(["uint256"], answers[3])
        if fee_bps >= BPS:
            raise ValueError(f"{address} states a fee of {fee_bps} bps")
        return Pair(
            id=f"{self.name}:{self.chain}:{address}",
            token0=TokenId(self.chain, token0),
            token1=TokenId(self.chain, token1),
            reserve0=reserve0,
            reserve1=reserve1,
            fee_num=fee_bps,
            fee_den=BPS,
            gas=self._gas,
            address=address,
        )
