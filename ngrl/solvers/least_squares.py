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
    best: Best,
    root: tf.Tensor,
    phi: tf.Tensor,
    operator_norm: tf.Tensor,
    is_limit: tf.Tensor,
    is_stuck: tf.Tensor,
) -> tf.Tensor:
    """Whether rounding has taken over since the best iterate, in an inconsistent system.

    Near its solution T_k becomes singular. Once its condition number has passed 1 / sqrt(eps), about where
    ||A r|| is down to sqrt(eps) ||A|| ||r||, rounding feeds the null space: ||A r|| and ||x|| grow again, by
    orders of magnitude, while ||r|| stays as it is.

    In a nearly consistent system, of small ||r||, that happens before ||A r|| is as small: what rounding leaves of it
    is about eps ||A|| ||b||. So does an ill-conditioned consistent one come by as small an ||A r||, to converge later:
    only where nothing more can come, with ||r|| as it was, is it known to be the other kind.

    Args:
      best: The best iterate so far.
      root: ||A r|| / ||r|| now.
      phi: ||r|| now, for ||b|| = 1.
      operator_norm: An estimate of ||A||.
      is_limit: Whether the iteration has come to a limit: then ||A r|| need not have grown by orders.
      is_stuck: Whether it would end here in any case.
    """
    is_worse = (root > 30 * best.root) | (is_limit & (root > best.root))
    is_inconsistent = seems_inconsistent(best.root, phi, operator_norm) & is_worse
    is_nearly_consistent = is_stuck & (best.root * best.phi <= 100 * eps(root.dtype) * operator_norm)
    return (is_inconsistent | is_nearly_consistent) & (phi > 0.9 * best.phi)


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
