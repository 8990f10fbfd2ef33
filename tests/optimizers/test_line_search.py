import copy
import functools

import numpy as np
import pytest
import tensorflow as tf
from trust_region import MODES, trpo

from ngrl.optimizers import BacktrackingLineSearch, LevenbergMarquardt, NaturalGradient, SkipCause

NAN, INF = float("nan"), float("inf")


class Line:
    """One parameter from 0 with gradient 1 and F = 1: with δ = ½ the full step is -1, to the last bit."""

    def __init__(self, loss=lambda w: w, kl=lambda w: 0 * w, start=0.0):
        self.w = tf.Variable([start], dtype=tf.float64)
        self.loss, self.kl = loss, kl

    def step(self, optimizer, gradient=1.0, curvature=1.0, loss=None):
        operator = tf.linalg.LinearOperatorDiag(
            tf.constant([curvature], tf.float64), is_self_adjoint=True, is_positive_definite=True
        )
        return optimizer.apply_natural_gradient(
            [(tf.constant([gradient], tf.float64), self.w)],
            operator,
            loss=loss,
            loss_fn=lambda: self.loss(self.w[0]),
            divergence_fn=lambda: self.kl(self.w[0]),
        )


def beyond(limit, value, inside):
    """A function of w that is `value` for steps longer than `limit`."""
    return lambda w: tf.where(w < -limit, tf.constant(value, tf.float64), inside(w))


def identity(w):
    return w


def zero(w):
    return 0 * w


LENGTHS = {
    "nothing forbids the full step": (identity, zero, {}, 0),
    "KL may equal max_kl": (identity, lambda w: 0.5 * w**2, {}, 0),
    "KL is too large": (identity, lambda w: 4 * w**2, {}, 2),
    "KL is not a number": (identity, beyond(0.3, NAN, zero), {}, 2),
    "KL is minus infinity": (identity, beyond(0.3, -INF, zero), {}, 2),
    "loss grows": (lambda w: w + 3 * w**2, zero, {}, 2),
    "loss stays": (beyond(0.3, 0.0, identity), zero, {}, 2),
    "loss is not a number": (beyond(0.3, NAN, identity), zero, {}, 2),
    "loss is minus infinity": (beyond(0.3, -INF, identity), zero, {}, 2),
    "decrease is too small": (lambda w: w + w**2, zero, {"min_reduction_ratio": 0.9}, 4),
    "decrease is just enough": (lambda w: w + w**2, zero, {"min_reduction_ratio": 0.5}, 1),
    "another factor": (identity, lambda w: 4 * w**2, {"shrink": 0.7}, 3),
    "only the last length": (identity, lambda w: 1e4 * w**2, {"max_backtracks": 8}, 8),
    "one length only": (identity, zero, {"max_backtracks": 0}, 0),
}


@pytest.mark.parametrize(
    ("case", "mode"),
    [(case, "eager") for case in LENGTHS]
    + [("KL may equal max_kl", "xla"), ("loss is not a number", "graph"), ("loss is not a number", "xla")]
    + [("another factor", "xla"), ("only the last length", "xla"), ("one length only", "xla")],
)
def test_first_length_that_meets_every_condition_is_taken(case, mode):
    loss, kl, options, expected = LENGTHS[case]
    line = Line(loss, kl)
    search = BacktrackingLineSearch(**options)
    optimizer = trpo(line_search=search)
    stats = MODES[mode](lambda: line.step(optimizer))()
    length = search.shrink**expected
    assert stats.backtracks == expected
    assert line.w.numpy()[0] == -length
    np.testing.assert_allclose(stats.step_norm, length, rtol=1e-6)
    np.testing.assert_allclose(stats.predicted_kl, 0.5 * length**2, rtol=1e-6)
    np.testing.assert_allclose(stats.predicted_change, -length, rtol=1e-6)
    np.testing.assert_allclose(stats.line_search_kl, kl(tf.constant(-length, tf.float64)), rtol=1e-6)
    np.testing.assert_allclose(stats.reduction_ratio, loss(tf.constant(-length, tf.float64)) / -length, rtol=1e-6)
    assert (stats.skipped, int(optimizer.iterations)) == (0, 1)


def test_learning_rate_still_bounds_the_full_step():
    line = Line(lambda w: w + 3 * w**2)
    stats = line.step(trpo(learning_rate=0.125))
    assert (line.w.numpy()[0], stats.backtracks) == (-0.125, 0)


def test_loss_argument_is_what_the_step_must_improve_on():
    line = Line()
    stats = line.step(trpo(), loss=tf.constant(-0.3, tf.float64))
    assert (line.w.numpy()[0], stats.backtracks) == (-1.0, 0)
    np.testing.assert_allclose(stats.reduction_ratio, 0.7, rtol=1e-6)  # from -0.3 to -1
    line = Line()
    assert line.step(trpo(), loss=tf.constant(-1.0, tf.float64)).backtracks == 11


def test_every_trial_and_the_result_are_exactly_the_start_plus_the_shortened_step():
    """And the divergence last measured is that of the parameters that stay."""
    generator = np.random.default_rng(3)
    gradients = [generator.normal(size=shape) for shape in [(2, 3), (4,)]]
    search = BacktrackingLineSearch(shrink=0.7, max_backtracks=6)
    operator = tf.linalg.LinearOperatorIdentity(10, dtype=tf.float64)

    def run(starts):
        variables = [tf.Variable(start) for start in starts]
        seen = []

        def divergence():
            seen.append([variable.numpy() for variable in variables])
            return tf.constant(1.0 if len(seen) < 5 else 0.4, tf.float64)

        stats = trpo(line_search=search).apply_natural_gradient(
            zip([tf.constant(gradient) for gradient in gradients], variables, strict=True),
            operator,
            loss=tf.constant(0.0, tf.float64),
            loss_fn=lambda: tf.constant(-1.0, tf.float64),
            divergence_fn=divergence,
        )
        assert stats.backtracks == 4
        assert len(seen) == 5
        for variable, last in zip(variables, seen[-1], strict=True):
            assert variable.numpy().tobytes() == last.tobytes()
        return seen

    full = run([np.zeros_like(gradient) for gradient in gradients])[0]  # from 0 the first trial is the step itself
    starts = [generator.normal(size=gradient.shape) for gradient in gradients]
    for j, trial in enumerate(run(starts)):
        for value, start, change in zip(trial, starts, full, strict=True):
            np.testing.assert_array_equal(value, start + 0.7**j * change)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_measured_are_the_very_bits_that_stay(mode):
    """A compiler may round start + length · step differently where it is measured and where it is kept."""
    generator = np.random.default_rng(0)
    w = tf.Variable(generator.normal(size=64).astype(np.float32))
    start, gradient = w.numpy(), generator.normal(size=64).astype(np.float32)
    optimizer = trpo(1e9, learning_rate=1.0, line_search=BacktrackingLineSearch(shrink=0.7))

    def low_bits():
        return tf.cast(tf.reduce_sum(tf.bitcast(w, tf.int32) & 0xFFF), tf.float32)

    def loss():
        return tf.norm(w - start) - 2.0  # the full step's norm is about 8

    def run():
        return optimizer.apply_natural_gradient(
            [(tf.constant(gradient), w)],
            tf.linalg.LinearOperatorIdentity(64),
            loss=tf.constant(0.0),
            loss_fn=loss,
            divergence_fn=low_bits,
        )

    stats = MODES[mode](run)()
    assert 0 < stats.backtracks < 11
    assert stats.line_search_kl == low_bits()
    expected = start - 0.7 ** float(stats.backtracks) * gradient.astype(np.float64)
    np.testing.assert_allclose(w.numpy(), expected, rtol=1e-6, atol=1e-6)


SPECIAL_VALUES = np.array([-0.0, 0.0, 1e-42, -1e-42, 1.0, -3.4e38, 1e-7, 0.1], np.float32)


@functools.cache
def failing_step(mode):
    """Variables that have made a step, and a function of the loss and the KL at the longest length and at the rest."""
    w = tf.Variable(SPECIAL_VALUES)
    operator = tf.linalg.LinearOperatorIdentity(8)
    optimizer = trpo(momentum=0.9)
    gradient = tf.constant([0.3, -0.1, 0.2, 0.5, 0.7, -0.4, 0.1, 0.6])

    def step(loss_longest, loss_rest, kl_longest, kl_rest):
        def is_longest():
            return w[4] < 0.6  # from 1, along -0.7 / ‖g‖

        return optimizer.apply_natural_gradient(
            [(gradient, w)],
            operator,
            loss=tf.constant(1.0),
            loss_fn=lambda: tf.where(is_longest(), loss_longest, loss_rest),
            divergence_fn=lambda: tf.where(is_longest(), kl_longest, kl_rest),
        )

    return w, optimizer, MODES[mode](step)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("losses", "kls"),
    [
        pytest.param((2.0, 2.0), (0.0, 0.0), id="loss grows"),
        pytest.param((1.0, 1.0), (0.0, 0.0), id="loss is constant"),
        pytest.param((NAN, NAN), (0.0, 0.0), id="loss is not a number"),
        pytest.param((-INF, -INF), (0.0, 0.0), id="loss is minus infinity"),
        pytest.param((2.0, NAN), (0.0, 0.0), id="loss is not a number after a while"),
        pytest.param((INF, 2.0), (0.0, 0.0), id="loss is infinite at first"),
        pytest.param((0.0, 0.0), (NAN, NAN), id="KL is not a number"),
        pytest.param((0.0, 0.0), (0.51, 0.51), id="KL is too large"),
        pytest.param((0.0, 0.0), (0.51, NAN), id="KL is too large, then not a number"),
        pytest.param((0.0, 2.0), (0.51, 0.0), id="now the one, now the other"),
    ],
)
def test_failed_search_leaves_weights_velocity_and_counter_byte_identical(mode, losses, kls):
    w, optimizer, step = failing_step(mode)
    w.assign(SPECIAL_VALUES)
    done = int(optimizer.iterations)
    stats = step(*map(tf.constant, (0.0, 2.0, 0.0, 0.0)))  # the full step is taken: there is a velocity
    assert (stats.backtracks, int(optimizer.iterations)) == (0, done + 1)
    w.assign(SPECIAL_VALUES)
    before = [value.numpy().tobytes() for value in [w, *optimizer.variables]]
    stats = step(*map(tf.constant, losses + kls))
    assert [value.numpy().tobytes() for value in [w, *optimizer.variables]] == before
    assert stats.backtracks == 11
    assert (stats.step_norm, stats.predicted_kl, stats.predicted_change, stats.line_search_kl) == (0, 0, 0, 0)
    assert np.isnan(stats.reduction_ratio)
    assert (stats.skipped, stats.skip_cause) == (0, SkipCause.NONE)


def test_velocity_goes_on_after_a_failed_search():
    line = Line(kl=lambda w: 0.5 * w**2)
    optimizer = trpo(momentum=0.5, learning_rate=0.125)
    line.step(optimizer)
    line.loss = lambda w: tf.constant(5.0, tf.float64)
    line.step(optimizer)
    line.loss = identity
    line.step(optimizer)
    assert line.w.numpy()[0] == -0.125 - 0.125 * 1.5


def must_not_be_called(w):
    raise AssertionError("evaluated without need")


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("gradient", "curvature", "loss", "cause"),
    [
        (1.0, 1.0, NAN, SkipCause.LOSS),
        (INF, 1.0, 0.0, SkipCause.GRADIENT),
        (1.0, NAN, 0.0, SkipCause.CURVATURE_PRODUCT),
    ],
)
def test_numbers_that_are_not_finite_skip_the_step_without_a_search(compiled, gradient, curvature, loss, cause):
    line = Line(start=0.3)
    optimizer = trpo(momentum=0.5, damping=LevenbergMarquardt(1.0))
    line.step(optimizer)
    if not compiled:
        line.loss = line.kl = must_not_be_called
    before = [value.numpy().tobytes() for value in [line.w, *optimizer.variables]]

    def run():
        return line.step(optimizer, gradient, curvature, tf.constant(loss, tf.float64))

    stats = tf.function(run, jit_compile=True)() if compiled else run()
    assert (stats.skipped, stats.skip_cause, stats.backtracks) == (1, cause, 0)
    assert (stats.step_norm, stats.predicted_kl, stats.predicted_change) == (0, 0, 0)
    assert np.isnan(stats.line_search_kl)
    assert [value.numpy().tobytes() for value in [line.w, *optimizer.variables]] == before


@pytest.mark.parametrize("mode", MODES)
def test_zero_gradient_is_a_step_of_zero_without_a_search(mode):
    line = Line(start=0.3)
    if mode == "eager":
        line.loss = line.kl = must_not_be_called
    optimizer = trpo(damping=LevenbergMarquardt(1.0))
    stats = MODES[mode](lambda: line.step(optimizer, gradient=0.0, loss=tf.constant(1.0, tf.float64)))()
    assert line.w.numpy()[0] == 0.3
    assert (stats.backtracks, stats.skipped, stats.step_norm, stats.predicted_change) == (0, 0, 0, 0)
    assert np.isnan(stats.line_search_kl)
    assert optimizer.damping == 1.0


def test_warm_up_from_a_learning_rate_of_zero_goes_on():
    """The count of steps must advance at a step of 0, or the schedule would stay at its start for ever."""
    line = Line()
    schedule = tf.keras.optimizers.schedules.PolynomialDecay(0.0, 2, 0.5)
    optimizer = trpo(learning_rate=schedule)
    lengths = [float(line.step(optimizer).step_norm) for _ in range(3)]
    np.testing.assert_allclose(lengths, [0.0, 0.25, 0.5])


@pytest.mark.parametrize(
    ("loss", "start_loss", "expected"),
    [
        pytest.param(identity, 0.0, 4.0, id="as predicted"),
        pytest.param(lambda w: 0.5 * w, 0.0, 6.0, id="half of what was predicted"),
        pytest.param(lambda w: 0.1 * w, 0.0, 9.0, id="hardly anything"),
        pytest.param(lambda w: -w, 0.0, 9.0, id="failed"),
        pytest.param(lambda w: w + NAN, 0.0, 9.0, id="failed, not finite"),
        pytest.param(lambda w: 0 * w + 1e18, 1e18, 6.0, id="failed, lost in the rounding of the loss"),
        pytest.param(lambda w: w + NAN, 1e18, 9.0, id="failed, not finite, though lost in the rounding of the loss"),
    ],
)
def test_levenberg_marquardt_follows_the_search(loss, start_loss, expected):
    """Gradient 1, F = 1, λ = 6: x = 1/7, and the KL-sized step is 1."""
    line = Line(loss)
    optimizer = trpo(damping=LevenbergMarquardt(6.0))
    stats = line.step(optimizer, loss=tf.constant(start_loss, tf.float64))
    np.testing.assert_allclose(optimizer.damping, expected)
    np.testing.assert_allclose(stats.damping, 6.0)


def test_missing_functions_are_named():
    line = Line()
    operator = tf.linalg.LinearOperatorIdentity(1, dtype=tf.float64)
    pairs = [(tf.constant([1.0], tf.float64), line.w)]
    scalar = lambda: tf.constant(0.0)  # noqa: E731
    with pytest.raises(ValueError, match="needs divergence_fn,"):
        trpo().apply_natural_gradient(pairs, operator, loss_fn=scalar)
    with pytest.raises(ValueError, match="needs loss_fn,"):
        trpo().apply_natural_gradient(pairs, operator, divergence_fn=scalar)
    with pytest.raises(ValueError, match="needs loss_fn and divergence_fn,"):
        trpo().apply_natural_gradient(pairs, operator)


def test_functions_must_return_scalars():
    with pytest.raises(ValueError, match=r"divergence_fn.* must be a scalar"):
        Line(kl=lambda w: tf.stack([w, w])).step(trpo())


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"shrink": 0.0}, "shrink"),
        ({"shrink": 1.0}, "shrink"),
        ({"shrink": NAN}, "shrink"),
        ({"max_backtracks": -1}, "max_backtracks"),
        ({"max_backtracks": 2.5}, "max_backtracks"),
        ({"max_backtracks": True}, "max_backtracks"),
        ({"min_reduction_ratio": -0.1}, "min_reduction_ratio"),
        ({"min_reduction_ratio": 1.0}, "min_reduction_ratio"),
        ({"min_reduction_ratio": NAN}, "min_reduction_ratio"),
    ],
)
def test_wrong_arguments_are_named(option, message):
    with pytest.raises(ValueError, match=message):
        BacktrackingLineSearch(**option)


def test_line_search_without_max_kl_or_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="max_kl"):
        NaturalGradient(line_search=BacktrackingLineSearch())
    with pytest.raises(ValueError, match="line_search"):
        NaturalGradient(max_kl=0.1, line_search=0.5)


def test_line_search_round_trips_alone_and_inside_the_optimizer():
    search = BacktrackingLineSearch(shrink=0.8, max_backtracks=7, min_reduction_ratio=0.1)
    config = tf.keras.utils.serialize_keras_object(search)
    assert config["class_name"] == "BacktrackingLineSearch"
    restored = tf.keras.utils.deserialize_keras_object(copy.deepcopy(config))
    assert restored.get_config() == {"shrink": 0.8, "max_backtracks": 7, "min_reduction_ratio": 0.1}
    optimizer = NaturalGradient(None, max_kl=0.02, line_search=config)
    whole = tf.keras.optimizers.serialize(optimizer)
    again = tf.keras.optimizers.deserialize(copy.deepcopy(whole))
    assert isinstance(again.line_search, BacktrackingLineSearch)
    assert tf.keras.optimizers.serialize(again) == whole
