"""A solution as a batch with its bundles, its expected profit and its record on disk."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import structlog

from solver.config import Config
from solver.core import bundle as bundles
from solver.core import crypto, profit
from solver.core.journal import Batched, Bundled
from solver.core.types import Intent, Solution
from solver.core.venue import Snapshot
from solver.intake import World, gas_values, terms_of
from solver.records import Records
from solver.settler import payment_of
from solver.wire import instance

log = structlog.get_logger("thalweg.planner")


class Planner:
    """Turns what the solver decided into what is sent."""

    def __init__(self, config: Config, world: World) -> None:
        self._config = config
        self._world = world
        storage = config.storage
        self._records = Records(
            Path(storage.directory) / "batches",
            storage.records_max_bytes,
            storage.records_max_age_seconds,
        )

    def plan(
        self,
        snapshot: Snapshot,
        intents: Sequence[Intent],
        solution: Solution,
        seconds: float,
    ) -> tuple[Batched, list[Bundled]]:
        """The batch and one bundle per chain; payments need the bundle that locks for them."""
        now = time.time()
        by_digest = {intent.digest: intent for intent in intents}
        digests = sorted(by_digest)
        seed = "|".join([*digests, snapshot.hash, str(time.time_ns())])
        identity = "0x" + crypto.keccak(seed.encode()).hex()
        settlements = {c: contract.settlement for c, contract in self._world.contracts.items()}
        pools = {pool.id: pool for pool in snapshot.pools}
        cross = {
            fill.digest: payment_of(
                bundles.cross_fill(by_digest[fill.digest], fill.buy),
                by_digest[fill.digest].swap,
                fill,
            )
            for fill in solution.fills
            if by_digest[fill.digest].swap.is_cross_chain
        }
        planned: list[Bundled] = []
        for number, bundle in enumerate(bundles.build(solution, by_digest, pools, settlements)):
            deadline = int(now) + self._config.batch.bundle_lifetime_seconds
            payments = tuple(p for p in cross.values() if p.target == bundle.chain)
            origins = {payment.origin for payment in payments}
            locking = next((other.id for other in planned if other.chain in origins), "")
            planned.append(
                Bundled(
                    f"{identity[2:18]}-{number}",
                    identity,
                    "settle",
                    bundle.chain,
                    settlements[bundle.chain],
                    bundles.encode(bundle, identity, deadline),
                    bundle.gas,
                    deadline,
                    now,
                    fills=tuple(trade.fill for trade in bundle.trades),
                    locks=tuple(p for p in cross.values() if p.origin == bundle.chain),
                    payments=payments,
                    needs=locking,
                )
            )
        blocks = {str(c): (ref.number, ref.hash) for c, ref in snapshot.blocks.items()}
        return Batched(identity, now, tuple(digests), solution, blocks, seconds), planned

    def record(
        self, identity: str, snapshot: Snapshot, intents: Sequence[Intent], solution: Solution
    ) -> None:
        """The batch as an instance file; a disk that refuses costs the file, not the batch."""
        terms = terms_of(tuple(intents), snapshot, self._world, self._config)
        settlements = {c: contract.settlement for c, contract in self._world.contracts.items()}
        tokens = self._world.tokens
        document = instance.from_core(snapshot, intents, terms, settlements, tokens, solution)
        omitted = instance.omitted_pools(snapshot)
        if omitted:
            log.warning("batch_recorded_in_part", id=identity, omitted=omitted)
        try:
            self._records.write(identity[2:18], msgspec.json.encode(document), time.time())
        except OSError as error:
            log.warning("batch_not_recorded", id=identity, reason=str(error))

    def profits(
        self,
        snapshot: Snapshot,
        intents: Sequence[Intent],
        solution: Solution,
        gas: Mapping[int, int],
    ) -> dict[int, float]:
        """The profit per chain at the snapshot's prices, for the gas that its bundle is to cost."""
        values = gas_values(snapshot, self._world)
        return profit.per_chain(intents, solution, snapshot.prices, gas, values)
