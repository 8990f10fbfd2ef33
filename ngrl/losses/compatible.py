"""The critics of the natural actor-critic (NAC): linear systems whose solutions hold the natural gradient.

Peters & Schaal 2008, "Natural Actor-Critic", Neurocomputing 71. With the compatible features ψ = ∇_θ log π(a|s) [P]
the advantage is approximated by ψᵀw, and the least-squares w is the natural gradient: ∇J = F w with F the Fisher
matrix (Kakade 2002, theorem 1). Pure functions; what solves the systems is the caller's choice.

Arrays are time-major, [T, B, ...], with `_tm1` for the state left and `_t` for the state reached, as in
`ngrl.losses.returns`, whose masks keep episodes apart. A step of weight 0 (a reset, padding) counts for nothing,
whatever its row holds. Nothing here is differentiated: answers are constants for every gradient.
"""

from typing import NamedTuple

import tensorflow as tf

from ngrl.losses.shapes import check_steps


class LinearSystem(NamedTuple):
    """`A x = b`, with A [D, D] in general not symmetric and possibly singular."""

    matrix: tf.Tensor
    target: tf.Tensor


class EpisodeSums(NamedTuple):
    """Sums over the episode that a step ends; 0 at the steps that end none."""

    scores: tf.Tensor  # Σ_t γ^t ψ_t [T, B, P]
    returns: tf.Tensor  # Σ_t γ^t r_t [T, B]
    weights: (
        tf.Tensor
    )  # the weight of the episode's last step; 0 where none ends or its start is not in the batch [T, B]


def lstd_q_system(
    r_t: tf.Tensor,
    discount_t: tf.Tensor,
    continues_t: tf.Tensor,
    weights: tf.Tensor,
    phi_tm1: tf.Tensor,
    phi_t: tf.Tensor,
    psi: tf.Tensor,
    gamma: float | tf.Tensor,
    trace_decay: float | tf.Tensor,
) -> LinearSystem:
    """LSTD-Q(λ): `A (v, w) = b` for `Q(s, a) = φ(s)ᵀv + ψ(s, a)ᵀw` (Peters & Schaal 2008).

    With φ̃_t = (φ(s_t), ψ_t), φ̂_t = (φ(s_{t+1}), 0) and the traces `z_t = φ̃_t + γ λ discount_{t−1} z_{t−1}`, cut at
    every boundary:

      `A = (1/Σw) Σ_t w_t z_t (φ̃_t − γ discount_t φ̂_t)ᵀ`,  `b = (1/Σw) Σ_t w_t z_t r_t`.

    The trace decays by γλ as in Boyan's LSTD(λ) (1999) and Sutton & Barto (2018), section 12.7; the paper prints λ
    alone, which is the same for γ = 1.

    Where the weights are those of a state distribution times π(a|s), λ = 0 and φ can represent the policy's values, v
    are those values and w = F⁺∇J exactly.

    Args:
      r_t: Rewards [T, B].
      discount_t: Discounts of the environment [T, B]; 0 where the step terminated.
      continues_t: 0 where the step was the last of its episode [T, B].
      weights: Weight of each step [T, B]; 0 masks it.
      phi_tm1: φ of the states left [T, B, M].
      phi_t: φ of the states truly reached [T, B, M]; those of a terminated step don't count.
      psi: ψ of the actions taken [T, B, P].
      gamma: The agent's discount factor.
      trace_decay: λ.

    Returns:
      The system, with D = M + P unknowns, v before w. All zero if every weight is.
    """
    check_steps(r_t, discount_t, continues_t, weights)
    check_steps(r_t, phi_tm1[..., 0], phi_t[..., 0], psi[..., 0])
    used = weights > 0
    discount = gamma * _masked(discount_t, used)
    features = _masked(tf.concat([phi_tm1, psi], axis=-1), used)
    reached = tf.concat([_masked(phi_t, used & (discount > 0)), tf.zeros_like(psi)], axis=-1)
    traces = _accumulate(features, _shifted(discount * trace_decay * continues_t))
    scale = tf.math.divide_no_nan(weights, tf.reduce_sum(weights))
    weighted = traces * scale[..., tf.newaxis]
    difference = features - discount[..., tf.newaxis] * reached
    return LinearSystem(
        tf.stop_gradient(tf.einsum("tbi,tbj->ij", weighted, difference)),
        tf.stop_gradient(tf.einsum("tbi,tb->i", weighted, _masked(r_t, used))),
    )


def damp_scores(system: LinearSystem, num_scores: int, damping: float | tf.Tensor) -> LinearSystem:
    """The system with λI added to the block of w, the last `num_scores` unknowns; v is left alone.

    That block is F in expectation, so that this is the λ of a damped natural gradient.
    """
    values = system.matrix.shape[0] - num_scores
    diagonal = tf.concat([tf.zeros([values], system.matrix.dtype), tf.ones([num_scores], system.matrix.dtype)], axis=0)
    return system._replace(matrix=system.matrix + tf.linalg.diag(damping * diagonal))


def episode_sums(
    r_t: tf.Tensor,
    discount_t: tf.Tensor,
    continues_t: tf.Tensor,
    weights: tf.Tensor,
    is_first_tm1: tf.Tensor,
    psi: tf.Tensor,
    gamma: float | tf.Tensor,
) -> EpisodeSums:
    """The rows of the episodic natural actor-critic's regression (Peters & Schaal 2008, their episodic algorithm).

    Summed along an episode, the Bellman equation leaves `Σ_t γ^t r_t = (Σ_t γ^t ψ_t)ᵀ w + J` and no state values. Only
    whole episodes give a row: one that had begun before the batch lacks steps, one that the batch cuts lacks its
    return's tail. A truncated episode is whole: its return ends where it does.

    Args:
      r_t: Rewards [T, B].
      discount_t: Discounts of the environment [T, B].
      continues_t: 0 where the step was the last of its episode [T, B].
      weights: Weight of each step [T, B]; 0 masks it.
      is_first_tm1: True where the state left was the first of its episode [T, B].
      psi: ψ of the actions taken [T, B, P].
      gamma: The agent's discount factor.
    """
    check_steps(r_t, discount_t, continues_t, weights, is_first_tm1, psi[..., 0])
    used = weights > 0
    starts = tf.cast(tf.logical_and(tf.cast(is_first_tm1, tf.bool), used), r_t.dtype)
    inside = _shifted(continues_t) * (1 - starts)
    # 1 from an episode's first step on, and γ^t; both 0 for a step whose episode began before the batch.
    begun = _accumulate(starts, inside)
    factor = _accumulate(starts, _shifted(gamma * _masked(discount_t, used)) * inside)
    scores = _accumulate(_masked(psi, used) * factor[..., tf.newaxis], inside)
    returns = _accumulate(_masked(r_t, used) * factor, inside)
    ended = used & (continues_t < 0.5) & (begun > 0.5)
    return EpisodeSums(
        tf.stop_gradient(_masked(scores, ended)),
        tf.stop_gradient(_masked(returns, ended)),
        tf.stop_gradient(_masked(weights, ended)),
    )


def episodic_regression(
    scores: tf.Tensor, returns: tf.Tensor, weights: tf.Tensor, optimal_baseline: bool = True
) -> tuple[tf.Tensor, tf.Tensor]:
    """Rows X [E, P] and targets y [E] with w the minimiser of `‖X w − y‖²`, scaled so that XᵀX is a mean.

    The optimal baseline is the regression's own constant: a column of ones beside the scores, which is the same as
    centring scores and returns. It is `b = (1 + Ψ̄ᵀ(F − Ψ̄Ψ̄ᵀ)⁻¹Ψ̄) (R̄ − Ψ̄ᵀF⁻¹g)`, with F and g the means of ΨΨᵀ and ΨR
    (Peters & Schaal 2008, "Reinforcement learning of motor skills with policy gradients", Neural Networks 21, their
    episodic algorithm). The average baseline is b = R̄.

    Args:
      scores: Ψ of each episode [E, P].
      returns: R of each episode [E].
      weights: Weight of each episode [E]; 0 masks it.
      optimal_baseline: Whether the baseline is the optimal or the average one.
    """
    used = weights > 0
    scale = tf.math.divide_no_nan(weights, tf.reduce_sum(weights))
    scores, returns = _masked(scores, used), _masked(returns, used)
    if optimal_baseline:
        scores -= tf.linalg.matvec(scores, scale, transpose_a=True)
    returns -= tf.reduce_sum(scale * returns)
    root = tf.sqrt(scale)
    return tf.stop_gradient(root[:, tf.newaxis] * scores), tf.stop_gradient(root * returns)


def _masked(values: tf.Tensor, used: tf.Tensor) -> tf.Tensor:
    """Rows with 0 in the place of those that are not used; `used` lacks the last axis or has the same rank."""
    used = tf.reshape(used, [*used.shape, *[1] * (values.shape.rank - used.shape.rank)])
    return tf.where(used, values, tf.zeros_like(values))


def _shifted(decay_t: tf.Tensor) -> tf.Tensor:
    """What a row passes on, as what the next takes over: [T, B], 0 in the first row."""
    return tf.concat([tf.zeros_like(decay_t[:1]), decay_t[:-1]], axis=0)


def _accumulate(base: tf.Tensor, decay: tf.Tensor) -> tf.Tensor:
    """`x_t = b_t + a_t x_{t−1}` along the first axis; base [T, B, ...], decay [T, B]."""
    decay = tf.reshape(decay, [*decay.shape, *[1] * (base.shape.rank - decay.shape.rank)])

    def step(last: tf.Tensor, row: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        return row[0] + row[1] * last

    return tf.scan(step, (base, decay), initializer=tf.zeros_like(base[0]))
