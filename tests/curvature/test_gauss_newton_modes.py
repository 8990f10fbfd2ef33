"""`GaussNewton` under eager, graph and XLA, in loops, in every float dtype, and with bad input."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from ngrl.curvature import Categorical, DiagonalGaussian, GaussNewton, SquaredError, num_parameters

B, D, H, K = 5, 3, 4, 4
WEIGHTS = np.array([1.0, 2.0, 0.0, 0.5, 3.0])
METRICS = {"all": SquaredError(1.7), "chosen": SquaredError(1.7, [0, 3, 1, 1, 2]), "categorical": Categorical()}
PATHS = {"stack": lambda model: model, "general": lambda model: lambda inputs: model(inputs)}
each_path = pytest.mark.parametrize("path", list(PATHS))


@pytest.fixture(scope="module")
def model(mlp):
    return mlp([D, H, K])


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(3).normal(size=[B, D])


def make(model, x, path="stack", metric="all", weights=None):
    return GaussNewton(PATHS[path](model), model.trainable_variables, x, METRICS[metric], weights)


# --- eager, graph, XLA; loops; dtypes -----------------------------------------------------------------------


@each_path
def test_eager_graph_and_xla_agree(model, x, path, run, rng):
    reference = make(model, x, path, "categorical", WEIGHTS)
    v, u = (
        rng.normal(size=reference.shape[0]),
        reference.outputs - tf.reduce_mean(reference.outputs, -1, True),
    )

    def products(operator):
        c = operator.row_coefficients(u)
        return (
            operator.matvec(v),
            operator.gram(),
            operator.row_rmatvec(c),
            operator.row_matvec(v),
            operator.trace(),
        )

    compiled = run(lambda inputs: products(make(model, inputs, path, "categorical", WEIGHTS)))
    for value, expected in zip(compiled(tf.constant(x)), products(reference), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-12)


@each_path
@pytest.mark.parametrize("metric", ["all", "chosen"])
@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
def test_rows_first_used_in_a_loop_do_not_leak_out_of_it(model, x, path, metric, jit, rng):
    c = rng.normal(size=B * (1 if metric == "chosen" else K))

    @tf.function(jit_compile=jit)
    def power(c):
        operator = make(model, x, path, metric)

        def step(index, c):
            return index + 1, operator.row_matvec(operator.matvec(operator.row_rmatvec(c))) + operator.gram()[0]

        _, inside = tf.while_loop(lambda index, _: index < 2, step, (0, c))
        return tf.linalg.matvec(operator.gram(), inside)

    gram = make(model, x, path, metric).gram().numpy()
    expected = c
    for _ in range(2):
        expected = gram @ gram @ expected + gram[0]
    np.testing.assert_allclose(power(tf.constant(c)), gram @ expected, rtol=1e-9)


def test_rows_made_before_a_loop_are_shared_by_it(model, x):
    found = []

    @tf.function
    def loop():
        operator = make(model, x)
        operator.gram()
        before = operator._rows()
        tf.while_loop(lambda i: i < 2, lambda i: found.append(operator._rows() is before) or i + 1, [0])

    loop()
    assert found == [True]


@each_path
def test_an_operator_made_in_a_compiled_training_loop_follows_the_parameters(mlp, x, path):
    def train(model, steps):
        variables = model.trainable_variables
        for _ in tf.range(steps) if tf.inside_function() else range(steps):
            operator = make(model, x, path, "chosen", WEIGHTS)
            step = operator.matvec(operator.row_rmatvec(operator.row_coefficients(operator.outputs)))
            for variable in variables:
                variable.assign_sub(0.1 * tf.reshape(step[: variable.shape.num_elements()], variable.shape))
        return operator_after(model, path)

    def operator_after(model, path):
        return make(model, x, path, "chosen").matvec(np.ones(num_parameters(model.trainable_variables)))

    plain, compiled = mlp([D, H, K]), mlp([D, H, K])
    before = operator_after(plain, path)
    expected = train(plain, 3)
    value = tf.function(train, jit_compile=True)(compiled, 3)

    np.testing.assert_allclose(value, expected, rtol=1e-9)
    assert np.abs(expected - before).max() > 1e-3
    for a, b in zip(plain.trainable_variables, compiled.trainable_variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


@each_path
def test_matmul_multiplies_every_column(model, x, path, rng):
    operator = make(model, x, path)
    dense = operator.to_dense().numpy()
    columns = rng.normal(size=[len(dense), 3])

    np.testing.assert_allclose(operator.matmul(columns), dense @ columns, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(operator.matmul(columns.T, adjoint_arg=True), dense @ columns, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(operator.matvec(columns.T), columns.T @ dense, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(operator.adjoint().matvec(columns[:, 0]), dense @ columns[:, 0], rtol=1e-9)


@each_path
@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("float16", 2e-2), ("bfloat16", 1e-1)])
def test_lower_precisions_agree_with_float64(mlp, x, path, dtype, rtol, rng):
    wide, narrow = mlp([D, H, K]), mlp([D, H, K], dtype=dtype)
    expected = make(wide, x, path, "categorical", WEIGHTS)
    operator = make(narrow, tf.cast(x, dtype), path, "categorical", WEIGHTS)
    v = rng.normal(size=expected.shape[0])
    c = rng.normal(size=B * K)
    narrow_v, narrow_c = tf.cast(v, dtype), tf.cast(c, dtype)

    assert operator.dtype == dtype
    for value, reference in (
        (operator.matvec(narrow_v), expected.matvec(v)),
        (operator.gram(), expected.gram()),
        (operator.row_rmatvec(narrow_c), expected.row_rmatvec(c)),
        (operator.row_matvec(narrow_v), expected.row_matvec(v)),
    ):
        assert value.dtype == dtype
        np.testing.assert_allclose(tf.cast(value, tf.float64), reference, atol=rtol * np.abs(reference).max())


def test_keeps_the_parameters_it_was_made_at(mlp, x, rng):
    model = mlp([D, H, K])
    operator = make(model, x)
    v = rng.normal(size=operator.shape[0])
    before = operator.matvec(v)
    model.trainable_variables[0].assign_add(tf.ones([D, H], tf.float64))

    np.testing.assert_array_equal(operator.matvec(v), before)


# --- memory -------------------------------------------------------------------------------------------------

_PEAK = """
import ngrl
import tensorflow as tf
from ngrl.curvature import GaussNewton, num_parameters

def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

def network(width):
    dense = lambda size: tf.keras.layers.Dense(size, "tanh", kernel_initializer="zeros")
    model = tf.keras.Sequential([dense(width), dense(width), dense(width // 5), dense(4)])
    model.build([None, 8])
    return model

def product(model):
    variables = model.trainable_variables
    vector = tf.ones([num_parameters(variables)])
    base = status("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
    GaussNewton(lambda inputs: model(inputs), variables, tf.ones([32, 8])).matvec(vector)
    return (status("VmHWM") - base) / (4 * num_parameters(variables))

product(network(16))
print(product(network(2048)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_product_on_five_million_parameters_needs_few_vectors():
    result = subprocess.run([sys.executable, "-c", _PEAK], capture_output=True, text=True, check=True)
    vectors = float(result.stdout.split()[-1])

    # beside the weights and v: v cut up, the gradient in parts, and joined
    assert 1 < vectors < 6


# --- bad input ----------------------------------------------------------------------------------------------


def test_bad_input_is_one_clear_error(model, x):
    variables = model.trainable_variables
    other = tf.Variable([1.0], dtype=tf.float32)
    integer = tf.Variable([1], dtype=tf.int32)

    def check(message, *args, **kwargs):
        with pytest.raises(ValueError, match=message) as caught:
            GaussNewton(*args, **kwargs)
        assert "\n" not in str(caught.value)

    check("variables is empty", model, [], x)
    check("variables holds a variable twice", model, [variables[0], variables[0]], x)
    check("share one dtype, got float32, float64", model, [*variables, other], x)
    check("float dtype, got int32", model, [integer], x)
    check(r"outputs of shape \[B, K\], got \(5,\)", lambda inputs: model(inputs)[:, 0], variables, x)
    check(r"outputs of shape \[B, K\], got \(5, 1, 4\)", lambda inputs: model(inputs)[:, None], variables, x)
    check(r"must return a tensor .* got a tuple", lambda inputs: (model(inputs), ()), variables, x)
    check("batch sizes differ", lambda inputs: model(inputs)[:3], variables, x)
    check("returned float32, the variables are float64", lambda i: tf.cast(model(i), tf.float32), variables, x)
    check("inputs hold no tensor", lambda inputs: model(x), variables, ())
    check(r"chosen must have shape \[5\], got \(3,\)", model, variables, x, SquaredError(chosen=[0, 1, 2]))
    check(r"outputs must be \[B, 2D\]", lambda i: model(i)[:, :3], variables, x, DiagonalGaussian())
    check(r"weights must have shape \[5\], got \(3,\)", model, variables, x, weights=np.ones(3))
    check(r"weights must have shape \[5\], got \(\)", model, variables, x, weights=1.0)
    check("weights must not be negative, got -1.0", model, variables, x, weights=[1.0, 1.0, -1.0, 1.0, 1.0])
    check("chunk_size must be a positive integer", lambda i: model(i), variables, x, chunk_size=0)


@each_path
def test_vectors_of_another_shape_are_refused(model, x, path):
    operator = make(model, x, path)

    for method, shape in (
        (operator.matvec, [7]),
        (operator.jvp, [7]),
        (operator.vjp, [B, K + 1]),
        (operator.row_matvec, [7]),
        (operator.row_rmatvec, [1]),
        (operator.row_coefficients, [B]),
    ):
        with pytest.raises(ValueError, match=r"shape|Dimensions"):
            method(tf.zeros(shape, tf.float64))
