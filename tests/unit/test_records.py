"""Recorded batches: packed, removed by size and age, and replayed to the byte."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from typer.testing import CliRunner

from solver.cli import app
from solver.core.batch import Terms, solve_batch
from solver.core.types import Token
from solver.records import Records, TooLarge, pack, unpack
from solver.wire import instance
from tests.make import SETTLEMENT
from tests.property.test_batch import TOKENS, random_intents, random_market

DAY = 86_400.0


def test_what_is_packed_comes_back() -> None:
    document = b'{"format":"thalweg.instance/1"}' * 1_000
    packed = pack(document)
    assert len(packed) < len(document) / 10
    assert unpack(packed, len(document)) == document
    assert unpack(document, 1) == document  # plain JSON stays as it is


@pytest.mark.parametrize("size", [2**20 + 1, 2**30])
def test_a_record_that_unpacks_to_too_much_is_refused(size: int) -> None:
    """A gigabyte of zeros is a few kilobytes; no more than the limit is ever unpacked."""
    writer = zstandard.ZstdCompressor().compressobj()
    block = bytes(2**20)
    packed = b"".join(writer.compress(block) for _ in range(-(-size // 2**20))) + writer.flush()
    with pytest.raises(TooLarge):
        unpack(packed, 2**20 - 1)


@pytest.mark.parametrize("cut", [5, 9, 40])
def test_a_broken_record_is_refused(cut: int, tmp_path: Path) -> None:
    packed = pack(bytes(range(256)) * 8)
    file = tmp_path / "broken.json.zst"
    file.write_bytes(packed[:-cut] + bytes(cut))
    result = CliRunner().invoke(app, ["replay", str(file), "--json"])
    assert result.exit_code == 2
    assert json.loads(result.stdout)["code"] in ("bad_file", "bad_json")


def names(records: Records) -> set[str]:
    return {path.name for path in records.folder.iterdir()}


def test_old_records_go(tmp_path: Path) -> None:
    records = Records(tmp_path / "batches", 2**30, 2 * DAY)
    for day in range(5):
        records.write(f"day-{day}", b"{}", DAY * (100 + day))
    assert names(records) == {f"day-{day}.json.zst" for day in (2, 3, 4)}


def test_the_oldest_go_when_there_is_too_much(tmp_path: Path) -> None:
    records = Records(tmp_path, 2_500, 100 * DAY)
    noise = random.Random(1)
    (tmp_path / "plain.json").write_bytes(b" " * 100)
    os.utime(tmp_path / "plain.json", (0, 0))
    (tmp_path / "other.txt").write_bytes(b" " * 10_000)
    for number in range(6):
        records.write(f"n{number}", noise.randbytes(1_000), DAY + number)
    assert names(records) == {"n4.json.zst", "n5.json.zst", "other.txt"}
    records.write("large", noise.randbytes(9_000), 2 * DAY)
    assert names(records) == {"large.json.zst", "other.txt"}


def recorded(seed: int) -> dict[str, Any]:
    """A batch that was solved, as the daemon writes it."""
    rng = random.Random(seed)
    market, intents = random_market(rng), random_intents(rng)
    terms = Terms({intent.digest: rng.randrange(2) * 10**12 for intent in intents})
    solution = solve_batch(market, intents, terms)
    tokens = {token: Token(token, token.address[-1], 18) for token in TOKENS}
    document = instance.from_core(market, intents, terms, {1: SETTLEMENT}, tokens, solution)
    found: dict[str, Any] = json.loads(msgspec.json.encode(document))
    chain = {"chainId": 1, "settlement": SETTLEMENT}
    return {**found, "chains": [chain]}


def replayed(document: dict[str, Any], folder: Path) -> tuple[int, dict[str, Any]]:
    file = folder / "batch.json.zst"
    file.write_bytes(pack(json.dumps(document).encode()))
    result = CliRunner().invoke(app, ["replay", str(file), "--json"])
    return result.exit_code, json.loads(result.stdout)


@pytest.mark.parametrize("seed", range(40))
def test_a_record_replays_to_the_byte(seed: int, tmp_path: Path) -> None:
    code, verdict = replayed(recorded(seed), tmp_path)
    assert verdict["differs"] == ""
    assert code == 0, verdict


def test_every_changed_integer_is_found(tmp_path: Path) -> None:
    """One unit more anywhere in the proposal, and it does not follow any more."""
    whole = recorded(20)
    proposal = whole["proposal"]
    assert len(proposal["fills"]) > 1 and len(proposal["legs"]) > 1
    places = [
        (name, k, field)
        for name in ("fills", "legs")
        for k in range(len(proposal[name]))
        for field in proposal[name][k]
        if field not in ("digest", "pool", "tokenIn", "tokenOut", "charges")
    ]
    places += [("clearing", pair, side) for pair in proposal["clearing"] for side in (0, 1)]
    for name, key, field in places:
        changed = json.loads(json.dumps(whole))
        old = changed["proposal"][name][key][field]
        more = int(old) // 2**20 if name == "clearing" else 0  # a unit of a rate may round away
        changed["proposal"][name][key][field] = type(old)(int(old) + 1 + more)
        code, verdict = replayed(changed, tmp_path)
        assert code == 1, (name, key, field)
        assert verdict["differs"], (name, key, field)


@pytest.mark.parametrize(
    ("change", "code", "pointer"),
    [
        (lambda found: found.pop("proposal"), "no_proposal", "/proposal"),
        (
            lambda found: found["proposal"]["legs"][0].update(tokenIn="x:0"),
            "bad_token",
            "/proposal/legs/0",
        ),
        (
            lambda found: found["proposal"]["legs"][0].update(amountIn="-1"),
            "bad_amount",
            "/proposal/legs/0/amountIn",
        ),
        (lambda found: found["proposal"].update(surplus="1"), "invalid_field", "/proposal/surplus"),
    ],
)
def test_what_is_no_record_is_refused(change: Any, code: str, pointer: str, tmp_path: Path) -> None:
    document = recorded(20)
    change(document)
    exit_code, answer = replayed(document, tmp_path)
    assert exit_code == 2
    assert (answer["code"], answer.get("pointer", "")) == (code, pointer)


def test_a_worse_record_is_told_from_the_best(tmp_path: Path) -> None:
    document = recorded(20)
    proposal = document["proposal"]
    proposal["value"] = str(float(proposal["value"]) * 0.99)
    code, verdict = replayed(document, tmp_path)
    assert code == 1
    assert verdict["differs"] == ""
    assert float(verdict["differenceBps"]) > 0
