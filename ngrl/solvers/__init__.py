"""Solvers of (A + λI) x = b: how a system is solved, whatever operator describes it."""

from ngrl.solvers.conjugate_gradient import ConjugateGradient
from ngrl.solvers.dual import Dual, DualSolution
from ngrl.solvers.solution import MinresQLPStats, Problem, Result, Solution, Solver, SolverStats

__all__ = [
    "ConjugateGradient",
    "Dual",
    "DualSolution",
    "MinresQLPStats",
    "Problem",
    "Result",
    "Solution",
    "Solver",
    "SolverStats",
]
