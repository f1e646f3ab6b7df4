"""The one door to the compiler: ``@compiled`` functions take and give numbers and numpy arrays.

The machine code is kept beside the source, so only the first run after a change compiles. Division
by zero gives infinity, as in numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile on first use; the type checker sees the plain function."""
    return cast(Function, njit(cache=True, error_model="numpy")(function))
