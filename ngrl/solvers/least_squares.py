"""When MINRES and MINRES-QLP hold a system for inconsistent, and what they answer then."""

import math
from typing import NamedTuple

import tensorflow as tf

from ngrl.solvers.lanczos import LeftColumn, LeftReflection
from ngrl.solvers.solution import effective_rtol, eps


class Best(NamedTuple):
    """The iterate with the smallest `||A r|| / ||r||` so far."""

    value: tf.Tensor  # [P]
    root: tf.Tensor  # ||A r|| / ||r||
    phi: tf.Tensor  # ||r||


def start_best(zeros: tf.Tensor) -> Best:
    """None yet."""
    infinity = tf.constant(math.inf, zeros.dtype)
    return Best(zeros, infinity, infinity)


def next_best(best: Best, is_better: tf.Tensor, value: tf.Tensor, root: tf.Tensor, phi: tf.Tensor) -> Best:
    """`best`, or the new iterate."""
    return Best(
        tf.where(is_better, value, best.value),
        tf.where(is_better, root, best.root),
        tf.where(is_better, phi, best.phi),
    )


def is_past_best(best: Best, root: tf.Tensor, phi: tf.Tensor, operator_norm: tf.Tensor) -> tf.Tensor:
    """Whether rounding has taken over since the best iterate.

    Near the solution of an inconsistent system T_k becomes singular. As soon as its condition number has passed
    1 / sqrt(eps), about where ||A r|| is down to sqrt(eps) ||A|| ||r||, rounding feeds the null space: ||A r|| and
    ||x|| grow again, by orders of magnitude, while ||r|| stays as it is.
    """
    threshold = math.sqrt(eps(root.dtype)) * operator_norm
    return (best.root <= threshold) & (root > 30 * best.root) & (phi > 0.9 * best.phi)


def is_least_squares(
    left: LeftReflection, column: LeftColumn, operator_norm: tf.Tensor, rtol: float
) -> tf.Tensor:
    """Whether `||A r|| <= rtol ||A|| ||r||` for r = r_{k-1}: then no x has a smaller residual.

    Unless step k makes the residual small after all, when A is just ill-conditioned. Not to be believed at
    32 eps: γ_k, which that step divides by, is rounding then, and so is what φ_k says.
    """
    dtype = column.root.dtype
    is_small = column.root <= effective_rtol(rtol, dtype) * operator_norm
    is_rounding = column.root <= 32 * eps(dtype) * operator_norm
    return is_rounding | (is_small & (left.phi > effective_rtol(rtol, dtype)))
