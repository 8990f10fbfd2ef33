import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ngrl.curvature import (
    Bernoulli,
    Categorical,
    DiagonalGaussian,
    GaussNewton,
    SquaredError,
    flatten,
    num_parameters,
)

B, D, H, K = 5, 3, 4, 4
CHOSEN = np.array([0, 3, 1, 1, 2])
WEIGHTS = np.array([1.0, 2.0, 0.0, 0.5, 3.0])
METRICS = {
    "all": SquaredError(1.7),
    "chosen": SquaredError(1.7, CHOSEN),
    "bernoulli": Bernoulli(),
    "categorical": Categorical(),
    "gaussian": DiagonalGaussian(),
}
PATHS = {"stack": lambda model: model, "general": lambda model: lambda inputs: model(inputs)}
each_path = pytest.mark.parametrize("path", list(PATHS))
each_metric = pytest.mark.parametrize("metric", list(METRICS))


@pytest.fixture(scope="module")
def model(mlp):
    return mlp([D, H, K])


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(3).normal(size=[B, D])


def metric_matrices(name, y):
    """M [B, K, K] in closed form."""
    if name == "all":
        return np.tile(1.7**2 * np.eye(K), [B, 1, 1])
    if name == "chosen":
        return 1.7**2 * np.eye(K)[CHOSEN][:, :, None] * np.eye(K)
    if name == "bernoulli":
        p = 1 / (1 + np.exp(-y))
        return (p * (1 - p))[:, :, None] * np.eye(K)
    if name == "categorical":
        p = np.exp(y) / np.exp(y).sum(-1, keepdims=True)
        return p[:, :, None] * np.eye(K) - p[:, :, None] * p[:, None, :]
    log_std = y[:, K // 2 :]
    return np.concatenate([np.exp(-2 * log_std), np.full_like(log_std, 2)], -1)[:, :, None] * np.eye(K)


def make(model, x, path="stack", metric="all", weights=None):
    return GaussNewton(PATHS[path](model), model.trainable_variables, x, METRICS[metric], weights)


# --- against references -------------------------------------------------------------------------------------


@each_path
@each_metric
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "masked"])
def test_products_equal_the_dense_matrix_built_column_by_column(
    model, x, path, metric, weights, reference_jacobian, dense_gauss_newton, rng
):
    jacobian = reference_jacobian([w.numpy() for w in model.trainable_variables], x)
    y = model(x).numpy()
    expected = dense_gauss_newton(jacobian, metric_matrices(metric, y), weights)
    operator = make(model, x, path, metric, weights)
    v, z = rng.normal(size=len(expected)), rng.normal(size=[B, K])

    np.testing.assert_allclose(operator.matvec(v), expected @ v, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(operator.to_dense(), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(operator.diag_part(), np.diag(expected), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(operator.jvp(v), jacobian @ v, rtol=1e-10)
    np.testing.assert_allclose(operator.vjp(z), np.einsum("bkp,bk->p", jacobian, z), rtol=1e-9, atol=1e-12)
    assert operator.shape == expected.shape
    assert operator.is_self_adjoint
    np.testing.assert_allclose(operator.outputs, y, rtol=1e-14)


def functional_mlp(theta, x, head=None):
    """The network as a function of the flat parameter vector, written out."""
    kernel_1, bias_1, kernel_2, bias_2 = tf.split(theta, [D * H, H, H * K, K])
    hidden = tf.tanh(x @ tf.reshape(kernel_1, [D, H]) + bias_1)
    y = hidden @ tf.reshape(kernel_2, [H, K]) + bias_2
    return y if head is None else head(y)


def bernoulli_kl(p, q):
    return tf.reduce_sum(p * tf.math.log(p / q) + (1 - p) * tf.math.log((1 - p) / (1 - q)), -1)


def categorical_kl(y_old, y):
    log_p, log_q = tf.nn.log_softmax(y_old), tf.nn.log_softmax(y)
    return tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), -1)


def gaussian_kl(y_old, y):
    (m_old, s_old), (m, s) = tf.split(y_old, 2, -1), tf.split(y, 2, -1)
    return tf.reduce_sum(s - s_old + (tf.exp(2 * s_old) + (m - m_old) ** 2) / (2 * tf.exp(2 * s)) - 0.5, -1)


DIVERGENCES = {
    "all": (None, SquaredError(1.7), lambda old, y: 0.5 * 1.7**2 * tf.reduce_sum((y - old) ** 2, -1)),
    "chosen": (
        None,
        SquaredError(1.7, CHOSEN),
        lambda old, y: 0.5 * 1.7**2 * tf.gather((y - old) ** 2, CHOSEN, batch_dims=1),
    ),
    "bernoulli": (None, Bernoulli(), lambda old, y: bernoulli_kl(tf.sigmoid(old), tf.sigmoid(y))),
    "probabilities": (tf.sigmoid, Bernoulli(from_logits=False), bernoulli_kl),
    "categorical": (None, Categorical(), categorical_kl),
    "gaussian": (None, DiagonalGaussian(), gaussian_kl),
}


@each_path
@pytest.mark.parametrize("case", list(DIVERGENCES))
def test_equals_the_hessian_of_the_divergence_at_the_old_parameters(model, x, path, case):
    head, metric, divergence = DIVERGENCES[case]
    theta = flatten(model.trainable_variables)
    old = functional_mlp(theta, x, head)
    with tf.GradientTape(persistent=True) as outer:
        outer.watch(theta)
        with tf.GradientTape() as inner:
            inner.watch(theta)
            loss = tf.reduce_sum(WEIGHTS * divergence(old, functional_mlp(theta, x, head))) / WEIGHTS.sum()
        gradient = inner.gradient(loss, theta)
    hessian = outer.jacobian(gradient, theta, experimental_use_pfor=False)

    forward = model
    if head is not None:
        activation = tf.keras.layers.Activation("sigmoid", dtype="float64")
        forward = tf.keras.Sequential([*model.layers, activation])
    operator = GaussNewton(PATHS[path](forward), model.trainable_variables, x, metric, WEIGHTS)
    np.testing.assert_allclose(operator.to_dense(), hessian, atol=1e-8 * np.abs(hessian).max())


def test_state_independent_log_std_is_part_of_the_fisher_matrix(x, mlp):
    means = mlp([D, H, 2])
    log_std = tf.Variable([0.3, -0.2], dtype=tf.float64)

    def forward(inputs):
        mean = means(inputs)
        return tf.concat([mean, tf.broadcast_to(log_std, tf.shape(mean))], axis=-1)

    operator = GaussNewton(forward, [*means.trainable_variables, log_std], x, DiagonalGaussian())
    fisher = operator.to_dense().numpy()

    np.testing.assert_allclose(fisher[-2:, -2:], 2 * np.eye(2), rtol=1e-12)
    np.testing.assert_allclose(fisher[-2:, :-2], 0, atol=1e-14)
    np.testing.assert_allclose(operator.matvec(np.ones(len(fisher))), fisher.sum(axis=1), rtol=1e-10)


# --- rows ---------------------------------------------------------------------------------------------------


@each_path
@each_metric
def test_rows_factor_the_matrix_and_the_gram(model, x, path, metric, rng):
    operator = make(model, x, path, metric, WEIGHTS)
    a = operator.row_matrix().numpy()
    v, c = rng.normal(size=a.shape[1]), rng.normal(size=a.shape[0])

    assert a.shape[0] == B * operator.rows_per_example
    np.testing.assert_allclose(operator.matvec(v), a.T @ (a @ v), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(operator.gram(), a @ a.T, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(operator.row_matvec(v), a @ v, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(operator.row_rmatvec(c), a.T @ c, rtol=1e-9, atol=1e-12)


def losses(name, y, rng):
    """Per-example losses of outputs y that match the metric, with made-up targets."""
    if name in ("all", "chosen"):
        error = 0.5 * (y - rng.normal(size=[B, K])) ** 2
        return tf.reduce_sum(error, -1) if name == "all" else tf.gather(error, CHOSEN, batch_dims=1)
    if name == "bernoulli":
        labels = rng.integers(0, 2, [B, K]).astype(float)
        return tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(labels, y), -1)
    if name == "categorical":
        advantages = rng.normal(size=B)
        return -advantages * tf.gather(tf.nn.log_softmax(y), CHOSEN, batch_dims=1)
    mean, log_std = tf.split(y, 2, -1)
    return tf.reduce_sum(log_std + 0.5 * ((rng.normal(size=[B, K // 2]) - mean) / tf.exp(log_std)) ** 2, -1)


@each_path
@each_metric
def test_row_coefficients_represent_the_gradient_of_the_matching_loss(model, x, path, metric, rng):
    operator = make(model, x, path, metric, WEIGHTS)
    variables = model.trainable_variables
    with tf.GradientTape(persistent=True) as tape:
        y = model(x)
        loss = tf.reduce_sum(WEIGHTS * losses(metric, y, rng)) / WEIGHTS.sum()
    coefficients = operator.row_coefficients(tape.gradient(loss, y))

    np.testing.assert_allclose(
        operator.row_rmatvec(coefficients), flatten(tape.gradient(loss, variables)), rtol=1e-9, atol=1e-13
    )
    masked = np.repeat(WEIGHTS == 0, operator.rows_per_example)
    assert not coefficients.numpy()[masked].any()


# --- properties ---------------------------------------------------------------------------------------------


@each_path
@each_metric
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-3, 1.0, 1e4]))
def test_is_symmetric_linear_and_positive_semi_definite(model, x, path, metric, seed, scale):
    key = (path, metric)
    if key not in _PRODUCTS:
        variables = model.trainable_variables

        @tf.function
        def product(vectors, weights):
            operator = GaussNewton(PATHS[path](model), variables, x, METRICS[metric], weights)
            return tf.stack([operator.matvec(vectors[index]) for index in range(3)])

        _PRODUCTS[key] = product
    draw = np.random.default_rng(seed)
    weights = draw.exponential(size=B) * (draw.random(B) < 0.7)
    u, v = scale * draw.normal(size=[2, num_parameters(model.trainable_variables)])
    a, b = draw.normal(size=2)
    fu, fv, fw = _PRODUCTS[key](tf.stack([u, v, a * u + b * v]), weights).numpy()
    tolerance = 1e-11 * (1 + np.linalg.norm(u) * (np.linalg.norm(fu) + np.linalg.norm(fv)))

    np.testing.assert_allclose(v @ fu, u @ fv, atol=tolerance)
    np.testing.assert_allclose(fw, a * fu + b * fv, atol=1e-11 * scale * (1 + np.abs(fw).max()))
    assert u @ fu >= -tolerance


_PRODUCTS: dict = {}


# --- weights ------------------------------------------------------------------------------------------------


@each_path
def test_all_zero_weights_give_the_zero_operator(model, x, path, rng):
    operator = make(model, x, path, "categorical", np.zeros(B))
    v, u = rng.normal(size=operator.shape[0]), rng.normal(size=[B, K])

    for value in (operator.matvec(v), operator.gram(), operator.to_dense(), operator.row_coefficients(u)):
        assert not value.numpy().any()


@each_path
def test_only_the_proportions_of_the_weights_count(model, x, path, rng):
    v = rng.normal(size=num_parameters(model.trainable_variables))
    expected = make(model, x, path).matvec(v)

    np.testing.assert_allclose(make(model, x, path, weights=np.full(B, 17)).matvec(v), expected, rtol=1e-12)
    np.testing.assert_allclose(make(model, x, path, weights=np.full(B, True)).matvec(v), expected, rtol=1e-12)


def test_zero_weight_leaves_an_example_out(model, x, rng):
    kept = WEIGHTS > 0
    v = rng.normal(size=num_parameters(model.trainable_variables))

    np.testing.assert_allclose(
        make(model, x, weights=WEIGHTS).matvec(v),
        make(model, x[kept], weights=WEIGHTS[kept]).matvec(v),
        rtol=1e-12,
    )
