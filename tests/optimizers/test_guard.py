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


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.parametrize("most", [None, 1.0])
def test_look_ups_of_one_row_count_together(most, mode):
    table = tf.Variable(tf.zeros([3, 1]))
    optimizer = tf.keras.optimizers.SGD(1.0)
    optimizer.build([table])

    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.gather(table, [1] * 100))
        return apply_finite_gradients(optimizer, zip(tape.gradient(loss, [table]), [table], strict=True), loss, most)

    stats = (step if mode == "eager" else tf.function(step, jit_compile=mode == "xla"))()
    assert stats.gradient_norm == 100
    np.testing.assert_allclose(table[:, 0], [0, -100 if most is None else -1, 0], rtol=1e-6)


def test_a_loss_that_is_no_scalar_is_refused():
    variable = tf.Variable([1.0])
    with pytest.raises(ValueError, match="loss must be a scalar"):
        apply_finite_gradients(tf.keras.optimizers.SGD(), [(tf.ones([1]), variable)], tf.ones([4]))
