"""Solvers of (A + λI) x = b: how a system is solved, whatever operator describes it."""

from ngrl.solvers.cholesky import Cholesky
from ngrl.solvers.conjugate_gradient import ConjugateGradient
from ngrl.solvers.dual import Dual, DualSolution
from ngrl.solvers.minres import Minres
from ngrl.solvers.minres_qlp import MinresQLP
from ngrl.solvers.solution import MinresQLPStats, Problem, Result, Solution, Solver, SolverStats

__all__ = [
    "Cholesky",
    "ConjugateGradient",
    "Dual",
    "DualSolution",
    "Minres",
    "MinresQLP",
    "MinresQLPStats",
    "Problem",
    "Result",
    "Solution",
    "Solver",
    "SolverStats",
]
