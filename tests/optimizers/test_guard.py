import numpy as np
import pytest
import tensorflow as tf

from ngrl.optimizers import SkipCause, apply_finite_gradients


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("loss", "gradient", "cause"),
    [(np.nan, 1.0, SkipCause.LOSS), (1.0, np.inf, SkipCause.GRADIENT)],
)
def test_non_finite_plain_steps_leave_weights_and_slots_byte_identical(compiled, loss, gradient, cause):
    variable = tf.Variable([1.0, 2.0])
    optimizer = tf.keras.optimizers.Adam(0.1)
    optimizer.build([variable])
    apply_finite_gradients(optimizer, [(tf.constant([0.5, -0.5]), variable)], tf.constant(1.0))
    before = [value.numpy().tobytes() for value in [variable, *optimizer.variables]]

    def run():
        return apply_finite_gradients(optimizer, [(tf.constant([gradient, 0.0]), variable)], tf.constant(loss))

    stats = tf.function(run, jit_compile=True)() if compiled else run()
    assert (stats.skipped, stats.skip_cause) == (1, cause)
    assert [value.numpy().tobytes() for value in [variable, *optimizer.variables]] == before


def test_clipping_scales_all_gradients_together():
    a, b = tf.Variable(0.0), tf.Variable(0.0)
    stats = apply_finite_gradients(
        tf.keras.optimizers.SGD(1.0), [(tf.constant(3.0), a), (tf.constant(4.0), b)], tf.constant(1.0), 1.0
    )
    np.testing.assert_allclose([a.numpy(), b.numpy()], [-0.6, -0.8], rtol=1e-6)
    assert stats.gradient_norm == 5.0
