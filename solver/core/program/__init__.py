"""The programs: of a batch (:mod:`.batch`) and of gas as a fixed charge (:mod:`.charges`).

Only :mod:`.optimiser` imports the optimiser.
"""

from solver.core.program.batch import alone, choose, duals, idle, settle, solve
from solver.core.program.optimiser import ProgramError

__all__ = ["ProgramError", "alone", "choose", "duals", "idle", "settle", "solve"]
