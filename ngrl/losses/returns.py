"""Returns and advantages of whole trajectories: pure functions, one per published equation.

Arrays are time-major, [T, B]: T steps of B environments. Row t is the transition from the state left, `_tm1`, to
the state reached, `_t`:

  r_t: the reward.
  discount_t: the environment's discount: 0 only where the step terminated, 1 elsewhere, truncation included.
  continues_t: 0 where the step was the last of its episode, terminated or truncated; 1 elsewhere.
  v_tm1: the value of the state left.
  v_t: the value of the state truly reached: at the end of an episode of its own last observation, never of the
    reset observation that follows.

So a termination bootstraps from nothing, a truncation from the last observation, the end of the batch from the state
reached there, and no reward, value or non-finite number crosses from an episode into another.
"""

from typing import NamedTuple

import tensorflow as tf

from ngrl.losses.shapes import check_steps


class BoundaryMasks(NamedTuple):
    """What a trajectory's step types say of its rows: `continues_t` [T, B] and `weights` [T, B]."""

    continues_t: tf.Tensor
    weights: tf.Tensor


def boundary_masks(is_last_tm1: tf.Tensor, is_last_t: tf.Tensor, dtype: tf.DType = tf.float32) -> BoundaryMasks:
    """The masks of trajectories in which an automatic reset takes a row of its own.

    Such a row leads from the last observation of an episode to the first of the next: it is no transition of the
    environment, so its weight is 0 and nothing accumulates through it.

    Args:
      is_last_tm1: True where the state left was the last of its episode [T, B]: the reset rows.
      is_last_t: True where the state reached is the last of its episode [T, B].
      dtype: The floating-point type of the masks.
    """
    check_steps(is_last_tm1, is_last_t)
    reset = tf.cast(is_last_tm1, tf.bool)
    ends = tf.logical_or(reset, tf.cast(is_last_t, tf.bool))
    return BoundaryMasks(tf.cast(tf.logical_not(ends), dtype), tf.cast(tf.logical_not(reset), dtype))


def discounted_returns(
    r_t: tf.Tensor, discount_t: tf.Tensor, continues_t: tf.Tensor, v_t: tf.Tensor, gamma: float | tf.Tensor
) -> tf.Tensor:
    """`G_t = r_t + γ · discount_t · (G_{t+1} or, at a boundary, v_t)` [T, B], a constant for every gradient.

    Sutton & Barto 2018, eq. 3.9, with the tail beyond a truncation or the end of the batch estimated by `v_t`. Zeros
    for `v_t` give REINFORCE's returns without a critic, which end at a truncation as if it were a termination.

    Args:
      r_t: Rewards [T, B].
      discount_t: Discounts of the environment [T, B]; 0 ends the return.
      continues_t: 0 where the step was the last of its episode [T, B].
      v_t: Values of the states truly reached [T, B].
      gamma: The agent's discount factor.
    """
    return td_lambda_returns(r_t, discount_t, continues_t, v_t, gamma, 1.0)


def td_lambda_returns(
    r_t: tf.Tensor,
    discount_t: tf.Tensor,
    continues_t: tf.Tensor,
    v_t: tf.Tensor,
    gamma: float | tf.Tensor,
    gae_lambda: float | tf.Tensor,
) -> tf.Tensor:
    """`G_t = r_t + γ · discount_t · ((1 − λ) v_t + λ G_{t+1})` [T, B], a constant for every gradient.

    The λ-return of Sutton & Barto 2018, eq. 12.18, in which `v_t` stands for `G_{t+1}` at a boundary and at the end
    of the batch. Where `v_tm1` holds the same values one row later it is `generalised_advantage + v_tm1`.

    Args:
      r_t: Rewards [T, B].
      discount_t: Discounts of the environment [T, B]; 0 ends the return.
      continues_t: 0 where the step was the last of its episode [T, B].
      v_t: Values of the states truly reached [T, B].
      gamma: The agent's discount factor.
      gae_lambda: λ, 0 for one-step targets, 1 for discounted returns.
    """
    check_steps(r_t, discount_t, continues_t, v_t)
    discount = gamma * discount_t
    # a_t = γ · discount_t · λ inside an episode, 0 at a boundary and in the last row, where no G_{t+1} is known.
    decay = discount * gae_lambda * within_batch(continues_t)
    # b_t = r_t + (γ · discount_t − a_t) v_t; a terminated step's v_t does not count, not even a non-finite one.
    base = r_t + tf.math.multiply_no_nan(v_t, discount - decay)
    return tf.stop_gradient(accumulate_backwards(base, decay))


def q_lambda_returns(
    r_t: tf.Tensor,
    discount_t: tf.Tensor,
    continues_t: tf.Tensor,
    v_t: tf.Tensor,
    q_t: tf.Tensor,
    a_t: tf.Tensor,
    gamma: float | tf.Tensor,
    trace_lambda: float | tf.Tensor,
    watkins: bool,
) -> tf.Tensor:
    """`G_t = r_t + γ · discount_t · ((1 − λ_t) v_t + λ_t G_{t+1})` [T, B], a constant for every gradient.

    Peng's Q(λ) has `λ_t = λ` (Peng & Williams 1996, eq. 14), Watkins' `λ_t = λ` where `a_t` is greedy, 0 elsewhere
    (Watkins 1989; Sutton & Barto 2018, section 12.10). `v_t` stands for the bracket at a boundary and at the end of the
    batch. With λ = 1 a batch of n rows gives the n-step return of its first row.

    Args:
      r_t: Rewards [T, B].
      discount_t: Discounts of the environment [T, B]; 0 ends the return.
      continues_t: 0 where the step was the last of its episode [T, B].
      v_t: max_a Q of the states truly reached [T, B].
      q_t: Action values that say which actions are greedy there [T, B, A]; several may be.
      a_t: The actions taken in the states reached [T, B]; meaningless at a boundary and in the last row.
      gamma: The agent's discount factor.
      trace_lambda: λ.
      watkins: Whether the trace stops before an action that is not greedy.
    """
    check_steps(r_t, a_t)
    if watkins:
        is_greedy = tf.gather(q_t, a_t, axis=2, batch_dims=2) >= tf.reduce_max(q_t, axis=2)
        trace_lambda = trace_lambda * tf.cast(is_greedy, r_t.dtype)
    return td_lambda_returns(r_t, discount_t, continues_t, v_t, gamma, trace_lambda)


def generalised_advantage(
    r_t: tf.Tensor,
    discount_t: tf.Tensor,
    continues_t: tf.Tensor,
    v_tm1: tf.Tensor,
    v_t: tf.Tensor,
    gamma: float | tf.Tensor,
    gae_lambda: float | tf.Tensor,
) -> tf.Tensor:
    """`Â_t = Σ_l (γλ)^l δ_{t+l}`, `δ_t = r_t + γ · discount_t · v_t − v_tm1` [T, B], a constant for every gradient.

    GAE(λ), Schulman et al. 2016, eq. 16; the sum stops at the end of the episode and of the batch.

    Args:
      r_t: Rewards [T, B].
      discount_t: Discounts of the environment [T, B]; 0 ends the return.
      continues_t: 0 where the step was the last of its episode [T, B].
      v_tm1: Values of the states left [T, B].
      v_t: Values of the states truly reached [T, B].
      gamma: The agent's discount factor.
      gae_lambda: λ, 0 for the one-step TD error, 1 for the return less `v_tm1`.
    """
    check_steps(r_t, discount_t, continues_t, v_tm1, v_t)
    discount = gamma * discount_t
    delta = r_t + tf.math.multiply_no_nan(v_t, discount) - v_tm1
    return tf.stop_gradient(accumulate_backwards(delta, discount * gae_lambda * continues_t))


def within_batch(continues_t: tf.Tensor) -> tf.Tensor:
    """`continues_t` with its last row 0: nothing is known after the end of the batch."""
    return tf.concat([continues_t[:-1], tf.zeros_like(continues_t[-1:])], axis=0)


def accumulate_backwards(base: tf.Tensor, decay: tf.Tensor) -> tf.Tensor:
    """`x_t = b_t + a_t x_{t+1}` [T, B], with `x_T = 0`.

    By doubling: after a round, b and a of row t stand for the composed recurrence of twice as many rows. That takes
    log2(T) rounds of whole-array arithmetic instead of T of one row each; for 2,048 rows about 20 times faster than
    `tf.scan` in a graph, 40 times eagerly, and alike under XLA. Where a_t = 0 nothing comes in, non-finite or not.
    """
    num_steps = tf.shape(base)[0]
    rows = tf.range(num_steps)
    zeros = tf.zeros_like(base)

    def double(span: tf.Tensor, base: tf.Tensor, decay: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        inside = (rows + span < num_steps)[:, tf.newaxis]
        ahead = tf.minimum(rows + span, num_steps - 1)
        ahead_base = tf.where(inside, tf.gather(base, ahead), zeros)
        # b_t ← b_t + a_t b_{t+k},  a_t ← a_t a_{t+k},  k ← 2k; beyond the last row b is 0, so that a does not matter
        return (
            2 * span,
            base + tf.math.multiply_no_nan(ahead_base, decay),
            tf.math.multiply_no_nan(tf.gather(decay, ahead), decay),
        )

    return tf.while_loop(lambda span, *_: span < num_steps, double, (tf.constant(1), base, decay))[1]
