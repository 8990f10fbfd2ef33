"""Temporal-difference targets and losses: pure functions, one per published equation.

Symbols: `q_tm1` [B, A] are the action values of the state that was left, `a_tm1` [B] the action taken there,
`r_t` [B] the reward it brought, `discount_t` [B] the environment's discount (0 where the step terminated, 1
elsewhere, truncation included), `q_t` [B, A] the action values of the state that was reached.
"""

import tensorflow as tf

from ngrl.checks import check_number
from ngrl.configurable import configurable
from ngrl.losses.shapes import check_alike


def gather_actions(values: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
    """The value of the action taken: `values[i, actions[i]]`, [B, A] and [B] to [B]."""
    values.shape.assert_has_rank(2)
    actions.shape.assert_has_rank(1)
    return tf.gather(values, actions, axis=1, batch_dims=1)


def q_learning_target(r_t: tf.Tensor, discount_t: tf.Tensor, q_t: tf.Tensor, gamma: float) -> tf.Tensor:
    """`y = r + γ · discount · max_a Q(s', a)` [B], a constant for every gradient (Knight & Lerner, eq. 10).

    Args:
      r_t: Rewards [B].
      discount_t: Discounts of the environment [B]; 0 ends the return.
      q_t: Action values of the next state [B, A], from the online or the target network.
      gamma: The agent's discount factor.
    """
    for tensor in (r_t, discount_t):
        tensor.shape.assert_has_rank(1)
    return tf.stop_gradient(r_t + gamma * discount_t * tf.reduce_max(q_t, axis=1))


def double_q_target(
    r_t: tf.Tensor, discount_t: tf.Tensor, q_t_value: tf.Tensor, q_t_selector: tf.Tensor, gamma: float
) -> tf.Tensor:
    """`y = r + γ · discount · Q_value(s', argmax_a Q_selector(s', a))` [B] (van Hasselt et al. 2016, eq. 4).

    Args:
      r_t: Rewards [B].
      discount_t: Discounts of the environment [B].
      q_t_value: Action values that are bootstrapped from [B, A] (the target network).
      q_t_selector: Action values that choose the action [B, A] (the online network).
      gamma: The agent's discount factor.
    """
    for tensor in (r_t, discount_t):
        tensor.shape.assert_has_rank(1)
    best = tf.argmax(q_t_selector, axis=1, output_type=tf.int32)
    return tf.stop_gradient(r_t + gamma * discount_t * gather_actions(q_t_value, best))


@configurable
def squared_error(target: tf.Tensor, prediction: tf.Tensor) -> tf.Tensor:
    """`(y − q)²` elementwise (Knight & Lerner, eq. 11)."""
    check_alike(target, prediction)
    return tf.square(target - prediction)


@configurable
def half_squared_error(target: tf.Tensor, prediction: tf.Tensor) -> tf.Tensor:
    """`½ (y − q)²` elementwise: the negative log-likelihood of a unit-variance Gaussian.

    Its Hessian with respect to `q` is 1, so that the Fisher of Knight & Lerner's eq. 14 with β = 1 is its
    Gauss-Newton matrix and a step of size 1 solves the linearised regression.
    """
    check_alike(target, prediction)
    return 0.5 * tf.square(target - prediction)


@configurable
def huber(target: tf.Tensor, prediction: tf.Tensor, delta: float = 1.0) -> tf.Tensor:
    """`½ e²` for `|e| ≤ δ`, `δ (|e| − ½ δ)` beyond, elementwise (Huber 1964; Mnih et al. 2015 clip with δ = 1).

    Args:
      target: y.
      prediction: q, of the shape of y.
      delta: δ, the error from which the loss grows linearly.

    Raises:
      ValueError: δ is no positive number.
    """
    check_number("huber: delta", delta, "(0, inf)")
    check_alike(target, prediction)
    error = tf.abs(target - prediction)
    quadratic = tf.minimum(error, delta)
    return 0.5 * tf.square(quadratic) + delta * (error - quadratic)


def weighted_mean(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """`Σ w x / Σ w`, and 0 when every weight is 0; [B] and [B] to a scalar.

    A masked entry (w = 0) does not count whatever it holds, non-finite numbers included.
    """
    check_alike(values, weights)
    values = tf.where(weights > 0, values, tf.zeros_like(values))
    return tf.math.divide_no_nan(tf.reduce_sum(weights * values), tf.reduce_sum(weights))
