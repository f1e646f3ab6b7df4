"""The programs: of a batch (:mod:`.batch`), of its rates (:mod:`.sharing`) and of gas as a fixed
charge (:mod:`.charges`).

Only :mod:`.optimiser` imports the optimiser.
"""

from solver.core.program.batch import (
    FILLED,
    alike,
    alone,
    choose,
    duals,
    idle,
    needs_binaries,
    settle,
    shares_of,
    solve,
    together,
)
from solver.core.program.optimiser import ProgramError
from solver.core.program.sharing import at_mean_rates, at_one_rate, share, uniform

__all__ = [
    "FILLED",
    "ProgramError",
    "alike",
    "alone",
    "at_mean_rates",
    "at_one_rate",
    "choose",
    "duals",
    "idle",
    "needs_binaries",
    "settle",
    "share",
    "shares_of",
    "solve",
    "together",
    "uniform",
]
