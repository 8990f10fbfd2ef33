"""What MINRES and MINRES-QLP have in common: the Lanczos process and its QR factorisation.

After k steps `A V_k = V_{k+1} T_k`, T_k tridiagonal with diagonal α and off-diagonal β. Reflections from the
left turn it into the upper triangular R_k, whose last column is (ε_k, δ_k, γ_k).
"""

from typing import Any, NamedTuple

import tensorflow as tf

from ngrl.solvers.solution import Problem, dot, safe_norm


class Lanczos(NamedTuple):
    """One step k of the Lanczos process."""

    v: tf.Tensor  # [P], v_k
    v_next: tf.Tensor  # [P], v_{k+1}; 0 when the process ends
    alpha: tf.Tensor  # α_k
    beta: tf.Tensor  # β_k
    beta_next: tf.Tensor  # β_{k+1}
    w_next: Any  # [P], w_{k+1} = M⁻¹ v_{k+1}; () without a preconditioner


class LeftReflection(NamedTuple):
    """The QR factorisation of T after step k, as far as the next step needs it."""

    cosine: tf.Tensor  # c_k of the reflection that annihilates β_{k+1}
    sine: tf.Tensor  # s_k
    delta: tf.Tensor  # δ_{k+1}, before the reflection of step k + 1
    epsilon: tf.Tensor  # ε_{k+1}
    phi: tf.Tensor  # φ_k = ||r_k||


class LeftColumn(NamedTuple):
    """The column of R that step k adds."""

    epsilon: tf.Tensor  # ε_k
    delta: tf.Tensor  # δ_k, final
    gamma: tf.Tensor  # γ_k, final
    tau: tf.Tensor  # τ_k, the entry of the transformed right-hand side
    root: tf.Tensor  # ||A r_{k-1}|| / ||r_{k-1}||
    norm: tf.Tensor  # ||(β_k, α_k, β_{k+1})||, the norm of a column of T, at most ||A||


def sym_ortho(a: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The (c, s, r) of the reflection `[c s; s -c]` that takes (a, b) to (r, 0), r >= 0.

    It is (1, 0, 0) for (0, 0). Scaled, so that neither large nor small numbers are lost (Choi & Saunders
    2014, section 2).
    """
    largest = tf.maximum(tf.abs(a), tf.abs(b))
    x = tf.math.divide_no_nan(a, largest)
    y = tf.math.divide_no_nan(b, largest)
    length = tf.sqrt(x * x + y * y)
    c = tf.where(tf.equal(largest, 0), tf.ones_like(a), tf.math.divide_no_nan(x, length))
    return c, tf.math.divide_no_nan(y, length), largest * length


def lanczos_step(problem: Problem, v_last: tf.Tensor, v: tf.Tensor, beta: tf.Tensor, w: Any = ()) -> Lanczos:
    """`β_{k+1} v_{k+1} = A v_k - α_k v_k - β_k v_{k-1}` with A standing for A + λI.

    α is taken after the subtraction of v_{k-1}, which keeps neighbours orthogonal in rounded arithmetic
    (Paige 1976).

    With a preconditioner A acts on w_k = M⁻¹ v_k, and vᵀw = 1: the v are M^(½) times the Lanczos vectors of
    M^(-½) A M^(-½), the w M^(-½) times (Choi & Saunders 2014, section 3).
    """
    direction = v if problem.inverse is None else w
    p = problem.damped_product(direction) - beta * v_last
    alpha = dot(direction, p)
    p = p - alpha * v
    if problem.inverse is None:
        beta_next = safe_norm(p)
        return Lanczos(v, tf.math.divide_no_nan(p, beta_next), alpha, beta, beta_next, ())
    w_next = problem.inverse(p)
    # NaN where M isn't positive definite
    beta_next = tf.sqrt(dot(p, w_next))
    return Lanczos(
        v,
        tf.math.divide_no_nan(p, beta_next),
        alpha,
        beta,
        beta_next,
        tf.math.divide_no_nan(w_next, beta_next),
    )


def start_reflection(like: tf.Tensor) -> LeftReflection:
    """The state before step 1, for a right-hand side of norm 1."""
    zero, one = tf.zeros((), like.dtype), tf.ones((), like.dtype)
    return LeftReflection(cosine=-one, sine=zero, delta=zero, epsilon=zero, phi=one)


def left_reflection(last: LeftReflection, step: Lanczos) -> tuple[LeftReflection, LeftColumn]:
    """Applies the reflection of step k - 1 to the new column of T, and makes that of step k."""
    # the last reflection:  [c s; s -c] [δ_k 0; α_k β_{k+1}] = [δ_k ε_{k+1}; γ_k δ_{k+1}]
    delta = last.cosine * last.delta + last.sine * step.alpha
    gamma = last.sine * last.delta - last.cosine * step.alpha
    epsilon_next = last.sine * step.beta_next
    delta_next = -last.cosine * step.beta_next
    # A r_{k-1} = φ_{k-1} (γ_k v_k + δ_{k+1} v_{k+1})
    root = sym_ortho(gamma, delta_next)[2]
    # the new reflection annihilates β_{k+1}
    cosine, sine, gamma = sym_ortho(gamma, step.beta_next)
    norm = sym_ortho(sym_ortho(step.beta, step.alpha)[2], step.beta_next)[2]
    column = LeftColumn(last.epsilon, delta, gamma, cosine * last.phi, root, norm)
    return LeftReflection(cosine, sine, delta_next, epsilon_next, sine * last.phi), column


def minres_direction(column: LeftColumn, v: tf.Tensor, direction_before: tf.Tensor, direction: tf.Tensor) -> tf.Tensor:
    """`d_k = (v_k - ε_k d_{k-2} - δ_k d_{k-1}) / γ_k`, from `D_k R_k = V_k`."""
    numerator = v - column.epsilon * direction_before - column.delta * direction
    return tf.math.divide_no_nan(numerator, column.gamma)
