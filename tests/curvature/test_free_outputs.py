"""A `DenseStack` whose last outputs are a variable of their own, against the general path and dense Jacobians."""

import numpy as np
import pytest
import tensorflow as tf

from ngrl import solvers
from ngrl.curvature import Categorical, DenseStack, DiagonalGaussian, GaussNewton, SquaredError, num_parameters
from ngrl.curvature.stack_jacobian import StackJacobian

B, INPUTS = 5, 3
WEIGHTS = np.array([1.0, 2.0, 0.0, 0.5, 3.0])
BETA, CHOSEN = 1.7, [0, 5, 3, 4, 1]  # of six outputs, some the chain's and some free

# outputs of the chain, free outputs, metric
CASES = {
    "gaussian": (3, 3, DiagonalGaussian()),
    "gaussian-uneven": (4, 2, DiagonalGaussian()),
    "all": (1, 5, SquaredError(BETA)),
    "chosen": (4, 2, SquaredError(BETA, CHOSEN)),
    "categorical": (5, 1, Categorical()),
}
each_case = pytest.mark.parametrize("case", list(CASES))
each_weights = pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "masked"])
LAST = 6
each_place = pytest.mark.parametrize("place", [0, 3, LAST], ids=["first", "within", "last"])


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(11).normal(size=[B, INPUTS])


@pytest.fixture(scope="module")
def build(mlp):
    """(stack, the same as an ordinary function, variables) with tanh behind the last layer."""

    def build(case="gaussian", place=LAST, dtype="float64"):
        size, num_free, _ = CASES[case]
        model = mlp([INPUTS, 5, 4, size], dtype=dtype)
        free = tf.Variable(np.random.default_rng(5).normal(0, 0.5, num_free), dtype=dtype)

        def plain(inputs):
            chain = tf.tanh(model(inputs))
            return tf.concat([chain, tf.tile(free[tf.newaxis], [tf.shape(chain)[0], 1])], axis=1)

        variables = list(model.trainable_variables)
        assert len(variables) == LAST
        variables.insert(place, free)
        stack = DenseStack([*model.layers, tf.keras.layers.Activation("tanh", dtype=dtype)], free)
        return stack, plain, variables

    return build


def is_layerwise(operator):
    return isinstance(operator._jacobian, StackJacobian)


def row_factors(outputs, case):
    """Lᵀ [B, R, K + D] of every example, written down from the metrics' formulas."""
    y = np.asarray(outputs)
    eye = np.eye(6)
    if case.startswith("gaussian"):
        root = np.concatenate([np.exp(-y[:, 3:]), np.full([B, 3], np.sqrt(2))], axis=1)
        return root[:, :, np.newaxis] * eye
    if case == "all":
        return np.tile(BETA * eye, [B, 1, 1])
    if case == "chosen":
        return BETA * eye[CHOSEN][:, np.newaxis, :]
    p = np.exp(y) / np.exp(y).sum(1, keepdims=True)
    return np.sqrt(p)[:, :, np.newaxis] * (eye - p[:, np.newaxis, :])


def dense_rows(jacobian, outputs, case, weights):
    """A [n, P] from J [B, K + D, P]."""
    weights = np.ones(B) if weights is None else weights
    rows = np.einsum("b,brk,bkp->brp", np.sqrt(weights / weights.sum()), row_factors(outputs, case), jacobian)
    return rows.reshape(-1, rows.shape[-1])


def products(operator, v, z, c, u):
    """Products of an operator, for vectors of P, B·(K + D), n and B·(K + D) entries."""
    return {
        "outputs": operator.outputs,
        "matvec": operator.matvec(v),
        "jvp": operator.jvp(v),
        "vjp": operator.vjp(z),
        "row_matvec": operator.row_matvec(v),
        "row_rmatvec": operator.row_rmatvec(c),
        "row_coefficients": operator.row_coefficients(u),
        "gram": operator.gram(),
        "row_matrix": operator.row_matrix(),
        "diag_part": operator.diag_part(),
        "to_dense": operator.to_dense(),
    }


def vectors(rng, variables, case):
    """v, z, c, u for `products`; u lies in the range of every metric with Σ_k u_k = 0."""
    z, u = rng.normal(size=[2, B, 6])
    num_rows = B * (1 if case == "chosen" else 6)
    return rng.normal(size=num_parameters(variables)), z, rng.normal(size=num_rows), u - u.mean(1, keepdims=True)


def assert_same(values, expected, rtol=1e-9, atol=1e-11):
    assert values.keys() == expected.keys()
    for name, value in values.items():
        np.testing.assert_allclose(value, expected[name], rtol=rtol, atol=atol, err_msg=name)


# --- values -------------------------------------------------------------------------------------------------


@each_weights
@each_case
def test_layerwise_products_equal_the_general_ones(build, x, case, weights, rng):
    stack, plain, variables = build(case, place=3)
    operator = GaussNewton(stack, variables, x, CASES[case][2], weights)
    general = GaussNewton(plain, variables, x, CASES[case][2], weights)

    assert is_layerwise(operator)
    assert not is_layerwise(general)
    given = vectors(rng, variables, case)
    assert_same(products(operator, *given), products(general, *given))


@each_place
@each_weights
@each_case
def test_products_are_those_of_the_dense_jacobian(build, x, case, weights, place, rng, batch_jacobian):
    stack, plain, variables = build(case, place)
    operator = GaussNewton(stack, variables, x, CASES[case][2], weights)
    jacobian = batch_jacobian(plain, variables, tf.constant(x))
    rows = dense_rows(jacobian, plain(x), case, weights)
    v, z, c, u = vectors(rng, variables, case)

    assert is_layerwise(operator)
    expected = {
        "outputs": plain(x),
        "matvec": rows.T @ (rows @ v),
        "jvp": jacobian @ v,
        "vjp": np.einsum("bkp,bk->p", jacobian, z),
        "row_matvec": rows @ v,
        "row_rmatvec": rows.T @ c,
        "gram": rows @ rows.T,
        "row_matrix": rows,
        "diag_part": (rows**2).sum(0),
        "to_dense": rows.T @ rows,
    }
    found = products(operator, v, z, c, u)
    del found["row_coefficients"]
    assert_same(found, expected)


def test_free_outputs_are_independent_of_the_inputs(build, x):
    stack, _, variables = build()
    outputs = stack(x)

    np.testing.assert_array_equal(outputs[:, 3:], np.tile(variables[-1].numpy(), [B, 1]))
    assert np.ptp(outputs[:, :3].numpy(), axis=0).min() > 1e-3


def test_variables_end_with_the_free_outputs(build):
    stack, _, variables = build()

    assert [variable.ref() for variable in stack.variables] == [variable.ref() for variable in variables]


def test_a_tape_reaches_every_variable_through_a_call(build, x, rng):
    stack, plain, variables = build()
    weights = rng.normal(size=[B, 6])

    def gradient(forward):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(weights * tf.square(forward(x)))
        return tape.gradient(loss, variables)

    for value, expected in zip(gradient(stack), gradient(plain), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-10)


def test_one_dense_layer_without_bias_is_enough(x, rng):
    layer = tf.keras.layers.Dense(2, use_bias=False, dtype="float64")
    layer.build([None, INPUTS])
    free = tf.Variable([0.3], dtype=tf.float64)
    operator = GaussNewton(DenseStack([layer], free), [free, layer.kernel], x)
    rows = np.zeros([B, 3, 1 + 2 * INPUTS])
    rows[:, 2, 0] = 1
    rows[:, 0, 1::2] = rows[:, 1, 2::2] = x
    rows = rows.reshape(-1, rows.shape[-1]) / np.sqrt(B)

    np.testing.assert_allclose(operator.row_matrix(), rows, rtol=1e-14)
    np.testing.assert_allclose(operator.gram(), rows @ rows.T, rtol=1e-13, atol=1e-15)


# --- modes and dtypes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["gaussian", "chosen"])
def test_eager_graph_and_xla_agree(build, x, case, run, rng):
    stack, _, variables = build(case, place=0)
    given = vectors(rng, variables, case)
    metric = CASES[case][2]

    def compute(inputs, *given):
        operator = GaussNewton(stack, variables, inputs, metric, WEIGHTS)
        assert is_layerwise(operator)
        return products(operator, *given)

    found = run(compute)(*[tf.constant(argument) for argument in (x, *given)])
    assert_same(found, compute(x, *given), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
def test_the_batch_size_may_be_unknown(build, x, jit, rng):
    stack, _, variables = build()
    v, c = rng.normal(size=num_parameters(variables)), rng.normal(size=B * 6)

    def compute(x, v, c):
        operator = GaussNewton(stack, variables, x, DiagonalGaussian())
        assert operator.outputs.shape.as_list() == ([B, 6] if tf.executing_eagerly() else [None, 6])
        return [operator.gram(), operator.matvec(v), operator.row_rmatvec(c), operator.row_matvec(v)]

    arguments = [tf.constant(argument) for argument in (x, v, c)]
    signature = [
        tf.TensorSpec([None, INPUTS], x.dtype),
        tf.TensorSpec(v.shape, v.dtype),
        tf.TensorSpec([None], x.dtype),
    ]
    compiled = tf.function(compute, input_signature=signature, jit_compile=jit)
    for value, expected in zip(compiled(*arguments), compute(*arguments), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 2e-2), ("bfloat16", 1e-1)])
def test_lower_precisions_agree_with_float64(build, x, dtype, tolerance, rng):
    wide, _, wide_variables = build()
    narrow, _, variables = build(dtype=dtype)
    given = vectors(rng, variables, "gaussian")
    expected = products(GaussNewton(wide, wide_variables, x, DiagonalGaussian()), *given)
    operator = GaussNewton(narrow, variables, tf.cast(x, dtype), DiagonalGaussian())

    for name, value in products(operator, *[tf.cast(vector, dtype) for vector in given]).items():
        assert value.dtype == dtype
        atol = tolerance * np.abs(expected[name]).max()
        np.testing.assert_allclose(tf.cast(value, tf.float64), expected[name], atol=atol, err_msg=name)


@each_weights
@pytest.mark.parametrize("case", ["gaussian", "chosen"])
def test_the_dual_solution_is_the_primal_one(build, x, case, weights, run, rng, batch_jacobian):
    stack, plain, variables = build(case, place=0)
    metric, damping = CASES[case][2], 0.05
    jacobian = batch_jacobian(plain, variables, tf.constant(x))
    rows = dense_rows(jacobian, plain(x), case, weights)
    c = rng.normal(size=len(rows))
    # The gradient u of each output that c is the coefficients of: u_i = sqrt(w_i/Σw) L_i c_i.
    share = np.ones(B) / B if weights is None else weights / weights.sum()
    u = np.einsum("b,brk,br->bk", np.sqrt(share), row_factors(plain(x), case), c.reshape(B, -1))
    expected = np.linalg.solve(rows.T @ rows + damping * np.eye(rows.shape[1]), np.einsum("bkp,bk->p", jacobian, u))

    def solve(inputs, u):
        operator = GaussNewton(stack, variables, inputs, metric, weights)
        dual = solvers.Dual(solver=solvers.Cholesky())
        return dual.solve_rows(operator, operator.row_coefficients(u), damping).value

    np.testing.assert_allclose(run(solve)(tf.constant(x), tf.constant(u)), expected, rtol=1e-8, atol=1e-10)


def test_keeps_the_free_outputs_it_was_made_at(build, x, rng):
    stack, _, variables = build()
    operator = GaussNewton(stack, variables, x, DiagonalGaussian())
    v = rng.normal(size=num_parameters(variables))
    before = operator.matvec(v)
    variables[-1].assign_add(tf.ones_like(variables[-1]))

    np.testing.assert_array_equal(operator.matvec(v), before)
    after = GaussNewton(stack, variables, x, DiagonalGaussian()).matvec(v)
    assert np.abs(after - before).max() > 1e-3


# --- which path, and at what price --------------------------------------------------------------------------


def test_a_subset_of_the_variables_takes_the_general_path(build, x):
    stack, _, variables = build()
    whole = GaussNewton(stack, variables, x, DiagonalGaussian()).to_dense()

    for subset, part in ((variables[:-1], np.s_[:-3, :-3]), (variables[-1:], np.s_[-3:, -3:])):
        operator = GaussNewton(stack, subset, x, DiagonalGaussian())
        assert not is_layerwise(operator)
        np.testing.assert_allclose(operator.to_dense(), whole[part], rtol=1e-10, atol=1e-12)


def test_one_variable_too_many_takes_the_general_path(build, mlp, x):
    variables = build()[2]
    model = mlp([INPUTS, 5, 4, 3])
    operator = GaussNewton(DenseStack(model.layers), [*model.trainable_variables, variables[-1]], x)

    assert not is_layerwise(operator)
    np.testing.assert_array_equal(operator.diag_part()[-3:], np.zeros(3))


def test_without_free_outputs_nothing_is_joined_or_split(build, mlp, x):
    stack, _, variables = build()
    model = mlp([INPUTS, 5, 4, 3])

    def operations(forward, variables):
        @tf.function
        def gram():
            operator = GaussNewton(forward, variables, x)
            assert is_layerwise(operator)
            return operator.gram()

        return {operation.type for operation in gram.get_concrete_function().graph.get_operations()}

    assert {"ConcatV2", "SplitV", "BroadcastTo"} <= operations(stack, variables)
    assert not {"ConcatV2", "SplitV", "BroadcastTo"} & operations(model, model.trainable_variables)


# --- bad input ----------------------------------------------------------------------------------------------


def test_free_outputs_that_do_not_fit_are_refused(mlp):
    model = mlp([INPUTS, 3])
    bias = model.layers[0].bias

    for free, message in (
        (tf.zeros([3], tf.float64), "free_outputs must be a tf.Variable, got EagerTensor"),
        ([0.0, 0.0], "free_outputs must be a tf.Variable, got list"),
        (tf.Variable(0.0, dtype=tf.float64), r"shape \[D\] and dtype float64, got \(\) and float64"),
        (tf.Variable([[0.0]], dtype=tf.float64), r"got \(1, 1\) and float64"),
        (tf.Variable([0.0], dtype=tf.float64, shape=[None]), r"got \(None,\) and float64"),
        (tf.Variable([0.0], dtype=tf.float32), r"got \(1,\) and float32"),
        (tf.Variable([0]), r"got \(1,\) and int32"),
        (bias, f"free_outputs can't be '{bias.name}', a variable of the stack's layers"),
    ):
        with pytest.raises(ValueError, match=message):
            DenseStack(model.layers, free)
        # The layers do form a stack, so that None would hide the mistake.
        with pytest.raises(ValueError, match=message):
            DenseStack.from_layers(model.layers, free)


def test_from_layers_takes_free_outputs_and_still_declines_what_is_no_stack(mlp, x):
    model = mlp([INPUTS, 3])
    free = tf.Variable([0.5], dtype=tf.float64)

    stack = DenseStack.from_layers(model.layers, free)
    np.testing.assert_array_equal(stack(x), np.concatenate([model(x), np.full([B, 1], 0.5)], axis=1))
    assert DenseStack.from_layers([*model.layers, tf.keras.layers.Softmax()], free) is None
    assert DenseStack.from_layers([], free) is None
