"""``python -m solver`` is the command ``thalweg``."""

from solver.cli import main

main()
