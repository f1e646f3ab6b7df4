"""How the tests run: the same examples every time, whatever starts daemons on one worker.

pytest 9.2 derives ``nodeid`` from its own id, so that the suffix by which pytest-xdist 3.8 marks
an ``xdist_group`` gets lost and `--dist loadgroup` silently scatters the group.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

settings.register_profile("thalweg", derandomize=True, deadline=None)
settings.load_profile("thalweg")


class _DaemonsTogether(LoadScopeScheduling):  # type: ignore[misc]  # xdist ships no types
    def _split_scope(self, nodeid: str) -> str:
        return "daemon" if nodeid.startswith("tests/e2e/") else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    return _DaemonsTogether(config, log)
