"""K-FAC against factors computed by loops, dense matrices, and systems where it is exact."""

import numpy as np
import pytest
import tensorflow as tf
from small_stacks import compiled, linearised, network, slices

from ngrl import seeding
from ngrl.curvature import Categorical, GaussNewton, KroneckerFactored, SquaredError
from ngrl.curvature.kronecker import Outer
from ngrl.curvature.rules import layer_rule
from ngrl.curvature.uses import Linear
from ngrl.optimizers import NaturalGradient
from ngrl.solvers import (
    ConjugateGradient,
    Dual,
    Kfac,
    OutputGradient,
    ParameterGradient,
    Result,
    blocked_cholesky,
    factor_inverses,
)

MODES = ["eager", "graph", "xla"]
INVERSES = ["factored", "exact", "ekfac"]  # of both factors; PRONG has a test file of its own
RNG = np.random.default_rng


def accuracy(inverse, mode, otherwise):
    # XLA's own eigenvectors are orthogonal to 1e-7 only, in float64 too.
    return 1e-5 if mode == "xla" and inverse != "factored" else otherwise


def test_batch_without_an_example_that_counts_changes_no_average():
    model = tf.keras.Sequential([tf.keras.layers.Dense(5, "tanh"), tf.keras.layers.Dense(1)])
    inputs = tf.constant(RNG(0).normal(size=(6, 3)), tf.float32)
    model(inputs)
    solver, state = Kfac(), None
    for weights in (tf.ones([6]), tf.zeros([6])):
        operator = GaussNewton(model, model.trainable_weights, inputs, SquaredError(), weights=weights)
        gradient = OutputGradient(weights[:, tf.newaxis] * tf.ones([6, 1]))
        before, state = state, solver.answer(operator, gradient, 0.1, state).state
    for name, value in before.items():
        np.testing.assert_array_equal(state[name], value)


def test_variable_that_no_layer_uses_gets_no_step():
    model = tf.keras.Sequential([tf.keras.layers.Dense(5, "tanh"), tf.keras.layers.Dense(1)])
    inputs, unused = tf.constant(RNG(0).normal(size=(6, 3)), tf.float32), tf.Variable(tf.ones([2]))
    model(inputs)
    variables = [*model.trainable_weights, unused]
    steps = [
        Kfac().answer(GaussNewton(model, used, inputs, SquaredError()), OutputGradient(tf.ones([6, 1])), 0.1)
        for used in (variables, model.trainable_weights)
    ]
    whole, own = (step.solution.value.numpy() for step in steps)
    np.testing.assert_allclose(whole, [*own, 0, 0], rtol=1e-6)


def looped_factors(operator, kernel, bias):
    """A and G of one layer by loops over examples and rows, from nothing but the row matrix."""
    rows = operator.row_matrix().numpy()
    places = slices(operator.parameters["variables"])
    per_example = operator.rows_per_example
    batch = len(rows) // per_example
    weights = np.broadcast_to(np.asarray(operator.example_weights), [batch])
    shape = operator.parameters["variables"][kernel].shape
    a, g = 0.0, 0.0
    for i in range(batch):
        blocks = []
        for r in range(per_example):
            row = rows[i * per_example + r]
            block = row[places[kernel]].reshape(-1, shape[-1])
            blocks.append(block if bias is None else np.vstack([block, row[places[bias]]]))
        # block = sqrt(w) ā gᵀ, whose last row is sqrt(w) g where there is a bias (ā = 1 there)
        for block in blocks:
            derivative = block[-1]
            g = g + np.outer(derivative, derivative)
        strongest = max(blocks, key=lambda block: np.abs(block[-1]).max())
        column = np.argmax(np.abs(strongest[-1]))
        inputs = strongest[:, column] / strongest[-1, column]
        a = a + weights[i] * np.outer(inputs, inputs)
    return a, g


@pytest.mark.parametrize("metric", [SquaredError(), Categorical()], ids=["squared", "categorical"])
def test_factors_are_those_that_loops_over_the_rows_give(metric):
    weights = np.array([0.5, 1.0, 2.0, 0.1, 1.0])
    operator = linearised(network((3, 4, 4, 2)), metric=metric, weights=weights)
    layers = operator.kronecker_layers().layers
    assert [(layer.kernel_slot, layer.bias_slot) for layer in layers] == [(0, 1), (2, None), (3, 4)]
    for layer in (layers[0], layers[2]):
        a, g = looped_factors(operator, layer.kernel_slot, layer.bias_slot)
        np.testing.assert_allclose(layer.input_factor(), a, rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(layer.derivative_factor(), g, rtol=1e-10, atol=1e-14)


def test_operator_is_block_diagonal_with_kronecker_products():
    operator = linearised(network(free=2))
    layers = operator.kronecker_layers()
    matrix = KroneckerFactored(layers).to_dense().numpy()
    expected = np.zeros_like(matrix)
    start = 0
    for layer in layers.layers:  # kernel row by row, then the bias: the order of W̄
        block = np.kron(layer.input_factor(), layer.derivative_factor())
        expected[start : start + len(block), start : start + len(block)] = block
        start += len(block)
    (free,) = layers.exact
    expected[start:, start:] = free.factor()
    np.testing.assert_allclose(matrix, expected, atol=1e-14)
    # A diagonal block of the free outputs is F's own.
    np.testing.assert_allclose(expected[start:, start:], operator.to_dense()[start:, start:], rtol=1e-12)


@pytest.mark.parametrize(
    ("case", "mode"), [("one example", "eager"), ("identical inputs", "eager"), *(("linear", mode) for mode in MODES)]
)
@pytest.mark.parametrize("inverse", INVERSES)
def test_equals_the_dense_solve_where_kfac_is_exact(case, inverse, mode):
    stack = network((3, 2))
    inputs = RNG(4).normal(size=(1 if case == "one example" else 6, 3))
    if case == "identical inputs":
        inputs[:] = inputs[0]
    operator = linearised(stack, inputs=inputs)  # a linear layer with squared error: G is the same for every input
    gradient, damping = tf.constant(RNG(5).normal(size=operator.shape[0])), 0.3
    layers = operator.kronecker_layers()
    expected = np.linalg.solve(operator.to_dense().numpy() + damping * np.eye(operator.shape[0]), gradient)
    if inverse == "factored":  # exact for the product of the shifted factors
        (layer,) = layers.layers
        a, g = layer.input_factor().numpy(), layer.derivative_factor().numpy()
        pi = np.sqrt((np.trace(a) / len(a)) / (np.trace(g) / len(g)))
        shifted = np.kron(a + pi * np.sqrt(damping) * np.eye(len(a)), g + np.sqrt(damping) / pi * np.eye(len(g)))
        expected = np.linalg.solve(shifted, gradient)

    def solve():
        return Kfac(inverse=inverse)(linearised(stack, inputs=inputs), gradient, damping).value

    np.testing.assert_allclose(compiled(solve, mode)(), expected, rtol=accuracy(inverse, mode, 1e-10))


def test_ekfac_has_the_exact_diagonal_in_the_kronecker_eigenbasis():
    operator = linearised(network(), metric=Categorical())
    dense, gradient = operator.to_dense().numpy(), RNG(5).normal(size=operator.shape[0])
    found = Kfac(inverse="ekfac")(operator, gradient, 0.2).value
    expected, start = [], 0
    for layer in operator.kronecker_layers().layers:
        _, u_a = np.linalg.eigh(layer.input_factor())
        _, u_g = np.linalg.eigh(layer.derivative_factor())
        basis = np.kron(u_a, u_g)
        stop = start + len(basis)
        diagonal = np.diag(basis.T @ dense[start:stop, start:stop] @ basis)
        expected.append(basis @ ((basis.T @ gradient[start:stop]) / (diagonal + 0.2)))
        start = stop
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-9)


@pytest.mark.parametrize("mode", ["graph", "xla"])
@pytest.mark.parametrize("inverse", INVERSES)
def test_running_averages_and_periods_are_those_computed_by_hand(inverse, mode):
    stack = network((3, 2))
    solver = Kfac(decay=0.7, period=2, inverse=inverse)
    state = solver.slots(stack.variables)
    gradient, damping = tf.constant(RNG(5).normal(size=8)), 0.3

    @(lambda function: compiled(function, mode))
    def answer(inputs, state):
        operator = GaussNewton(stack, stack.variables, inputs)
        found = solver.answer(operator, ParameterGradient(gradient), damping, state)
        return found.solution.value, found.state

    a = g = second = None
    for number in range(5):
        inputs = RNG(number).normal(size=(4, 3))
        value, state = answer(tf.constant(inputs), state)
        homogeneous = np.hstack([inputs, np.ones((4, 1))])
        new_a, new_g = homogeneous.T @ homogeneous / 4, np.eye(2)
        keep = min(number / (number + 1), 0.7)
        a = new_a if a is None else keep * a + (1 - keep) * new_a
        g = new_g if g is None else keep * g + (1 - keep) * new_g
        if number % 2 == 0:
            (s_a, u_a), (s_g, u_g) = np.linalg.eigh(a), np.linalg.eigh(g)
            eigenvalues = np.outer(s_a, s_g)
            pi = np.sqrt((np.trace(a) / 4) / (np.trace(g) / 2))
            factored = (
                np.linalg.inv(a + pi * damping**0.5 * np.eye(4)),
                np.linalg.inv(g + damping**0.5 / pi * np.eye(2)),
            )
        matrix = gradient.numpy().reshape(4, 2)
        if inverse == "factored":
            expected = factored[0] @ matrix @ factored[1]
        else:
            if inverse == "ekfac":
                exact = np.square(homogeneous @ u_a).T @ np.full((4, 2), 1 / 4) @ np.square(u_g)
                second = exact if number % 2 == 0 else 0.5 * second + 0.5 * exact
                eigenvalues = second
            expected = u_a @ ((u_a.T @ matrix @ u_g) / (eigenvalues + damping)) @ u_g.T
        np.testing.assert_allclose(value, expected.ravel(), rtol=accuracy(inverse, mode, 1e-9))


def test_eigenvalues_of_ekfac_take_a_new_batch_every_so_many_steps():
    stack = network((3, 2))
    solver = Kfac(decay=0.7, period=4, inverse="ekfac", eigenvalue_period=2)
    state, found, exact = solver.slots(stack.variables), [], []
    for number in range(4):
        operator = linearised(stack, seed=number)
        state = solver.answer(operator, ParameterGradient(tf.ones([8], tf.float64)), 0.3, state).state
        found.append(state["0/eigenvalues"].numpy())
        basis = np.kron(state["0/inputs_inverse"], state["0/derivatives_inverse"])
        exact.append(np.diag(basis.T @ operator.to_dense().numpy() @ basis).reshape(4, 2))
    expected = [exact[0], exact[0], (exact[0] + exact[2]) / 2, (exact[0] + exact[2]) / 2]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_factors_take_a_new_batch_every_so_many_steps(mode):
    stack = network((3, 2))
    solver = Kfac(decay=0.7, period=3, factor_period=2)
    step = compiled(
        lambda inputs, state: (
            solver.answer(
                GaussNewton(stack, stack.variables, inputs), ParameterGradient(tf.ones([8], tf.float64)), 0.3, state
            ).state
        ),
        mode,
    )
    state, averages, inverses, batches = solver.slots(stack.variables), [], [], []
    for number in range(6):
        inputs = RNG(number).normal(size=(4, 3))
        state = step(tf.constant(inputs), state)
        homogeneous = np.hstack([inputs, np.ones((4, 1))])
        batches.append(homogeneous.T @ homogeneous / 4)
        averages.append(state["0/inputs"].numpy())
        inverses.append(state["0/inputs_inverse"].numpy())
    second = (batches[0] + batches[2]) / 2
    third = second / 1.5 + batches[4] / 3  # 1 - 1/3 is below 0.7
    expected = [batches[0], batches[0], second, second, third, third]
    np.testing.assert_allclose(averages, expected, rtol=1e-9, atol=1e-14)
    for number in range(6):  # made of the average of the step, every third
        average = expected[number - number % 3]
        shift = np.sqrt(0.3 * (np.trace(average) / 4) / 1.0)  # G = I
        np.testing.assert_allclose(inverses[number], np.linalg.inv(average + shift * np.eye(4)), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("metric", [SquaredError(2.0), Categorical()], ids=["squared", "categorical"])
@pytest.mark.parametrize("kind", ["sampled", "empirical"])
def test_factors_of_other_kinds_are_those_of_loops_over_examples(kind, metric, mode):
    stack, inputs = network((3, 4, 4, 2)), RNG(1).normal(size=(5, 3))
    weights = np.array([0.5, 1.0, 2.0, 0.1, 1.0])
    targets = np.eye(2)[[0, 1, 1, 0, 1]]
    solver = Kfac(kind=kind, decay=0.5, seed=7)
    key = seeding.key(7, seeding.Stream.FACTOR_TARGETS)

    def loss(outputs):  # of each example
        if isinstance(metric, Categorical):
            return tf.nn.softmax_cross_entropy_with_logits(targets, outputs)
        return tf.reduce_sum(tf.square(outputs - targets), axis=1)

    def answer(state):
        operator = GaussNewton(stack, stack.variables, inputs, metric, weights=weights)
        with tf.GradientTape() as tape:
            tape.watch(operator.outputs)
            mean = tf.reduce_sum(loss(operator.outputs) * weights) / weights.sum()
        pull = tape.gradient(mean, operator.outputs)
        return solver.answer(operator, OutputGradient(pull), 0.3, state).state

    state, run = solver.slots(stack.variables), compiled(answer, mode)
    # Compiled alike, as XLA draws other numbers.
    sample = compiled(lambda seed: metric.sample(stack(inputs), seed), mode)
    averages = {}
    for number in range(2):
        state = run(state)
        scores = sample(tf.constant(seeding.at(key, number)))
        for kernel, bias in ((0, 1), (3, 4)):
            total = 0.0
            for i in range(5):
                with tf.GradientTape() as tape:
                    outputs = stack(inputs[i : i + 1])
                    of_one = tf.reduce_sum(outputs * scores[i]) if kind == "sampled" else None
                    if kind == "empirical":
                        full = tf.tensor_scatter_nd_update(tf.constant(targets) * 0, [[i]], outputs)
                        of_one = loss(full)[i]
                g = tape.gradient(of_one, stack.variables[bias]).numpy()
                total = total + weights[i] / weights.sum() * np.outer(g, g)
            averages[kernel] = total if number == 0 else (averages[kernel] + total) / 2
            np.testing.assert_allclose(state[f"{kernel}/derivatives"], averages[kernel], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("inverse", [*INVERSES, "prong"])
def test_few_rows_go_in_factors_to_the_same_step(inverse):
    stack = network((9, 8, 1))
    operator = linearised(stack, batch=2)
    pull = OutputGradient(tf.constant([[1.0], [-2.0]], tf.float64))
    layers = operator.kronecker_layers()
    assert isinstance(layers.combine(pull.coefficients(operator))[0][0], Outer)
    solver = Kfac(inverse=inverse)
    few = solver.answer(operator, pull, 0.1)
    plain = solver.answer(operator, ParameterGradient(operator.vjp([[1.0], [-2.0]])), 0.1)
    np.testing.assert_allclose(few.solution.value, plain.solution.value, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(few.image, operator.row_matvec(plain.solution.value), rtol=1e-9)
    assert float(few.system.gradient_norm) == pytest.approx(float(plain.system.gradient_norm), rel=1e-12)
    slope = plain.system.slope(plain.solution.value, plain.image)
    assert float(few.system.slope(few.solution.value, few.image)) == pytest.approx(float(slope), rel=1e-10)
    assert np.all(np.isfinite(few.system.sample()))


@pytest.mark.parametrize("cause", ["loss", "gradient"])
def test_nothing_is_learned_of_a_batch_whose_step_is_skipped(cause):
    stack = network()
    optimizer = NaturalGradient(0.1, solver=Kfac(), damping=1e-2)
    optimizer.apply_output_gradient(tf.ones([5, 2], tf.float64), linearised(stack))
    before = [v.numpy().tobytes() for v in optimizer.variables]
    pull, loss = np.ones([5, 2]), 0.0
    if cause == "loss":
        loss = np.nan
    else:
        pull[3, 1] = np.inf
    stats = optimizer.apply_output_gradient(tf.constant(pull), linearised(stack, seed=9), tf.constant(loss))
    assert stats.skipped == 1
    assert [v.numpy().tobytes() for v in optimizer.variables] == before


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("free", [0, 2])
def test_steps_keep_to_the_trust_region_of_the_exact_fisher(free, mode):
    stack = network(free=free)
    optimizer = NaturalGradient(None, solver=Kfac(), damping=1e-2, max_kl=0.01)
    inputs = tf.constant(RNG(1).normal(size=(5, 3)))
    pull = tf.constant(RNG(2).normal(size=(5, 2 + free)))

    def step():
        return optimizer.apply_output_gradient(pull, GaussNewton(stack, stack.variables, inputs))

    dense = linearised(stack).to_dense().numpy()
    before = np.concatenate([v.numpy().ravel() for v in stack.variables])
    stats = compiled(step, mode)()
    change = np.concatenate([v.numpy().ravel() for v in stack.variables]) - before
    assert 0.5 * change @ dense @ change == pytest.approx(0.01, rel=1e-6)
    assert float(stats.predicted_kl) == pytest.approx(0.01, rel=1e-6)


def test_one_example_gives_the_direction_of_the_dual_solver_blockwise():
    stack = network((3, 2))
    operator = linearised(stack, batch=1)
    pull = OutputGradient(tf.constant([[1.0, -2.0]], tf.float64))
    ours = Kfac(inverse="exact").answer(operator, pull, 0.1, Kfac(inverse="exact").slots(stack.variables))
    exact = Dual().answer(operator, pull, 0.1)
    np.testing.assert_allclose(ours.solution.value, exact.solution.value, rtol=1e-6)


@pytest.mark.parametrize("inverse", INVERSES)
def test_numbers_that_are_not_finite_reach_no_factor(inverse):
    stack = network()
    optimizer = NaturalGradient(0.1, solver=Kfac(inverse=inverse), damping=1e-2)
    good = linearised(stack)
    optimizer.apply_output_gradient(tf.ones([5, 2], tf.float64), good)
    before = [v.numpy().tobytes() for v in optimizer.variables]
    bad = linearised(stack, inputs=np.full((5, 3), np.nan))
    stats = optimizer.apply_output_gradient(tf.ones([5, 2], tf.float64), bad)
    assert stats.skipped == 1
    assert [v.numpy().tobytes() for v in optimizer.variables] == before


def overflowing():
    """Finite inputs whose squares aren't."""
    inputs = RNG(1).normal(size=(5, 3))
    inputs[0, 0] = 1e160
    return inputs


@pytest.mark.parametrize("mode", ["eager", "xla"])
@pytest.mark.parametrize(
    "settings", [*({"inverse": inverse} for inverse in (*INVERSES, "prong")), {"rank": 1}], ids=str
)
def test_a_batch_whose_squares_overflow_reaches_no_average(settings, mode):
    stack = network()
    solver = Kfac(period=3, **settings)

    def step(inputs, pull, state):
        answer = solver.answer(linearised(stack, inputs=inputs), OutputGradient(pull), 1e-2, state)
        return answer.state, answer.solution.result

    step = compiled(step, mode)
    good, pull = tf.constant(RNG(1).normal(size=(5, 3))), tf.constant(RNG(2).normal(size=(5, 2)))
    state = {name: tf.constant(value) for name, value in solver.slots(stack.variables).items()}
    for number in range(5):  # the first batch, those between inverses, and those with new ones
        # The example that overflows has no error of its own.
        left, _ = step(tf.constant(overflowing()), pull * [[0.0], [1.0], [1.0], [1.0], [1.0]], state)
        for name, value in left.items():
            np.testing.assert_array_equal(value, state[name], err_msg=f"{name} of batch {number}")
        state, result = step(good, pull, state)
        assert result == Result.CONVERGED


def test_eigenvalues_of_ekfac_take_no_batch_whose_products_overflow():
    stack = network((3, 2))
    solver = Kfac(inverse="ekfac", period=100)
    good, bad = RNG(1).normal(size=(5, 3)), np.vstack([1e100 * np.eye(3)[0], RNG(1).normal(size=(4, 3))])
    state = None
    for inputs, scale in ((good, 1.0), (bad, 1e100), (good, 1.0)):
        metric = SquaredError(beta=scale)
        operator = linearised(stack, inputs=inputs, metric=metric)
        answer = solver.answer(operator, OutputGradient(tf.ones([5, 2], tf.float64)), 1e-2, state)
        state = answer.state
    assert np.all(np.isfinite(state["0/eigenvalues"]))


@pytest.mark.parametrize("inverse", [*INVERSES, "prong"])
@pytest.mark.parametrize("preconditions", [False, True])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_solver_called_on_numbers_that_overflow_breaks_down_and_raises_nothing(inverse, preconditions, jit_compile):
    stack = network()
    operator = linearised(stack, inputs=overflowing())
    solver = Kfac(inverse=inverse)
    solver = ConjugateGradient(preconditioner=solver) if preconditions else solver
    rhs = np.ones(operator.shape[0])
    call = (
        (lambda: solver(operator, rhs, 0.1))
        if not jit_compile
        else compiled(lambda: solver(linearised(stack, inputs=overflowing()), rhs, 0.1), "xla")
    )
    solution = call()
    assert solution.result == Result.BREAKDOWN
    assert not np.any(solution.value)


def test_an_eigenbasis_of_numbers_that_are_not_finite_has_no_eigenvalues():
    for matrix in (np.full((3, 3), np.nan), np.diag([1.0, np.inf, 1.0])):
        *_, eigenvalues = factor_inverses.eigenbasis(tf.constant(matrix), tf.eye(2, dtype=tf.float64))
        assert np.all(np.isnan(eigenvalues))


@pytest.mark.parametrize("inverse", ["factored", "exact"])
def test_a_singular_factor_without_damping_breaks_down_instead_of_moving(inverse):
    stack = network((3, 2))
    operator = linearised(stack, inputs=np.zeros((4, 3)))
    solver = Kfac(inverse=inverse)
    answer = solver.answer(operator, OutputGradient(tf.ones([4, 2], tf.float64)), 0.0, solver.slots(stack.variables))
    assert answer.solution.result == Result.BREAKDOWN
    assert not np.any(answer.solution.value)
    if inverse == "factored":  # no inverse could be made: as before
        assert not any(np.any(value) for value in answer.state.values())


@pytest.mark.parametrize("jit_compile", [False, True])
def test_blocked_inverse_is_the_inverse(jit_compile):
    for size in (1, 7, 33, 65, 257):
        factor = RNG(size).normal(size=(size, 2 * size))
        matrix = factor @ factor.T / size + 0.1 * np.eye(size)
        found = tf.function(blocked_cholesky.inverse, jit_compile=jit_compile)(tf.constant(matrix))
        np.testing.assert_allclose(found, np.linalg.inv(matrix), rtol=1e-9, atol=1e-11)


def test_bad_input_is_answered_in_one_line():
    for arguments, word in (
        ({"decay": 1.0}, "decay"),
        ({"period": 0}, "period"),
        ({"factor_period": 0}, "factor_period"),
        ({"eigenvalue_period": 0}, "eigenvalue_period"),
        ({"inverse": "kfac"}, "inverse"),
        ({"kind": "exact"}, "kind"),
        ({"eigenvalue_period": 2}, "eigenvalue_period needs"),
        ({"kind": "sampled", "inverse": "prong"}, "kind is of G"),
    ):
        with pytest.raises(ValueError, match=word):
            Kfac(**arguments)
    stack = network()
    with pytest.raises(ValueError, match="empirical"):
        Kfac(kind="empirical")(linearised(stack), np.ones(sum(v.shape.num_elements() for v in stack.variables)), 1.0)
    model = lambda x: stack(x)  # noqa: E731 (no dense stack any more, for all that ngrl can see)
    operator = GaussNewton(model, stack.variables, np.ones((2, 3)))
    with pytest.raises(TypeError, match="plain function"):
        Kfac()(operator, np.ones(operator.shape[0]), 1.0)
    other = network((3, 5, 2))
    with pytest.raises(ValueError, match="other variables"):
        Kfac().answer(
            linearised(stack), OutputGradient(tf.ones([5, 2], tf.float64)), 1.0, Kfac().slots(other.variables[2:])
        )
    with pytest.raises(TypeError, match="kronecker_layers"):
        Kfac()(tf.linalg.LinearOperatorIdentity(3, dtype=tf.float64, is_self_adjoint=True), np.ones(3), 1.0)
    assert Kfac.from_config(Kfac(decay=0.5, period=3, inverse="ekfac").get_config()).period == 3


class Named(tf.keras.layers.Layer):
    """A Dense layer whose weights have other names, or another order."""

    def __init__(self, kernel, bias, bias_first=False):
        super().__init__(name="mine")
        self.names, self.bias_first = (kernel, bias), bias_first

    def build(self, shape):
        kernel, bias = self.names
        if self.bias_first:
            self.b = self.add_weight(bias, [2])
        self.w = self.add_weight(kernel, [shape[-1], 2])
        if not self.bias_first:
            self.b = self.add_weight(bias, [2])

    def call(self, inputs):
        return inputs @ self.w + self.b


@layer_rule(Named)
def named(layer, record, inputs):
    return record(Linear(layer.w, layer.b, inputs))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: Named("w", "b"), "mine/w:0: its bias, mine/b:0, must have a name that begins with bias"),
        (lambda: Named("kernel", "bias", bias_first=True), "mine/kernel:0: its bias.*next in the order of variables"),
        (lambda: Named("beta_kernel", "bias"), "the name of a kernel must not begin with bias, gamma, beta"),
    ],
)
def test_names_that_hide_what_a_variable_is_are_told(layer, message):
    model = tf.keras.Sequential([tf.keras.Input([3]), layer()])
    operator = GaussNewton(model, model.trainable_variables, np.ones([4, 3], np.float32))
    with pytest.raises(ValueError, match=message):
        Kfac()(operator, np.ones(8), 1.0)


def test_names_that_say_what_a_variable_is_serve_rules_of_ones_own():
    model = tf.keras.Sequential([tf.keras.Input([3]), Named("w", "bias_of_mine")])
    inputs = RNG(0).normal(size=[6, 3]).astype(np.float32)
    operator = GaussNewton(model, model.trainable_variables, inputs)
    expected = np.linalg.solve(operator.to_dense() + np.eye(8), np.ones(8))
    np.testing.assert_allclose(Kfac(inverse="exact")(operator, np.ones(8), 1.0).value, expected, rtol=1e-4)
