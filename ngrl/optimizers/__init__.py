"""The natural-gradient optimizer, damping rules, the line search and the guard against non-finite steps."""

from ngrl.optimizers.damping import DampingRule, FixedDamping, LevenbergMarquardt, ScheduledDamping
from ngrl.optimizers.guard import GradientStats, apply_finite_gradients, sum_slices
from ngrl.optimizers.line_search import BacktrackingLineSearch
from ngrl.optimizers.natural_gradient import NaturalGradient
from ngrl.optimizers.penalty import apply_penalised_gradient, check_damped_outside_rows, check_penalised
from ngrl.optimizers.step import NaturalGradientStats, SkipCause

__all__ = [
    "BacktrackingLineSearch",
    "DampingRule",
    "FixedDamping",
    "GradientStats",
    "LevenbergMarquardt",
    "NaturalGradient",
    "NaturalGradientStats",
    "ScheduledDamping",
    "SkipCause",
    "apply_finite_gradients",
    "apply_penalised_gradient",
    "check_damped_outside_rows",
    "check_penalised",
    "sum_slices",
]
