"""An independent check of a solution: exact integers, outward rounding, no optimiser, no floats
that anything rests on. It shares with the solver only the pools' integers and the rounding of the
signed order.
"""

from solver.checker.check import Task, Verdict, check
from solver.checker.document import Violation

__all__ = ["Task", "Verdict", "Violation", "check"]
