"""Recorded batches on disk: one compressed instance file each, old ones removed by size and age."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import zstandard
from msgspec import Struct

_MAGIC = b"\x28\xb5\x2f\xfd"
_ENDING = ".json.zst"
_LEVEL = 3


class TooLarge(ValueError):
    """What is packed is larger than it may be."""


def pack(document: bytes) -> bytes:
    """The document as one frame of zstd."""
    return zstandard.ZstdCompressor(level=_LEVEL).compress(document)


def unpack(body: bytes, most: int) -> bytes:
    """What was packed, or the body itself where it is not packed.

    Raises TooLarge above ``most`` bytes, which are never in memory then, and ValueError where the
    frame is broken.
    """
    if not body.startswith(_MAGIC):
        return body
    try:
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body)) as reader:
            found = reader.read(most + 1)
    except zstandard.ZstdError as error:
        raise ValueError(f"not a whole zstd frame: {error}") from error
    if len(found) > most:
        raise TooLarge(f"more than {most} bytes when unpacked")
    return found


class Records(Struct, frozen=True):
    """A folder of records that together have at most ``max_bytes``, none older than
    ``max_age_seconds``; the latest one always stays.
    """

    folder: Path
    max_bytes: int
    max_age_seconds: float

    def path(self, name: str) -> Path:
        """Where the record of a name is."""
        return self.folder / f"{name}{_ENDING}"

    def write(self, name: str, document: bytes, now: float) -> None:
        """Write a record, whole or not at all, and remove what is too old or too much.

        ``now`` is in Unix seconds. Raises OSError.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(name)
        draft = path.with_suffix(".tmp")
        draft.write_bytes(pack(document))
        os.utime(draft, (now, now))
        draft.replace(path)
        for old in self._surplus(path, now):
            old.unlink(missing_ok=True)

    def _surplus(self, latest: Path, now: float) -> Iterator[Path]:
        """What has to go, the newest first; records of plain JSON, from before, count as well."""
        found = []
        for path in (*self.folder.glob("*.json"), *self.folder.glob(f"*{_ENDING}")):
            facts = path.stat()
            found.append((facts.st_mtime, path, facts.st_size))
        total = latest.stat().st_size
        for changed, path, size in sorted(found, reverse=True):
            if path == latest:
                continue
            total += size
            if total > self.max_bytes or now - changed > self.max_age_seconds:
                yield path
