"""Config of a daemon on two local chains with everything in a directory of its own."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from solver import config as configs


def config_in(directory: Path, tick_seconds: float = 0.1) -> configs.Config:
    """The shipped config with a free port and a directory of its own."""
    base = configs.load(configs.DEFAULT_PATH)
    return replace(
        base,
        server=replace(base.server, port=0),
        storage=replace(base.storage, directory=str(directory)),
        batch=replace(base.batch, tick_seconds=tick_seconds),
    )
