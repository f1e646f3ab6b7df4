"""A bridge between two chains: fee, capacity, delay.

What it delivers arrives after the bundle that pays for it, so no bundle can spend it. The quote
prices the solver's inventory on the destination, which is what a bundle spends instead, and
``encode`` sends tokens back to where they are needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from solver.core.abi import decode_answer, encode_call
from solver.core.types import BPS, Call, Exact, Leg, TokenId
from solver.core.venue import Pool, Quote, Reader, Step
from venues import settings as read

SEND_GAS = 90_000


class BridgeRoute(Struct, frozen=True, kw_only=True):
    """One token's way to another chain."""

    id: str
    address: str
    quote: Quote
    gas: int

    @property
    def tokens(self) -> tuple[TokenId, ...]:
        """Source, then destination."""
        return (self.quote.token_in, self.quote.token_out)

    def route(self) -> Quote:
        """The price list."""
        return self.quote

    def swap(self, token_in: TokenId, token_out: TokenId, amount: int, exact: Exact) -> Step:
        """What arrives later: amount − fixedFee − ⌈amount·feeBps/1e4⌉; saturates at capacity."""
        if (token_in, token_out) != self.tokens:
            raise ValueError(f"{self.id} does not carry {token_in} to {token_out}")
        if amount <= 0:
            return Step(0, 0, 0, self)
        amount_in = amount if exact is Exact.IN else self._input_for(amount)
        amount_in = min(amount_in, self.quote.capacity)
        amount_out = self._output(amount_in)
        if amount_out <= 0:
            return Step(0, 0, 0, self)
        after = replace(self, quote=replace(self.quote, capacity=self.quote.capacity - amount_in))
        return Step(amount_in, amount_out, self.gas, after)

    def encode(self, leg: Leg) -> Sequence[Call]:
        """Send to ``leg.receiver`` on the other chain."""
        data = encode_call(
            "send(address,uint256,uint256,address)",
            leg.token_in.address,
            leg.token_out.chain,
            leg.amount_in,
            leg.receiver,
        )
        return (Call(self.address, data, (leg.token_in.address, leg.amount_in)),)

    def _output(self, amount_in: int) -> int:
        fee = -(-amount_in * self.quote.fee_bps // BPS)
        return amount_in - self.quote.fixed_fee - fee

    def _input_for(self, amount_out: int) -> int:
        """The least input that brings at least ``amount_out``."""
        net = amount_out + self.quote.fixed_fee
        guess = -(-net * BPS // (BPS - self.quote.fee_bps))
        while self._output(guess - 1) >= amount_out:
            guess -= 1
        return guess


class Bridge:
    """Options: ``bridge``, ``to_chain``, ``tokens`` (addresses on this chain), ``gas``."""

    def __init__(self, name: str, chain: int, options: Mapping[str, object]) -> None:
        read.refuse_unknown(options, {"bridge", "to_chain", "tokens", "gas"})
        self.name = name
        self.chain = chain
        self._address = read.address(options, "bridge")
        self._to_chain = read.integer(options, "to_chain", 0, least=1)
        self._tokens = read.addresses(options, "tokens")
        self._gas = read.integer(options, "gas", SEND_GAS)

    async def pools(self, reader: Reader) -> Sequence[Pool]:
        """One route per token; a token without a route is left out."""
        calls = [
            (self._address, encode_call("route(address,uint256)", token, self._to_chain))
            for token in self._tokens
        ]
        answers = await reader.call(calls)
        routes = [
            self._route(token, answer) for token, answer in zip(self._tokens, answers, strict=True)
        ]
        return [route for route in routes if route is not None]

    def _route(self, token: str, answer: str) -> BridgeRoute | None:
        target, fixed_fee, fee_bps, capacity, delay = decode_answer(
            ["address", "uint256", "uint256", "uint256", "uint64"], answer
        )
        if int(target, 16) == 0:
            return None
        if fee_bps >= BPS:
            raise ValueError(f"{self._address} states a fee of {fee_bps} bps for {token}")
        return BridgeRoute(
            id=f"{self.name}:{self.chain}:{token}:{self._to_chain}",
            address=self._address,
            quote=Quote(
                TokenId(self.chain, token),
                TokenId(self._to_chain, target),
                fixed_fee,
                fee_bps,
                capacity,
                delay,
            ),
            gas=self._gas,
        )
