"""The natural-gradient optimizer, damping rules and the guard against non-finite steps."""

from ngrl.optimizers.damping import DampingRule, FixedDamping, LevenbergMarquardt, ScheduledDamping
from ngrl.optimizers.guard import GradientStats, apply_finite_gradients
from ngrl.optimizers.natural_gradient import NaturalGradient, NaturalGradientStats, SkipCause

__all__ = [
    "DampingRule",
    "FixedDamping",
    "GradientStats",
    "LevenbergMarquardt",
    "NaturalGradient",
    "NaturalGradientStats",
    "ScheduledDamping",
    "SkipCause",
    "apply_finite_gradients",
]
