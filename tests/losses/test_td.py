import numpy as np
import pytest
import tensorflow as tf

from ngrl import losses

Q = np.array([[1.0, 5.0], [4.0, 2.0], [0.0, -1.0]], np.float32)
R = np.array([1.0, -2.0, 0.5], np.float32)


def test_q_learning_target_bootstraps_through_truncation_and_stops_at_termination():
    discounts = np.array([1.0, 0.0, 1.0], np.float32)  # a plain step, a terminated one, a truncated one
    target = losses.q_learning_target(tf.constant(R), tf.constant(discounts), tf.constant(Q), 0.5)
    np.testing.assert_allclose(target, [1.0 + 0.5 * 5.0, -2.0, 0.5 + 0.5 * 0.0])


def test_double_q_target_values_the_selectors_choice():
    selector = np.array([[9.0, 0.0], [0.0, 9.0], [0.0, 9.0]], np.float32)
    ones = tf.ones(3)
    target = losses.double_q_target(tf.constant(R), ones, tf.constant(Q), tf.constant(selector), 0.5)
    np.testing.assert_allclose(target, [1.0 + 0.5 * 1.0, -2.0 + 0.5 * 2.0, 0.5 + 0.5 * -1.0])


def test_targets_are_constants_for_the_gradient():
    q = tf.Variable(Q)
    with tf.GradientTape() as tape:
        target = losses.q_learning_target(tf.constant(R), tf.ones(3), q, 0.9)
        target += losses.double_q_target(tf.constant(R), tf.ones(3), q, q, 0.9)
    assert tape.gradient(target, q) is None


@pytest.mark.parametrize(
    ("loss", "expected", "slope"),
    [
        (losses.squared_error, [0.25, 9.0], [-1.0, 6.0]),
        (losses.half_squared_error, [0.125, 4.5], [-0.5, 3.0]),
        (losses.huber, [0.125, 2.5], [-0.5, 1.0]),
    ],
)
def test_elementwise_losses_and_their_slopes(loss, expected, slope):
    prediction = tf.Variable([0.5, 4.0])
    with tf.GradientTape() as tape:
        value = loss(tf.constant([1.0, 1.0]), prediction)
    np.testing.assert_allclose(value, expected)
    np.testing.assert_allclose(tape.gradient(value, prediction), slope)


@pytest.mark.parametrize("delta", [0.0, -1.0, float("inf"), float("nan")])
def test_huber_grows_linearly_from_a_positive_error(delta):
    with pytest.raises(ValueError, match="huber: delta must"):
        losses.huber(tf.zeros(2), tf.zeros(2), delta)


@pytest.mark.parametrize("loss", [losses.squared_error, losses.half_squared_error, losses.huber, losses.weighted_mean])
def test_a_column_is_not_broadcast_against_a_row(loss):
    for column in (tf.zeros([3, 1]), tf.zeros([1])):
        with pytest.raises(ValueError, match="are incompatible"):
            loss(tf.zeros([3]), column)


def test_gather_actions_takes_one_value_a_row():
    np.testing.assert_allclose(losses.gather_actions(tf.constant(Q), tf.constant([1, 0, 1])), [5.0, 4.0, -1.0])


def test_weighted_mean_ignores_masked_entries_whatever_they_hold():
    values = tf.constant([1.0, np.nan, 3.0])
    assert losses.weighted_mean(values, tf.constant([1.0, 0.0, 3.0])) == 2.5
    assert losses.weighted_mean(values, tf.zeros(3)) == 0.0


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="rank"):
        losses.gather_actions(tf.constant(Q), tf.constant([[1], [0], [1]]))
