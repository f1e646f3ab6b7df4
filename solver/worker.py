"""The solver in a process of its own, killed and started again when it overruns.

Parent and child exchange pickles over a pipe; both are this program. The child ends when the pipe
closes, so it cannot outlive a daemon that was killed.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, BinaryIO

from solver import warm
from solver.core.batch import Memory, Terms, solve_batch
from solver.core.program import ProgramError
from solver.core.types import Faulty, Infeasible, Intent, Solution
from solver.core.venue import PoolFault, Snapshot, described
from solver.warm import Question

_HEADER = struct.Struct(">Q")
_START_SECONDS = 300.0  # with an empty cache the kernels are compiled at the first start
#: Of a question's time; then the child says whose pool it is in, before it is killed.
_OVERRUN = 0.9


Answer = Solution | Infeasible | Faulty


class SolverFailed(Exception):
    """No solution: the time ran out, or the solver's process ended. It is running again."""


class PoolFailed(SolverFailed):
    """No solution because of one pool; without it there may be one."""

    def __init__(self, fault: Faulty) -> None:
        super().__init__(f"{fault.pool}: {fault.reason}")
        self.pool, self.reason = fault.pool, fault.reason


class Lane:
    """One process and the queue in front of it. ``module`` is what the process runs, as a program.

    Questions and answers are what the module makes of them; None asks whether it is there.
    """

    def __init__(self, module: str = "solver.worker", *arguments: str) -> None:
        self._program = (module, *arguments)
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._exchanges: set[asyncio.Task[Any]] = set()
        self._dying: set[asyncio.Task[int]] = set()
        self._is_closed = False

    @property
    def is_busy(self) -> bool:
        """Whether a question would have to wait."""
        return self._turn.locked()

    async def ask(self, question: Any, timeout_seconds: float) -> Any:
        """The answer, or SolverFailed.

        Whoever asks may go away: while it waits, its question is dropped; once the question is
        asked, the process finishes it and nobody reads the answer. Killing the process instead
        would let one impatient client spoil the time of the next one.
        """
        await self._turn.acquire()
        if self._is_closed:
            self._turn.release()
            raise SolverFailed("the daemon is stopping")
        exchange = asyncio.create_task(self._exchange(question, timeout_seconds))
        self._exchanges.add(exchange)
        exchange.add_done_callback(self._finished)
        return await asyncio.shield(exchange)

    def _finished(self, exchange: asyncio.Task[Any]) -> None:
        self._exchanges.discard(exchange)
        self._turn.release()
        if not exchange.cancelled():
            exchange.exception()  # seen here, because the one who asked may be gone

    async def _exchange(self, question: Any, timeout_seconds: float) -> Any:
        try:
            async with asyncio.timeout(_START_SECONDS):
                process = await self._ensure()
            async with asyncio.timeout(timeout_seconds):
                answer = await _ask(process, question, timeout_seconds)
            if isinstance(answer, Faulty) and answer.overran:
                self._kill()
            return answer
        except TimeoutError as error:
            self._kill()
            raise SolverFailed(f"no answer within {timeout_seconds:g} s") from error
        except (OSError, asyncio.IncompleteReadError) as error:
            self._kill()
            raise SolverFailed("the solver's process ended") from error
        except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
            # Nothing was sent. The market refuses such pools; this is for what it cannot see.
            raise SolverFailed(f"the question cannot be sent: {described(error)}") from error
        except asyncio.CancelledError:
            self._kill()
            raise

    async def stop(self) -> None:
        """Give up what is being solved and kill the process, for good."""
        self._is_closed = True
        exchanges = list(self._exchanges)
        for exchange in exchanges:
            exchange.cancel()
        await asyncio.gather(*exchanges, return_exceptions=True)
        self._kill()
        await asyncio.gather(*self._dying)

    def _kill(self) -> None:
        """Nobody waits for the end: giving back gigabytes takes its time, and answers are due."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            end = asyncio.create_task(process.wait())
            self._dying.add(end)
            end.add_done_callback(self._dying.discard)

    async def _ensure(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *self._program,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            await _ask(self._process, None, _START_SECONDS)
        return self._process


class Worker:
    """Solves one batch and one quote at a time, in two processes: nobody's question delays a tick.

    Each process is started again after a failure, at the next question.
    """

    def __init__(self) -> None:
        self._batches, self._quotes = Lane(), Lane()
        self._warming: asyncio.Task[Answer] | None = None

    async def start(self) -> None:
        """Start the processes, so that their imports do not count against the first batch.

        The one for quotes may come up later: a quote that is early waits for it.
        """
        await self._batches.ask(None, _START_SECONDS)
        self._warming = asyncio.create_task(self._quotes.ask(None, _START_SECONDS))

    async def solve(
        self,
        snapshot: Snapshot,
        intents: Sequence[Intent],
        terms: Terms,
        timeout_seconds: float,
    ) -> Solution:
        """A checked solution of a batch, or SolverFailed."""
        return _solved(await self._batches.ask((snapshot, tuple(intents), terms), timeout_seconds))

    async def quote(
        self,
        snapshot: Snapshot,
        intents: Sequence[Intent],
        terms: Terms,
        timeout_seconds: float,
    ) -> Solution:
        """The same for a client's question, or SolverFailed."""
        return _solved(await self._quotes.ask((snapshot, tuple(intents), terms), timeout_seconds))

    async def stop(self) -> None:
        """Kill the processes."""
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.gather(self._warming, return_exceptions=True)
        await asyncio.gather(self._batches.stop(), self._quotes.stop())


def _solved(answer: Answer) -> Solution:
    if isinstance(answer, Faulty):
        raise PoolFailed(answer)
    if isinstance(answer, Infeasible):
        raise SolverFailed(f"{answer.code}: {answer.detail}")
    return answer


async def _ask(process: asyncio.subprocess.Process, question: Any, timeout_seconds: float) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    body = pickle.dumps((question, timeout_seconds), protocol=5)
    process.stdin.write(_HEADER.pack(len(body)) + body)
    await process.stdin.drain()
    (size,) = _HEADER.unpack(await process.stdout.readexactly(_HEADER.size))
    return pickle.loads(await process.stdout.readexactly(size))


def _answer(question: Question | None, memory: Memory) -> Answer:
    if question is None:
        return Infeasible("ready", "")
    snapshot, intents, terms = question
    try:
        return solve_batch(snapshot, intents, terms, memory=memory)
    except ProgramError as error:
        return Infeasible("program", str(error))
    except PoolFault as error:
        memory.network = None  # it may be half written
        return Faulty(error.pool, error.reason)
    except Exception as error:  # a bug costs the batch, not the daemon; it is reported upwards
        memory.network = None
        trace, frames = error.__traceback__, []
        while trace is not None:
            frames.append(trace.tb_frame)
            trace = trace.tb_next
        pool = _pool_in(frames, snapshot)
        if pool:
            return Faulty(pool, described(error))
        return Infeasible("bug", described(error))


def _pool_in(frames: Sequence[FrameType], snapshot: Snapshot) -> str:
    """The pool whose method is among the frames, outermost first; empty when there is none.

    Compiled and array code calls pools too, so the place of the call says less than the stack.
    """
    kinds = {type(pool) for pool in snapshot.pools}
    for frame in frames:
        owner = frame.f_locals.get("self")
        if owner is not None and type(owner) in kinds:
            return str(owner.id)
    return ""


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _warm(memory: Memory) -> None:
    """Answer what compiles the kernels, so that no question pays for it."""
    for question in warm.questions():
        _answer(question, memory)


class _Child:
    """The process that answers."""

    def __init__(self, answers: BinaryIO) -> None:
        self._answers = answers
        self._memory = Memory()
        self._turn = threading.Lock()
        self._thread = threading.get_ident()
        self._number = 0

    def serve(self, question: Question | None, timeout_seconds: float) -> None:
        """Answer; if a pool does not come back in time, say which, and leave the rest to a kill."""
        watch = threading.Timer(timeout_seconds * _OVERRUN, self._overrun, (question, self._number))
        watch.daemon = True
        watch.start()
        answer = _answer(question, self._memory)
        with self._turn:
            watch.cancel()
            self._number += 1
            self._write(answer)

    def refuse(self, reason: str) -> None:
        """Answer a question that cannot be read."""
        self._write(Infeasible("unreadable", reason))

    def _overrun(self, question: Question | None, number: int) -> None:
        with self._turn:
            if number != self._number:
                return  # it was answered while this waited for its turn
            frame = sys._current_frames().get(self._thread)
            pool = _pool_in([*_stack(frame)][::-1], question[0]) if question else ""
            if pool:
                self._write(Faulty(pool, "a swap does not come to an end", True))
                os._exit(1)

    def _write(self, answer: Answer) -> None:
        body = pickle.dumps(answer, protocol=5)
        self._answers.write(_HEADER.pack(len(body)) + body)
        self._answers.flush()


def _read(source: BinaryIO) -> tuple[Any, float]:
    header = source.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise EOFError
    body = source.read(_HEADER.unpack(header)[0])
    question: tuple[Any, float] = pickle.loads(body)
    return question


def serve(answer: Callable[[Any], Any]) -> None:
    """A child of another module: answer until the pipe closes; a bug is Infeasible ``bug``.

    With ``--warm`` the kernels are ready before the first question.
    """
    answers = _detached()
    if sys.argv[1:] == ["--warm"]:
        _warm(Memory())
    while True:
        try:
            question, _ = _read(sys.stdin.buffer)
        except EOFError:
            return
        try:
            found = Infeasible("ready", "") if question is None else answer(question)
        except Exception as error:
            traceback.print_exc()
            found = Infeasible("bug", described(error))
        body = pickle.dumps(found, protocol=5)
        answers.write(_HEADER.pack(len(body)) + body)
        answers.flush()


def _detached() -> BinaryIO:
    """Where answers go. What libraries print goes to standard error."""
    os.setsid()  # a Ctrl-C at the terminal is for the daemon, which then stops this process
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def main() -> None:
    """The child: answer until the pipe closes. What libraries print goes to standard error.

    With ``--compile`` only the kernels are compiled, into the cache that every later start reads.
    """
    if sys.argv[1:] == ["--compile"]:
        _warm(Memory())
        return
    child = _Child(_detached())
    _warm(Memory())
    while True:
        try:
            question, timeout_seconds = _read(sys.stdin.buffer)
        except EOFError:
            return
        except Exception as error:  # a pool that only its own daemon can read
            child.refuse(described(error))
            continue
        child.serve(question, timeout_seconds)


if __name__ == "__main__":
    main()
