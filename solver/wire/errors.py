"""RFC 9457 problem documents: a stable code, a sentence, and a pointer into the request."""

from __future__ import annotations

from msgspec import Struct

from solver.core.types import Rejection

CONTENT_TYPE = "application/problem+json"

_STATUS = {
    "bad_json": 400,
    "bad_utf8": 400,
    "too_deep": 400,
    "duplicate_key": 400,
    "invalid_field": 400,
    "bad_query": 400,
    "bad_http": 400,
    "not_found": 404,
    "method_not_allowed": 405,
    "timeout": 408,
    "wrong_state": 409,
    "body_too_large": 413,
    "wrong_media_type": 415,
    "unsupported_encoding": 415,
    "expectation_failed": 417,
    "owner_quota": 429,
    "queue_full": 429,
    "busy": 429,
    "internal": 500,
    "not_ready": 503,
    "too_many_connections": 503,
    "solver_failed": 503,
}
_OTHER_REFUSALS = 422


class Problem(Struct, frozen=True, omit_defaults=True):
    """Every error of the HTTP door. ``code`` never changes its meaning."""

    type: str
    title: str
    status: int
    code: str
    detail: str = ""
    pointer: str = ""


def problem(rejection: Rejection) -> Problem:
    """The document of a refusal."""
    return Problem(
        f"urn:thalweg:problem:{rejection.code}",
        rejection.code.replace("_", " "),
        _STATUS.get(rejection.code, _OTHER_REFUSALS),
        rejection.code,
        rejection.detail,
        rejection.pointer,
    )
