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


def is_past_best(
    best: Best, root: tf.Tensor, phi: tf.Tensor, operator_norm: tf.Tensor, is_limit: bool | tf.Tensor = False
) -> tf.Tensor:
    """Whether rounding has taken over since the best iterate, in an inconsistent system.

    Near its solution T_k becomes singular. Once its condition number has passed 1 / sqrt(eps), about where
    ||A r|| is down to sqrt(eps) ||A|| ||r||, rounding feeds the null space: ||A r|| and ||x|| grow again, by
    orders of magnitude, while ||r|| stays as it is.

    Args:
      best: The best iterate so far.
      root: ||A r|| / ||r|| now.
      phi: ||r|| now, for ||b|| = 1.
      operator_norm: An estimate of ||A||.
      is_limit: Whether the iteration has come to a limit: then ||A r|| need not have grown by orders.
    """
    is_worse = (root > 30 * best.root) | (is_limit & (root > best.root))
    return seems_inconsistent(best.root, phi, operator_norm) & (phi > 0.9 * best.phi) & is_worse


def seems_inconsistent(root: tf.Tensor, phi: tf.Tensor, operator_norm: tf.Tensor) -> tf.Tensor:
    """Whether r is as orthogonal to the range of A as rounding lets it become.

    The same ||A r|| with a small ||r|| is the sign of an ill-conditioned consistent system.
    """
    accuracy = math.sqrt(eps(root.dtype))
    return (root <= accuracy * operator_norm) & (phi > 10 * accuracy)


def is_least_squares(left: LeftReflection, column: LeftColumn, operator_norm: tf.Tensor, rtol: float) -> tf.Tensor:
    """Whether `||A r|| <= rtol ||A|| ||r||` for r = r_{k-1}: then no x has a smaller residual.

    Unless step k makes the residual small after all, when A is just ill-conditioned. That isn't believed at
    100 eps: γ_k, which step k divides by, is rounding then, and so is what φ_k says.
    """
    dtype = column.root.dtype
    is_small = column.root <= effective_rtol(rtol, dtype) * operator_norm
    is_rounding = column.root <= 100 * eps(dtype) * operator_norm
    return is_rounding | (is_small & (left.phi > effective_rtol(rtol, dtype)))
