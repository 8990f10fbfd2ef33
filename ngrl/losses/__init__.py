"""Loss functions: pure, one per published equation."""

from ngrl.losses.td import (
    double_q_target,
    gather_actions,
    half_squared_error,
    huber,
    q_learning_target,
    squared_error,
    weighted_mean,
)

__all__ = [
    "double_q_target",
    "gather_actions",
    "half_squared_error",
    "huber",
    "q_learning_target",
    "squared_error",
    "weighted_mean",
]
