"""The CoW door against its own description: whatever schemathesis makes of it, it is answered as
described, and never with a fault of ours.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.openapi import from_dict
from schemathesis.specs.openapi import checks

from solver.api import openapi
from solver.config import CowConfig
from tests.cow import Driver, opened

pytestmark = pytest.mark.asyncio(loop_scope="module")
CHECKS = (
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def driver(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Driver]:
    config = CowConfig(profile="baseline", max_hops=2)
    async with opened(config, tmp_path_factory.mktemp("schema")) as found:
        yield found


@pytest.mark.parametrize(
    ("path", "method", "mode", "least"),
    [
        ("/cow/solve", "POST", GenerationMode.POSITIVE, {200: 3}),
        ("/cow/solve", "POST", GenerationMode.NEGATIVE, {400: 40}),
        ("/cow/notify", "POST", GenerationMode.POSITIVE, {200: 20}),
        ("/cow/notify", "POST", GenerationMode.NEGATIVE, {400: 40}),
        ("/cow/auctions/{auction}", "GET", GenerationMode.POSITIVE, {404: 1}),
        ("/cow/healthz", "GET", GenerationMode.POSITIVE, {200: 1}),
    ],
)
async def test_it_is_as_described(
    driver: Driver, path: str, method: str, mode: GenerationMode, least: dict[int, int]
) -> None:
    schema: Any = from_dict(openapi("0"))
    operation = schema[path][method]
    statuses: Counter[int] = Counter()
    host, port = driver.address

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=80,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: schemathesis.Case[Any]) -> None:
        response = case.call(base_url=f"http://{host}:{port}", timeout=60)
        statuses[response.status_code] += 1
        case.validate_response(response, checks=list(CHECKS))

    await asyncio.to_thread(ask)
    assert statuses.keys() <= {200, 400, 404, 405}
    assert all(statuses[status] >= count for status, count in least.items()), statuses
