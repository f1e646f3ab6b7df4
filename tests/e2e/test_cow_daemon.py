"""The CoW door of a whole daemon, as docs/cow.md shows it."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from openapi_spec_validator import OpenAPIV31SpecValidator

from solver import config as configs
from solver.service import serving
from tests.e2e.make import config_in
from tests.e2e.test_cli import thalweg

pytestmark = [pytest.mark.xdist_group("daemon"), pytest.mark.asyncio(loop_scope="module")]
GUIDE = Path(__file__).resolve().parents[2] / "docs" / "cow.md"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with serving(config_in(tmp_path_factory.mktemp("daemon"))) as (_, found):
        yield found


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


async def run(line: str, url: str, folder: Path) -> str:
    """A line of the guide against this daemon."""
    words = shlex.split(line.replace("http://127.0.0.1:8645", url))
    if words[0] == "thalweg":
        done = await asyncio.to_thread(thalweg, *words[1:], url=url)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)
    process = await asyncio.create_subprocess_exec(
        *words, cwd=folder, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode()


async def test_the_guide_works_as_written(url: str, tmp_path: Path) -> None:
    (auction,), (commands,), (settings,) = blocks("json"), blocks("sh"), blocks("toml")
    (tmp_path / "auction.json").write_text(auction, encoding="utf-8")
    solve, notify, explain = commands.strip().splitlines()
    (solution,) = json.loads(await run(solve, url, tmp_path))["solutions"]
    assert solution["trades"][0]["fee"] == "2495865000000000"
    assert solution["gas"] == 166_391
    assert json.loads(await run(notify, url, tmp_path)) == {}
    told = await run(explain, url, tmp_path)
    assert told.startswith("solution 0: 0x2a2a2a2a2a…\nsuccess")
    shipped = tomllib.loads(configs.DEFAULT_PATH.read_text(encoding="utf-8"))["cow"]
    assert tomllib.loads(settings)["cow"].keys() <= shipped.keys()
    assert configs.load(configs.DEFAULT_PATH).cow == configs.CowConfig()


async def test_explain_has_the_whole_story(url: str) -> None:
    done = await asyncio.to_thread(thalweg, "explain", "7", "--json", url=url)
    view: dict[str, Any] = json.loads(done.stdout)
    assert view["solutions"][0]["solution"]["gas"] == 166_391
    assert view["notices"][0]["body"]["kind"] == "success"
    done = await asyncio.to_thread(thalweg, "explain", "8", "--json", url=url)
    assert done.returncode != 0
    assert json.loads(done.stdout or done.stderr)["code"] == "not_found"


async def test_the_description_covers_the_engine(url: str, tmp_path: Path) -> None:
    document = json.loads(await run("curl -s http://127.0.0.1:8645/v1/openapi.json", url, tmp_path))
    OpenAPIV31SpecValidator(document).validate()
    solve = document["paths"]["/cow/solve"]["post"]
    assert solve["responses"].keys() == {"200", "400", "429", "500"}
    fields = document["components"]["schemas"]["AuctionOrder"]["properties"]
    assert {"uid", "sellAmount", "class", "partiallyFillable"} <= fields.keys()
    assert {"/cow/notify", "/cow/healthz", "/cow/auctions/{auction}"} <= document["paths"].keys()
    metrics = await run("curl -s http://127.0.0.1:8645/metrics", url, tmp_path)
    assert 'thalweg_cow_notifications_total{kind="success"} 1.0' in metrics
    health = await run("curl -s http://127.0.0.1:8645/cow/healthz", url, tmp_path)
    assert json.loads(health) == {"status": "ok"}
