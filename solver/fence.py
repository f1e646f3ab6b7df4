"""A fence around third-party code: a thread of its own, a budget, and no way to end the daemon.

What runs inside may sleep without awaiting, loop for ever or call ``sys.exit``; the daemon's own
event loop goes on, and the caller has its answer when the budget is over.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import ctypes
import threading
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from solver.core.venue import described

T = TypeVar("T")


class Fenced(Exception):
    """What was called failed or took too long; the message is the reason."""


class _Stop(BaseException):
    """Thrown into a thread that loops."""


class Fence(Generic[T]):
    """One thread with an event loop that lasts, because an adapter's own client is bound to it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[T | Fenced] | None = None
        self._is_busy = False
        self._is_closed = False

    async def run(self, work: Callable[[], Awaitable[T]], seconds: float) -> T:
        """What ``work`` answers within its time. Raises Fenced.

        Work that overran and does not end keeps its thread; nothing else is begun until it has.
        """
        if self._is_busy:
            self._interrupt()
            raise Fenced("is still busy with an earlier question")
        loop = self._ensure()
        answer: concurrent.futures.Future[T | Fenced] = concurrent.futures.Future()
        self._is_busy = True
        loop.call_soon_threadsafe(self._begin, work, answer)
        try:
            async with asyncio.timeout(seconds):
                outcome = await asyncio.shield(asyncio.wrap_future(answer))
        except TimeoutError:
            loop.call_soon_threadsafe(self._give_up)
            raise Fenced(f"no answer within {seconds:g} s") from None
        except asyncio.CancelledError:
            loop.call_soon_threadsafe(self._give_up)
            raise
        if isinstance(outcome, Fenced):
            raise outcome
        return outcome

    def close(self) -> None:
        """Let the thread end; one that is stuck ends with the process."""
        self._is_closed = True
        if self._loop is not None and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):  # it may close between the two
                self._loop.call_soon_threadsafe(self._loop.stop)

    def _ensure(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            # A daemon thread: a stuck adapter must not keep the process from ending.
            self._thread = threading.Thread(
                target=self._serve, args=(self._loop,), name=self._name, daemon=True
            )
            self._thread.start()
        return self._loop

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        while not self._is_closed:
            with contextlib.suppress(_Stop):
                loop.run_forever()
        loop.close()

    def _begin(
        self,
        work: Callable[[], Awaitable[T]],
        answer: concurrent.futures.Future[T | Fenced],
    ) -> None:
        def ended(task: asyncio.Task[T | Fenced]) -> None:
            self._task, self._is_busy = None, False
            # Always a result: nobody reads the answer of what overran.
            failed = task.cancelled() or task.exception() is not None
            answer.set_result(Fenced("was stopped") if failed else task.result())

        self._task = asyncio.get_running_loop().create_task(_caught(work))
        self._task.add_done_callback(ended)

    def _give_up(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _interrupt(self) -> None:
        """Raise in the thread: it ends a loop in Python, and waits for a call into C to return."""
        if self._thread is not None and self._thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self._thread.ident), ctypes.py_object(_Stop)
            )


async def _caught(work: Callable[[], Awaitable[T]]) -> T | Fenced:
    try:
        return await work()
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # whatever it raises, SystemExit too, is its operator's to see
        return Fenced(described(error))
