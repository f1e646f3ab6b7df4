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
from collections.abc import Sequence
from typing import BinaryIO

from solver.core.batch import Memory, Terms, solve_batch
from solver.core.program import ProgramError
from solver.core.types import Infeasible, Intent, Solution
from solver.core.venue import Snapshot

_HEADER = struct.Struct(">Q")
Question = tuple[Snapshot, tuple[Intent, ...], Terms]


class SolverFailed(Exception):
    """No solution: the time ran out, or the solver's process ended. It is running again."""


class Worker:
    """Solves one batch at a time."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Start the process, so that its imports do not count against the first batch."""
        async with self._turn:
            await self._ensure()

    async def solve(
        self,
        snapshot: Snapshot,
        intents: Sequence[Intent],
        terms: Terms,
        timeout_seconds: float,
    ) -> Solution:
        """A checked solution, or SolverFailed."""
        question: Question = (snapshot, tuple(intents), terms)
        async with self._turn:
            process = await self._ensure()
            try:
                async with asyncio.timeout(timeout_seconds):
                    answer = await _ask(process, question)
            except TimeoutError as error:
                await self.stop()
                raise SolverFailed(f"no answer within {timeout_seconds:g} s") from error
            except (OSError, asyncio.IncompleteReadError) as error:
                await self.stop()
                raise SolverFailed("the solver's process ended") from error
            except asyncio.CancelledError:
                await self.stop()
                raise
        if isinstance(answer, Infeasible):
            raise SolverFailed(f"{answer.code}: {answer.detail}")
        return answer

    async def stop(self) -> None:
        """Kill the process."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def _ensure(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "solver.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            await _ask(self._process, None)
        return self._process


async def _ask(
    process: asyncio.subprocess.Process, question: Question | None
) -> Solution | Infeasible:
    assert process.stdin is not None
    assert process.stdout is not None
    body = pickle.dumps(question, protocol=5)
    process.stdin.write(_HEADER.pack(len(body)) + body)
    await process.stdin.drain()
    (size,) = _HEADER.unpack(await process.stdout.readexactly(_HEADER.size))
    answer: Solution | Infeasible = pickle.loads(await process.stdout.readexactly(size))
    return answer


def _answer(question: Question | None, memory: Memory) -> Solution | Infeasible:
    if question is None:
        return Infeasible("ready", "")
    snapshot, intents, terms = question
    try:
        return solve_batch(snapshot, intents, terms, memory=memory)
    except ProgramError as error:
        return Infeasible("program", str(error))
    except Exception as error:  # a bug costs the batch, not the daemon; it is reported upwards
        return Infeasible("bug", f"{type(error).__name__}: {error}")


def _read(source: BinaryIO) -> Question | None:
    header = source.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise EOFError
    body = source.read(_HEADER.unpack(header)[0])
    question: Question | None = pickle.loads(body)
    return question


def main() -> None:
    """The child: answer until the pipe closes. What libraries print goes to standard error."""
    os.setsid()  # a Ctrl-C at the terminal is for the daemon, which then stops this process
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    memory = Memory()
    while True:
        try:
            question = _read(sys.stdin.buffer)
        except EOFError:
            return
        body = pickle.dumps(_answer(question, memory), protocol=5)
        answers.write(_HEADER.pack(len(body)) + body)
        answers.flush()


if __name__ == "__main__":
    main()
