import numpy as np
import pytest
import tensorflow as tf

from ngrl.curvature import Bernoulli, Categorical, DiagonalGaussian, MultiCategorical, SquaredError

BATCH, OUTPUTS = 5, 4
CHOSEN = np.array([3, 0, 0, 2, 1])


def softmax(y):
    e = np.exp(y - y.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def diagonal(values):
    return values[..., None] * np.eye(values.shape[-1])


def squared_error(y):
    return np.tile(1.5**2 * np.eye(OUTPUTS), [len(y), 1, 1])


def squared_error_chosen(y):
    return 1.5**2 * diagonal(np.eye(OUTPUTS)[CHOSEN])


def bernoulli(y):
    p = 1 / (1 + np.exp(-y))
    return diagonal(p * (1 - p))


def bernoulli_of_probabilities(y):
    return diagonal(1 / (y * (1 - y)))


def categorical(y):
    p = softmax(y)
    return diagonal(p) - p[:, :, None] * p[:, None, :]


def multi_categorical(y):
    result = np.zeros([*y.shape, OUTPUTS])
    for part in (slice(0, 1), slice(1, 4)):
        result[:, part, part] = categorical(y[:, part])
    return result


def diagonal_gaussian(y):
    log_std = y[:, OUTPUTS // 2 :]
    return diagonal(np.concatenate([np.exp(-2 * log_std), np.full_like(log_std, 2.0)], axis=-1))


CASES = [
    pytest.param(SquaredError(1.5), squared_error, id="squared_error"),
    pytest.param(SquaredError(1.5, CHOSEN), squared_error_chosen, id="chosen"),
    pytest.param(Bernoulli(), bernoulli, id="bernoulli"),
    pytest.param(Bernoulli(from_logits=False), bernoulli_of_probabilities, id="probabilities"),
    pytest.param(Categorical(), categorical, id="categorical"),
    pytest.param(MultiCategorical((1, 3)), multi_categorical, id="multi_categorical"),
    pytest.param(DiagonalGaussian(), diagonal_gaussian, id="gaussian"),
]


@pytest.mark.parametrize(("metric", "dense"), [case for case in CASES if case.id != "chosen"])
def test_samples_scores_have_the_metric_as_second_moment(metric, dense):
    one = np.array([[0.3, 0.6, 0.2, 0.45]])
    scores = metric.sample(tf.constant(np.repeat(one, 40_000, axis=0)), [1, 2]).numpy()
    products = scores[:, :, None] * scores[:, None, :]
    error = products.std(axis=0) / 200
    assert np.all(np.abs(products.mean(axis=0) - dense(one)[0]) <= 5 * error + 1e-12)
    assert np.all(np.abs(scores.mean(axis=0)) <= 5 * scores.std(axis=0) / 200)


all_metrics = pytest.mark.parametrize(("metric", "dense"), CASES)


@pytest.fixture
def y(request, rng):
    outputs = rng.normal(size=[BATCH, OUTPUTS])
    return 1 / (1 + np.exp(-outputs)) if "probabilities" in request.node.name else outputs


@all_metrics
def test_matvec_is_the_closed_form_matrix(metric, dense, y, rng):
    u = rng.normal(size=[BATCH, OUTPUTS])

    np.testing.assert_allclose(metric.matvec(tf.constant(y), u), np.einsum("bkl,bl->bk", dense(y), u), rtol=1e-12)


@all_metrics
def test_factor_times_its_transpose_is_the_matrix(metric, dense, y):
    factor = metric.factor(tf.constant(y)).numpy()

    assert factor.shape == (BATCH, metric.num_rows(OUTPUTS), OUTPUTS)
    np.testing.assert_allclose(np.einsum("brk,brl->bkl", factor, factor), dense(y), rtol=1e-12, atol=1e-14)


@all_metrics
def test_factor_products_agree_with_the_factor(metric, dense, y, rng):
    factor = metric.factor(tf.constant(y)).numpy()
    u, r = rng.normal(size=[BATCH, OUTPUTS]), rng.normal(size=[BATCH, metric.num_rows(OUTPUTS)])

    np.testing.assert_allclose(metric.factor_rmatvec(tf.constant(y), u), np.einsum("brk,bk->br", factor, u))
    np.testing.assert_allclose(metric.factor_matvec(tf.constant(y), r), np.einsum("brk,br->bk", factor, r), atol=1e-14)


@all_metrics
def test_factor_solve_gives_the_shortest_solution(metric, dense, y, rng):
    u = np.einsum("bkl,bl->bk", dense(y), rng.normal(size=[BATCH, OUTPUTS]))
    factor = metric.factor(tf.constant(y)).numpy()
    expected = np.stack([np.linalg.pinv(lt.T, rcond=1e-10) @ ui for lt, ui in zip(factor, u, strict=True)])

    np.testing.assert_allclose(metric.factor_solve(tf.constant(y), u), expected, rtol=1e-9, atol=1e-12)


def test_rounding_in_a_gradient_by_logits_stays_out_of_the_null_space(rng):
    y = tf.constant(rng.normal(size=[BATCH, OUTPUTS]))
    off_range = Categorical().factor_solve(y, np.ones([BATCH, OUTPUTS]))
    sqrt_p = np.sqrt(softmax(y.numpy()))

    np.testing.assert_allclose(np.sum(off_range * sqrt_p, axis=-1), 0, atol=1e-12)


@pytest.mark.parametrize("metric", [Bernoulli(), Categorical()])
def test_extreme_logits_keep_float32_products_finite(metric):
    y = tf.constant([[60.0, -60.0, 0.0, 59.0], [-300.0, 300.0, 0.0, 0.0]])
    gradient = metric.matvec(y, tf.constant([[1.0, 2.0, 3.0, 4.0]] * 2))

    for value in (gradient, metric.factor(y), metric.factor_solve(y, gradient)):
        assert np.isfinite(value).all()
    # sqrt(p (1 - p)) at y = ±60 is exp(-30), where p (1 - p) itself rounds to 0 when formed from p
    if isinstance(metric, Bernoulli):
        np.testing.assert_allclose(metric.factor(y)[0, 0, 0], np.exp(-30.0), rtol=1e-5)


def test_saturated_probabilities_carry_no_curvature_instead_of_infinity():
    y = tf.constant([[0.0, 1.0, 0.5]])
    metric = Bernoulli(from_logits=False)

    np.testing.assert_allclose(metric.matvec(y, tf.ones([1, 3])), [[0, 0, 4]])
    np.testing.assert_allclose(metric.factor_solve(y, tf.ones([1, 3])), [[0, 0, 0.5]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SquaredError(beta=0.0), "beta must be positive"),
        (lambda: SquaredError(chosen=[0.0, 1.0]), "chosen must hold integers"),
        (
            lambda: SquaredError(chosen=[0, 1]).check(tf.zeros([3, 2])),
            r"chosen must have shape \[3\], got \(2,\)",
        ),
        (lambda: SquaredError(chosen=[[0], [1]]).check(tf.zeros([2, 2])), r"chosen must have shape \[2\]"),
        (lambda: SquaredError(chosen=[0, 2]).check(tf.zeros([2, 2])), r"chosen must lie in \[0, 2\)"),
        (lambda: SquaredError(chosen=[0, -1]).check(tf.zeros([2, 2])), r"chosen must lie in \[0, 2\)"),
        (lambda: DiagonalGaussian().check(tf.zeros([2, 3])), r"outputs must be \[B, 2D\]"),
    ],
)
def test_bad_input_is_one_clear_error(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_chosen_outputs_may_be_integers_of_any_dtype(dtype):
    metric = SquaredError(chosen=tf.constant([2, 0], dtype))
    metric.check(tf.zeros([2, 3]))
    np.testing.assert_array_equal(metric.matvec(tf.zeros([2, 3]), tf.ones([2, 3])), [[0, 0, 1], [1, 0, 0]])
