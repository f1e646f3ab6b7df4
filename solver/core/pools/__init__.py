"""Exact integer pools: the arithmetic that a contract does, as pure values, one file per kind.

An adapter inherits one of these and adds only how to call its contract. Every output rounds down
and every input rounds up, to the unit as the contract.
"""

from solver.core.pools.base import NotExecutable
from solver.core.pools.book import BookPool, Level
from solver.core.pools.buffer import BufferPool
from solver.core.pools.concentrated import ConcentratedPool, TickMap
from solver.core.pools.constant_product import (
    ConstantProductPool,
    constant_product_in,
    constant_product_out,
)
from solver.core.pools.curve import CurvePool, CurveVariant
from solver.core.pools.gyro import EclpParameters, GyroPool
from solver.core.pools.limit_order import LimitOrderPool
from solver.core.pools.route import RoutePool
from solver.core.pools.stable import StablePool, StableVersion, Surge
from solver.core.pools.weighted import WeightedPool, WeightedVersion

__all__ = [
    "BookPool",
    "BufferPool",
    "ConcentratedPool",
    "ConstantProductPool",
    "CurvePool",
    "CurveVariant",
    "EclpParameters",
    "GyroPool",
    "Level",
    "LimitOrderPool",
    "NotExecutable",
    "RoutePool",
    "StablePool",
    "StableVersion",
    "Surge",
    "TickMap",
    "WeightedPool",
    "WeightedVersion",
    "constant_product_in",
    "constant_product_out",
]
