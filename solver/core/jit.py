"""The one door to the compiler: ``@compiled`` functions take and give numbers and numpy arrays.

Machine code is kept in a folder named after the sources of all compiled functions: the compiler's
own cache looks only at the file of the function itself, not at what that function calls. Division
by zero gives infinity, as in numpy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])

_CORE = Path(__file__).parent
SOURCES = (_CORE / "kernels.py", *sorted((_CORE / "routing").glob("*.py")))


def _cache_folder() -> Path | None:
    """The folder for this state of the sources, or None where nothing can be written."""
    state = hashlib.sha256()
    for source in SOURCES:
        state.update(source.read_bytes())
    folder = _CORE / "__pycache__" / f"compiled-{state.hexdigest()[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder


_FOLDER = _cache_folder()
if _FOLDER is not None:
    setattr(numba.config, "CACHE_DIR", str(_FOLDER))  # noqa: B010 — numba's types do not know it


def compiled(function: Function) -> Function:
    """Compile on first use; the type checker sees the plain function."""
    build = numba.njit(cache=_FOLDER is not None, error_model="numpy")
    return cast(Function, build(function))
