"""A small client of HTTP v1: what the command line and the demo speak."""

from __future__ import annotations

from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
from msgspec import Struct
from yarl import URL

from solver.chain import Wallet
from solver.core.intent import cancel_digest, digest_of
from solver.core.types import Rejection
from solver.wire import engine, v1
from solver.wire.errors import Problem, problem
from solver.wire.swap import SwapDocument, swap_to_core

T = TypeVar("T")


class NoAnswer(Exception):
    """The daemon cannot be reached or answered something else than HTTP v1."""


class Refused(Exception):
    """The daemon refused with a problem document."""

    def __init__(self, problem: Problem) -> None:
        pointer = f" at {problem.pointer}" if problem.pointer else ""
        super().__init__(f"{problem.code}{pointer}: {problem.detail}")
        self.problem = problem


class Reply(Struct, frozen=True):
    """Status and body of an answer."""

    status: int
    body: bytes


class Client:
    """Talks to one daemon."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url.rstrip("/")
        self._session = session

    async def request(self, method: str, path: str, body: Any = None) -> Reply:
        """One exchange, whatever its status."""
        data = None if body is None else msgspec.json.encode(body)
        headers = {"content-type": "application/json"} if data is not None else {}
        try:
            async with self._session.request(
                method,
                # As it is: what an id contains must not lead to another path.
                URL(self.url + path, encoded=True),
                data=data,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=30),
            ) as response:
                return Reply(response.status, await response.read())
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise NoAnswer(f"no daemon answers at {self.url}: {error}") from error

    async def ask(self, method: str, path: str, shape: type[T], body: Any = None) -> T:
        """The answer as ``shape``; raises Refused or NoAnswer."""
        reply = await self.request(method, path, body)
        try:
            if reply.status >= 400 and path != "/v1/ready":
                raise Refused(msgspec.json.decode(reply.body, type=Problem))
            return msgspec.json.decode(reply.body, type=shape)
        except msgspec.DecodeError as error:
            raise NoAnswer(f"{self.url} does not speak HTTP v1: {error}") from error

    async def info(self) -> v1.Info:
        """Chains and tokens."""
        return await self.ask("GET", "/v1/info", v1.Info)

    async def intent(self, identity: str) -> v1.IntentView:
        """One intent."""
        return await self.ask("GET", f"/v1/intents/{quote(identity, safe='')}", v1.IntentView)

    async def auction(self, number: str) -> engine.AuctionView:
        """What was offered in an auction of CoW Protocol; ``quote`` for the quotes."""
        reply = await self.request("GET", f"/cow/auctions/{quote(number, safe='')}")
        try:
            if reply.status == 200:
                return msgspec.json.decode(reply.body, type=engine.AuctionView)
            error = msgspec.json.decode(reply.body, type=engine.ErrorAnswer).error
        except msgspec.DecodeError as unreadable:
            raise NoAnswer(f"{self.url} does not speak CoW: {unreadable}") from unreadable
        code, _, detail = error.message.partition(": ")
        raise Refused(problem(Rejection(code, detail)))

    async def draft(self, draft: v1.Draft) -> v1.TypedData:
        """A completed draft with its id."""
        return await self.ask("POST", "/v1/typed-data", v1.TypedData, draft)

    async def submit(self, document: SwapDocument, wallet: Wallet) -> v1.IntentView:
        """Sign and submit."""
        signed = await self.signed(document, wallet)
        return await self.ask("POST", "/v1/intents", v1.IntentView, signed)

    async def signed(self, document: SwapDocument, wallet: Wallet) -> v1.SubmitRequest:
        """The request with the wallet's signature over our own digest, not over a served one."""
        swap = swap_to_core(document)
        if isinstance(swap, Rejection):
            raise NoAnswer(f"{swap.pointer}: {swap.detail}")
        digest = digest_of(swap, await self._settlement(swap.sell_chain))
        signature = wallet.sign_digest(bytes.fromhex(digest[2:]))
        return v1.SubmitRequest(document, "0x" + signature.hex())

    async def cancel(self, view: v1.IntentView, wallet: Wallet) -> v1.IntentView:
        """Sign and send a cancellation."""
        chain = view.swap.sell_chain
        digest = cancel_digest(view.id, chain, await self._settlement(chain))
        signature = "0x" + wallet.sign_digest(digest).hex()
        return await self.ask(
            "POST",
            f"/v1/intents/{quote(view.id, safe='')}/cancel",
            v1.IntentView,
            v1.CancelRequest(signature),
        )

    async def _settlement(self, chain: int) -> str:
        for entry in (await self.info()).chains:
            if entry.chain == chain:
                return entry.settlement
        raise NoAnswer(f"{self.url} does not serve chain {chain}")
