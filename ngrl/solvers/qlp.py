"""The QLP factorisation of MINRES-QLP, and the iterates of its two phases.

CPS stands for the paper that `minres_qlp` names. MINRES factorises the Lanczos matrix T_k as Q_k T_k = R_k.
Reflections from the right as well make R_k P_k = L_k lower triangular, with diagonal γ, subdiagonal ϑ and
second subdiagonal η. With W_k = V_k P_k the iterate is x_k = W_k u_k, where L_k u_k = t_k and
t_k = (τ_1, ..., τ_k). W_k being orthonormal, ||x_k|| = ||u_k||. An entry μ of u is final two steps after it
appeared. As long as R_k is well conditioned, MINRES' cheaper x_k = x_{k-1} + τ_k d_k with D_k R_k = V_k is
just as accurate (CPS, section 5).
"""

from typing import NamedTuple, TypeVar

import tensorflow as tf

from ngrl.solvers.lanczos import LeftColumn, minres_direction, sym_ortho

_Tuple = TypeVar("_Tuple", bound=tuple)


class Right(NamedTuple):
    """The right reflections and the last rows of L u = t after step k (CPS, table 5.1); all scalars."""

    cosine_2: tf.Tensor  # the reflection of columns k-2 and k in step k
    sine_2: tf.Tensor
    cosine_3: tf.Tensor  # the reflection of columns k-1 and k in step k
    sine_3: tf.Tensor
    gamma_final: tf.Tensor  # γ_{k-2}, final
    gamma_before: tf.Tensor  # γ_{k-1}, to be reflected once more
    gamma: tf.Tensor  # γ_k
    theta_before: tf.Tensor  # ϑ_{k-1}, final
    theta: tf.Tensor  # ϑ_k
    eta_before: tf.Tensor  # η_{k-1}
    eta: tf.Tensor  # η_k
    tau_before: tf.Tensor  # τ_{k-1}
    tau: tf.Tensor  # τ_k
    mu_final_before: tf.Tensor  # μ_{k-3}, final
    mu_final: tf.Tensor  # μ_{k-2}, final
    mu_before: tf.Tensor  # μ_{k-1}
    mu: tf.Tensor  # μ_k
    norm_final: tf.Tensor  # ||(μ_1, ..., μ_{k-2})||


class Vectors(NamedTuple):
    """What the iterate is made of, [P] each.

    In the MINRES phase d_{k-1}, d_k and x_k; in the QLP phase w_{k-1}, w_k and what of x is final: then
    x_k = x + μ_{k-1} w_{k-1} + μ_k w_k.
    """

    before: tf.Tensor
    last: tf.Tensor
    x: tf.Tensor


def right_reflections(last: Right, column: LeftColumn) -> Right:
    """Step k of L = R P and of L u = t; `last` is as step k-1 left it.

    The columns k-2 and k-1 that the first two steps lack are zero, and so are their entries of u.
    """
    # columns k-2 and k: annihilate ε_k beside γ_{k-2}
    cosine_2, sine_2, gamma_final = sym_ortho(last.gamma_before, column.epsilon)
    theta_before = cosine_2 * last.theta + sine_2 * column.delta
    delta = sine_2 * last.theta - cosine_2 * column.delta
    eta = sine_2 * column.gamma
    gamma = -cosine_2 * column.gamma
    # columns k-1 and k: annihilate δ_k beside γ_{k-1}
    cosine_3, sine_3, gamma_before = sym_ortho(last.gamma, delta)
    theta = sine_3 * gamma
    gamma = -cosine_3 * gamma
    # forward substitution: η_j μ_{j-2} + ϑ_j μ_{j-1} + γ_j μ_j = τ_j  for j = k-2, k-1, k
    mu_final = tf.math.divide_no_nan(
        last.tau_before - last.eta_before * last.mu_final_before - last.theta_before * last.mu_final,
        gamma_final,
    )
    mu_before = tf.math.divide_no_nan(last.tau - last.eta * last.mu_final - theta_before * mu_final, gamma_before)
    mu = tf.math.divide_no_nan(column.tau - eta * mu_final - theta * mu_before, gamma)
    return Right(
        cosine_2=cosine_2,
        sine_2=sine_2,
        cosine_3=cosine_3,
        sine_3=sine_3,
        gamma_final=gamma_final,
        gamma_before=gamma_before,
        gamma=gamma,
        theta_before=theta_before,
        theta=theta,
        eta_before=last.eta,
        eta=eta,
        tau_before=last.tau,
        tau=column.tau,
        mu_final_before=last.mu_final,
        mu_final=mu_final,
        mu_before=mu_before,
        mu=mu,
        norm_final=hypot(last.norm_final, mu_final),
    )


def minres_update(vectors: Vectors, v: tf.Tensor, column: LeftColumn) -> Vectors:
    """`x_k = x_{k-1} + τ_k d_k`."""
    direction = minres_direction(column, v, vectors.before, vectors.last)
    return Vectors(vectors.last, direction, vectors.x + column.tau * direction)


def transfer(vectors: Vectors, right: Right) -> Vectors:
    """From the MINRES phase to the QLP phase, after step k (CPS, section 5.2).

    `W = V P = D R P = D L`, of which the last two columns are needed, and `x_k = W_k u_k` without them.
    """
    before = right.gamma_before * vectors.before + right.theta * vectors.last
    last = right.gamma * vectors.last
    return Vectors(before, last, vectors.x - right.mu_before * before - right.mu * last)


def qlp_update(vectors: Vectors, v: tf.Tensor, right: Right) -> Vectors:
    """Applies the right reflections of step k to (w_{k-2}, w_{k-1}, v_k); w_{k-2} is final then."""
    final = right.cosine_2 * vectors.before + right.sine_2 * v
    last = right.sine_2 * vectors.before - right.cosine_2 * v
    before = right.cosine_3 * vectors.last + right.sine_3 * last
    last = right.sine_3 * vectors.last - right.cosine_3 * last
    return Vectors(before, last, vectors.x + right.mu_final * final)


def hypot(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return sym_ortho(a, b)[2]


def select(condition: tf.Tensor, new: _Tuple, old: _Tuple) -> _Tuple:
    """`new` or `old`, two named tuples of scalars."""
    return type(new)(*[tf.where(condition, x, y) for x, y in zip(new, old, strict=True)])
