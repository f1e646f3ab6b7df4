"""Benchmarks are programs with JSON reports, never timed tests."""

import solver  # noqa: F401  # before numpy: it says how many threads BLAS gets
