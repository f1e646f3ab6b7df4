"""Thalweg: an intent solver daemon."""

import os

# The matrices here are too small for threads of BLAS, which wait for each other on a busy machine:
# a factor of some hundred rows then takes a hundred times as long. Set it yourself to have more.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
