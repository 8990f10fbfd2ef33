"""Off-policy targets of action values: pure functions, one per published equation.

Arrays are time-major, [T, B], with the symbols and boundaries of `ngrl.losses.returns`. Besides:

  q_tm1: the action value of the state left and the action taken there, Q(x_t, a_t).
  v_t: the value of the state truly reached under the present policy π, E_{a ~ π} Q(x_{t+1}, a).
  ρ = π(a|x) / μ(a|x): the importance weight of an action that the behaviour policy μ took.
"""

import tensorflow as tf

from ngrl.losses.returns import accumulate_backwards, within_batch
from ngrl.losses.shapes import check_steps


def retrace_coefficient(
    log_ratio: tf.Tensor, retrace_lambda: float | tf.Tensor = 1.0, num_dimensions: int = 1
) -> tf.Tensor:
    """`c = λ min(1, ρ^(1/d))` [...], a constant for every gradient, from log ρ [...].

    Munos et al. 2016, section 3; the root for d-dimensional continuous actions is Wang et al. 2017, algorithm 3:
    without it the product of many dimensions' ratios would cut every trace.

    Args:
      log_ratio: log π(a|x) − log μ(a|x) [...]; −inf (an action that π never takes) gives 0.
      retrace_lambda: λ.
      num_dimensions: d, 1 for discrete actions.
    """
    return tf.stop_gradient(retrace_lambda * tf.exp(tf.minimum(log_ratio, 0.0) / num_dimensions))


def retrace_targets(
    r_t: tf.Tensor,
    discount_t: tf.Tensor,
    continues_t: tf.Tensor,
    q_tm1: tf.Tensor,
    v_t: tf.Tensor,
    c_tm1: tf.Tensor,
    gamma: float | tf.Tensor,
) -> tf.Tensor:
    """`Q^ret_t = r_t + γ · discount_t · (c_{t+1} (Q^ret_{t+1} − q_{t+1}) + v_t)` [T, B].

    Wang et al. 2017, section 3.1, with q_t = Q(x_t, a_t); a constant for every gradient. At a boundary and in the
    last row, where the next row's Q^ret does not exist, the bracket is `v_t`. With `c_tm1` all ones it is the same
    paper's Q^opc (section 5.1).

    Args:
      r_t: Rewards [T, B].
      discount_t: Discounts of the environment [T, B]; 0 ends the return.
      continues_t: 0 where the step was the last of its episode [T, B].
      q_tm1: Action values of the states left, for the actions taken [T, B].
      v_t: Values of the states truly reached [T, B].
      c_tm1: `retrace_coefficient` of the actions taken in the states left [T, B].
      gamma: The agent's discount factor.
    """
    check_steps(r_t, discount_t, continues_t, q_tm1, v_t, c_tm1)
    discount = gamma * discount_t
    delta = r_t + tf.math.multiply_no_nan(v_t, discount) - q_tm1
    # The next row's coefficient; where the episode ends there, that row is a reset and its numbers mean nothing.
    c_t = tf.concat([c_tm1[1:], tf.zeros_like(c_tm1[:1])], axis=0)
    decay = discount * tf.math.multiply_no_nan(c_t, within_batch(continues_t))
    # Q^ret_t − q_t = δ_t + γ · discount_t · c_{t+1} (Q^ret_{t+1} − q_{t+1})
    return tf.stop_gradient(q_tm1 + accumulate_backwards(delta, decay))
