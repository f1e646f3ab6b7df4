"""Strict JSON: what is refused, and where the pointer leads."""

from __future__ import annotations

from typing import Any

import pytest

from solver.core.types import Rejection
from solver.wire import jsonio, v1
from solver.wire.swap import swap_from_core
from tests.make import swap

SWAP = swap_from_core(swap())


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        (b"{}", "invalid_field", "/swap"),
        (b'{"swap": {}, "signature": ""}', "invalid_field", "/swap/owner"),
        (b'{"swap": {"colour": 1}, "signature": ""}', "invalid_field", "/swap/colour"),
        (b'{"a/b~c": 1}', "invalid_field", "/a~1b~0c"),
        (b'{"swap": {"owner": 1}}', "invalid_field", "/swap/owner"),
        (b'{"swap": 1, "swap": 1}', "duplicate_key", "/swap"),
        (b'{"x": [1, {"a": 1, "b": {"c": 1, "c": 2}}]}', "duplicate_key", "/x/1/b/c"),
        (b'{"own\\u0065r": 1, "owner": 2}', "duplicate_key", "/owner"),
        (b'{"\\ud800": 1, "\\ud800": 2}', "duplicate_key", "/?"),
        (b'{"swap": {"validUntil": -0}}', "invalid_field", "/swap/validUntil"),
        (b"\xef\xbb\xbf{}", "bad_json", ""),
    ],
)
def test_a_pointer_leads_to_the_field(body: bytes, code: str, pointer: str) -> None:
    found = jsonio.decode(body, v1.SubmitRequest, 10_000)
    assert isinstance(found, Rejection)
    assert (found.code, found.pointer) == (code, pointer)


def test_a_byte_order_mark_is_called_one() -> None:
    found: Any = jsonio.decode(b"\xef\xbb\xbf{}", dict, 10)
    assert "byte order mark" in found.detail
