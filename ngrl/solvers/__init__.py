"""Solvers of (A + λI) x = b: how a system is solved, whatever operator describes it."""

from ngrl import _autograph  # noqa: F401
from ngrl.solvers.adam_direction import AdamDirection
from ngrl.solvers.block_dual import BlockDual
from ngrl.solvers.cholesky import Cholesky
from ngrl.solvers.conjugate_gradient import ConjugateGradient
from ngrl.solvers.dual import Dual, DualSolution
from ngrl.solvers.kfac import Kfac
from ngrl.solvers.minres import Minres
from ngrl.solvers.minres_qlp import MinresQLP
from ngrl.solvers.solution import Answer, MinresQLPStats, Problem, Result, Solution, Solver, SolverStats
from ngrl.solvers.system import (
    OutputGradient,
    ParameterGradient,
    ParameterSystem,
    RightHandSide,
    RowCombination,
    RowProducts,
    RowSystem,
    System,
)

__all__ = [
    "AdamDirection",
    "Answer",
    "BlockDual",
    "Cholesky",
    "ConjugateGradient",
    "Dual",
    "DualSolution",
    "Kfac",
    "Minres",
    "MinresQLP",
    "MinresQLPStats",
    "OutputGradient",
    "ParameterGradient",
    "ParameterSystem",
    "Problem",
    "Result",
    "RightHandSide",
    "RowCombination",
    "RowProducts",
    "RowSystem",
    "Solution",
    "Solver",
    "SolverStats",
    "System",
]
