import copy

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ngrl import optimizers, solvers
from ngrl.curvature import GaussNewton, SquaredError

SOLVERS = {
    "cholesky": lambda: solvers.Cholesky(),
    "cg": lambda: solvers.ConjugateGradient(rtol=1e-12, max_iterations=200),
    "minres": lambda: solvers.Minres(rtol=1e-12, max_iterations=200),
    "minres_qlp": lambda: solvers.MinresQLP(rtol=1e-12, max_iterations=200),
    "dual_cg": lambda: solvers.Dual(solver=solvers.ConjugateGradient(rtol=1e-12, max_iterations=200)),
    "dual_cholesky": lambda: solvers.Dual(solver=solvers.Cholesky()),
}


class LinearProblem:
    """`y = X W` with targets T: every quantity of a step has a closed form."""

    def __init__(self, seed=0, rows=12, features=3, outputs=2):
        generator = np.random.default_rng(seed)
        self.x = generator.normal(size=(rows, features))
        self.targets = generator.normal(size=(rows, outputs))
        self.start = generator.normal(size=(features, outputs))
        self.w = tf.Variable(self.start)

    def forward(self, x):
        return tf.linalg.matmul(x, self.w)

    def operator(self, metric=None):
        return GaussNewton(self.forward, [self.w], tf.constant(self.x), metric)

    def loss(self):
        """Mean over rows of half the squared error."""
        return 0.5 * tf.reduce_mean(tf.reduce_sum((self.forward(self.x) - self.targets) ** 2, axis=1))

    def output_gradient(self):
        return (self.forward(self.x) - self.targets) / len(self.x)

    @property
    def dense(self):
        """F and g at the start: `I_K ⊗ XᵀX/n` in the order of W's elements."""
        n, k = len(self.x), self.start.shape[1]
        curvature = np.kron(self.x.T @ self.x / n, np.eye(k))
        gradient = (self.x.T @ (self.x @ self.start - self.targets) / n).reshape(-1)
        return curvature, gradient


def step(problem, optimizer, loss_fn=None):
    return optimizer.apply_output_gradient(problem.output_gradient(), problem.operator(), loss_fn=loss_fn)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("damping", [0.3, 2.0])
def test_step_equals_dense_solve_whatever_the_solver(name, damping):
    problem = LinearProblem()
    curvature, gradient = problem.dense
    expected = np.linalg.solve(curvature + damping * np.eye(len(gradient)), gradient)
    stats = step(problem, optimizers.NaturalGradient(0.5, SOLVERS[name](), damping))
    np.testing.assert_allclose(
        problem.w.numpy(), problem.start - 0.5 * expected.reshape(problem.start.shape), rtol=1e-9
    )
    np.testing.assert_allclose(stats.gradient_norm, np.linalg.norm(gradient), rtol=1e-6)
    np.testing.assert_allclose(stats.step_norm, 0.5 * np.linalg.norm(expected), rtol=1e-6)
    np.testing.assert_allclose(stats.predicted_kl, 0.125 * expected @ curvature @ expected, rtol=1e-5)
    assert stats.skipped == 0


def test_undamped_unit_step_solves_the_regression():
    problem = LinearProblem()
    step(problem, optimizers.NaturalGradient(1.0, solvers.Cholesky(), 0.0))
    expected, *_ = np.linalg.lstsq(problem.x, problem.targets, rcond=None)
    np.testing.assert_allclose(problem.w.numpy(), expected, rtol=1e-9)


def test_gradients_and_output_gradients_give_the_same_step():
    by_outputs, by_gradients = LinearProblem(), LinearProblem()
    step(by_outputs, optimizers.NaturalGradient(1.0, SOLVERS["dual_cholesky"](), 0.7))
    with tf.GradientTape() as tape:
        loss = by_gradients.loss()
    pairs = [(tape.gradient(loss, by_gradients.w), by_gradients.w)]
    optimizers.NaturalGradient(1.0, SOLVERS["dual_cholesky"](), 0.7).apply_natural_gradient(
        pairs, by_gradients.operator(), loss=loss
    )
    np.testing.assert_allclose(by_outputs.w.numpy(), by_gradients.w.numpy(), rtol=1e-9)


@pytest.mark.parametrize("name", ["cholesky", "dual_cg"])
def test_trust_region_bounds_the_change_of_the_outputs(name):
    problem = LinearProblem()
    before = problem.forward(problem.x).numpy()
    stats = step(problem, optimizers.NaturalGradient(1.0, SOLVERS[name](), 0.01, max_kl=1e-3))
    change = problem.forward(problem.x).numpy() - before
    measured = 0.5 * np.mean(np.sum(change**2, axis=1))
    np.testing.assert_allclose(measured, 1e-3, rtol=1e-9)
    np.testing.assert_allclose(stats.predicted_kl, 1e-3, rtol=1e-5)


def test_trust_region_leaves_small_steps_alone():
    free, bounded = LinearProblem(), LinearProblem()
    step(free, optimizers.NaturalGradient(1e-3, SOLVERS["dual_cg"](), 0.01))
    step(bounded, optimizers.NaturalGradient(1e-3, SOLVERS["dual_cg"](), 0.01, max_kl=10.0))
    np.testing.assert_array_equal(free.w.numpy(), bounded.w.numpy())


@pytest.mark.parametrize("name", ["cholesky", "dual_cholesky"])
def test_momentum_accumulates_solutions(name):
    problem = LinearProblem()
    optimizer = optimizers.NaturalGradient(0.125, SOLVERS[name](), 0.5, momentum=0.9)
    w, velocity = problem.start.reshape(-1), 0.0
    curvature, _ = problem.dense
    for _ in range(3):
        residual = problem.x @ w.reshape(problem.start.shape) - problem.targets
        gradient = (problem.x.T @ residual / len(problem.x)).reshape(-1)
        velocity = 0.9 * velocity + np.linalg.solve(curvature + 0.5 * np.eye(len(w)), gradient)
        w = w - 0.125 * velocity
        step(problem, optimizer)
    np.testing.assert_allclose(problem.w.numpy().reshape(-1), w, rtol=1e-9)


def test_learning_rate_schedule_counts_steps():
    problem = LinearProblem()
    schedule = tf.keras.optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)
    optimizer = optimizers.NaturalGradient(schedule, solvers.Cholesky(), 1e6)
    norms = [float(step(problem, optimizer).step_norm) for _ in range(3)]
    np.testing.assert_allclose(optimizer.learning_rate, 0.125)
    np.testing.assert_allclose(norms, [norms[0], norms[0] / 2, norms[0] / 4], rtol=1e-4)


def test_scaling_by_the_gradient_norm_multiplies_the_solution():
    plain, scaled = LinearProblem(), LinearProblem()
    _, gradient = plain.dense
    for name in ("cholesky", "dual_cholesky"):
        plain, scaled = LinearProblem(), LinearProblem()
        stats = step(plain, optimizers.NaturalGradient(0.1, SOLVERS[name](), 1.0))
        both = step(scaled, optimizers.NaturalGradient(0.1, SOLVERS[name](), 1.0, scale_by_gradient_norm=True))
        np.testing.assert_allclose(both.step_norm, stats.step_norm * np.linalg.norm(gradient), rtol=1e-5)
        np.testing.assert_allclose(both.predicted_kl, stats.predicted_kl * np.linalg.norm(gradient) ** 2, rtol=1e-4)


def test_reduction_ratio_of_a_quadratic_loss_is_one_and_shrinks_damping():
    problem = LinearProblem()
    rule = optimizers.LevenbergMarquardt(initial=6.0)
    optimizer = optimizers.NaturalGradient(1.0, solvers.Cholesky(), rule)
    stats = step(problem, optimizer, problem.loss)
    np.testing.assert_allclose(stats.reduction_ratio, 1.0, rtol=1e-5)
    np.testing.assert_allclose(stats.damping, 6.0)
    np.testing.assert_allclose(optimizer.damping, 4.0)


def test_levenberg_marquardt_follows_the_ratio():
    rule = optimizers.LevenbergMarquardt(initial=6.0, minimum=1.0)
    updated = [
        float(rule.update(tf.constant(v), tf.constant(r)))
        for v, r in [(6.0, 0.1), (6.0, 0.5), (6.0, 0.9), (1.2, 0.9), (6.0, float("nan")), (6.0, -3.0)]
    ]
    np.testing.assert_allclose(updated, [9.0, 6.0, 4.0, 1.0, 9.0, 9.0])


def test_damping_stays_where_the_change_of_the_loss_is_lost_in_rounding():
    """Otherwise a decayed learning rate would read noise as a poor model and drive λ to infinity."""
    problem = LinearProblem()
    optimizer = optimizers.NaturalGradient(1e-17, solvers.Cholesky(), optimizers.LevenbergMarquardt(initial=6.0))
    for _ in range(20):
        step(problem, optimizer, problem.loss)
    assert float(optimizer.damping) == 6.0


def test_damping_keeps_below_its_maximum():
    rule = optimizers.LevenbergMarquardt(initial=6.0, maximum=7.0)
    assert float(rule.update(tf.constant(6.0), tf.constant(-1.0))) == 7.0


def test_damping_that_begins_beyond_its_bounds_is_not_taken_the_wrong_way():
    rule = optimizers.LevenbergMarquardt(minimum=1.0, maximum=7.0)
    assert float(rule.update(tf.constant(0.5), tf.constant(1.0))) == 0.5  # a good model's
    assert float(rule.update(tf.constant(8.0), tf.constant(-1.0))) == 8.0  # a poor one's


def test_levenberg_marquardt_without_a_loss_function_is_refused():
    optimizer = optimizers.NaturalGradient(damping=optimizers.LevenbergMarquardt())
    with pytest.raises(ValueError, match="LevenbergMarquardt needs loss_fn"):
        step(LinearProblem(), optimizer)


def test_scheduled_damping_counts_steps():
    schedule = tf.keras.optimizers.schedules.PiecewiseConstantDecay([0], [5.0, 2.0])
    optimizer = optimizers.NaturalGradient(damping=optimizers.ScheduledDamping(schedule))
    problem = LinearProblem()
    assert [float(step(problem, optimizer).damping) for _ in range(2)] == [5.0, 2.0]


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", ["dual_cg", "cg", "minres_qlp"])
@pytest.mark.parametrize(
    ("poison", "cause"),
    [
        ("loss", optimizers.SkipCause.LOSS),
        ("gradient", optimizers.SkipCause.GRADIENT),
        ("inputs", None),
    ],
)
def test_non_finite_numbers_leave_every_weight_and_slot_byte_identical(compiled, name, poison, cause):
    problem = LinearProblem()
    optimizer = optimizers.NaturalGradient(1.0, SOLVERS[name](), 0.5, momentum=0.9, max_kl=1.0)
    step(problem, optimizer)
    before = [value.numpy().tobytes() for value in [problem.w, *optimizer.variables]]

    def poisoned():
        x = np.array(problem.x)
        gradient = problem.output_gradient()
        loss = tf.constant(1.0, tf.float64)
        if poison == "loss":
            loss = tf.constant(NAN, tf.float64)
        elif poison == "gradient":
            gradient = gradient * tf.constant([INF, 1.0], tf.float64)
        else:
            x[3, 1] = NAN
        operator = GaussNewton(problem.forward, [problem.w], tf.constant(x))
        return optimizer.apply_output_gradient(gradient, operator, loss=loss)

    stats = tf.function(poisoned, jit_compile=True)() if compiled else poisoned()
    assert stats.skipped == 1
    assert stats.skip_cause == cause if cause else stats.skip_cause > 0
    assert [value.numpy().tobytes() for value in [problem.w, *optimizer.variables]] == before


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", ["cholesky", "dual_cholesky"])
def test_solver_that_breaks_down_at_a_small_damping_raises_it_until_the_step_equals_a_dense_solve(compiled, name):
    # In float32 F + 1e-9 I is exactly of rank 1 here, and so is the Gram matrix of its 4 rows.
    x = np.outer(np.arange(1.0, 5.0), [1.0, 2.0, -1.0]).astype(np.float32)
    w = tf.Variable(tf.ones([3, 1]))
    rule = optimizers.LevenbergMarquardt(initial=1e-9, minimum=1e-9, increase=1e8)
    optimizer = optimizers.NaturalGradient(1.0, SOLVERS[name](), rule)

    def run():
        operator = GaussNewton(lambda inputs: inputs @ w, [w], tf.constant(x))
        output_gradient = tf.matmul(x, w) / len(x)  # of the mean of half the squared outputs
        return optimizer.apply_output_gradient(
            output_gradient, operator, loss_fn=lambda: tf.reduce_mean((x @ w) ** 2) / 2
        )

    optimizer.build([w])
    train = tf.function(run, jit_compile=True) if compiled else run
    dampings, skipped = [], 1
    while skipped:
        assert w.numpy().tobytes() == np.ones([3, 1], np.float32).tobytes()
        stats = train()
        dampings.append(float(stats.damping))
        skipped = int(stats.skipped)
        assert stats.skip_cause == (optimizers.SkipCause.CURVATURE_PRODUCT if skipped else 0)
    assert 1 < len(dampings) < 5
    np.testing.assert_allclose(dampings, 1e-9 * 1e8 ** np.arange(len(dampings)), rtol=1e-5)
    curvature = x.astype(np.float64).T @ x / len(x)
    expected = np.ones(3) - np.linalg.solve(curvature + dampings[-1] * np.eye(3), curvature @ np.ones(3))
    np.testing.assert_allclose(w.numpy()[:, 0], expected, atol=1e-4)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", ["cholesky", "dual_cholesky", "cg"])
@pytest.mark.parametrize("poison", ["loss", "gradient", "inputs"])
def test_numbers_that_are_not_finite_are_not_blamed_on_the_damping(compiled, name, poison):
    problem = LinearProblem()
    optimizer = optimizers.NaturalGradient(1.0, SOLVERS[name](), optimizers.LevenbergMarquardt(initial=1.0))
    optimizer.build([problem.w])
    x, loss = np.array(problem.x), NAN if poison == "loss" else 1.0
    scale = INF if poison == "gradient" else 1.0
    if poison == "inputs":
        x[3, 1] = NAN

    def poisoned():
        operator = GaussNewton(problem.forward, [problem.w], tf.constant(x))
        loss_fn = lambda: tf.constant(loss, tf.float64)  # noqa: E731
        return optimizer.apply_output_gradient(scale * problem.output_gradient(), operator, loss_fn=loss_fn)

    before = [value.numpy().tobytes() for value in [problem.w, *optimizer.variables]]
    stats = tf.function(poisoned, jit_compile=True)() if compiled else poisoned()
    assert stats.skipped == 1
    assert [value.numpy().tobytes() for value in [problem.w, *optimizer.variables]] == before


def test_zero_curvature_gives_a_finite_step():
    problem = LinearProblem()
    operator = GaussNewton(lambda x: tf.zeros([len(x), 2], tf.float64) * problem.w[0, 0], [problem.w], problem.x)
    gradient = tf.ones_like(problem.w)
    optimizer = optimizers.NaturalGradient(0.125, solvers.ConjugateGradient(), 2.0, max_kl=0.01)
    stats = optimizer.apply_natural_gradient([(gradient, problem.w)], operator)
    np.testing.assert_allclose(problem.w.numpy(), problem.start - 0.0625, rtol=1e-9)
    assert stats.predicted_kl == 0


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_undamped_step_is_invariant_to_linear_reparameterisation(seed):
    """With θ = B φ the outputs after a natural-gradient step are the same whether θ or φ is learnt."""
    generator = np.random.default_rng(seed)
    basis = generator.normal(size=(3, 3)) + 3 * np.eye(3)
    x = generator.normal(size=(9, 3))
    targets = generator.normal(size=9)
    theta = tf.Variable(generator.normal(size=3))
    phi = tf.Variable(np.linalg.solve(basis, theta.numpy()))

    def model(parameters):
        return lambda inputs: tf.tanh(tf.linalg.matvec(inputs, parameters()))[:, None]

    after = []
    for variable, forward in (
        (theta, model(lambda: theta)),
        (phi, model(lambda: tf.linalg.matvec(basis, phi))),
    ):
        operator = GaussNewton(forward, [variable], tf.constant(x))
        gradient = (operator.outputs - targets[:, None]) / len(x)
        optimizers.NaturalGradient(0.7, solvers.Cholesky(), 0.0).apply_output_gradient(gradient, operator)
        after.append(forward(tf.constant(x)).numpy())
    np.testing.assert_allclose(after[0], after[1], rtol=1e-6, atol=1e-8)


def test_chosen_outputs_match_a_dense_solve_over_those_rows():
    problem = LinearProblem()
    actions = np.arange(len(problem.x)) % 2
    chosen = np.eye(2)[actions]
    jacobian = np.einsum("bf,bk,kj->bfj", problem.x, chosen, np.eye(2)).reshape(len(problem.x), -1)
    residual = ((problem.x @ problem.start - problem.targets) * chosen).sum(axis=1)
    n = len(problem.x)
    expected = np.linalg.solve(jacobian.T @ jacobian / n + 0.2 * np.eye(6), jacobian.T @ residual / n)
    operator = problem.operator(SquaredError(chosen=tf.constant(actions)))
    optimizers.NaturalGradient(1.0, SOLVERS["dual_cholesky"](), 0.2).apply_output_gradient(
        tf.constant(residual[:, None] * chosen / n), operator
    )
    np.testing.assert_allclose(problem.w.numpy().reshape(-1), problem.start.reshape(-1) - expected, rtol=1e-9)


def test_config_round_trips():
    optimizer = optimizers.NaturalGradient(
        tf.keras.optimizers.schedules.ExponentialDecay(0.3, 10, 0.9),
        solvers.Dual(solver=solvers.MinresQLP(max_iterations=7)),
        optimizers.LevenbergMarquardt(initial=3.0),
        max_kl=0.02,
        momentum=0.5,
        scale_by_gradient_norm=True,
    )
    config = tf.keras.optimizers.serialize(optimizer)
    restored = tf.keras.optimizers.deserialize(copy.deepcopy(config))
    assert isinstance(restored, optimizers.NaturalGradient)
    assert tf.keras.optimizers.serialize(restored) == config


def test_state_is_checkpointed(tmp_path):
    def build():
        problem = LinearProblem()
        rule = optimizers.LevenbergMarquardt(initial=3.0)
        optimizer = optimizers.NaturalGradient(0.5, SOLVERS["dual_cg"](), rule, momentum=0.5)
        return problem, optimizer, tf.train.Checkpoint(w=problem.w, optimizer=optimizer)

    problem, optimizer, checkpoint = build()
    for _ in range(3):
        step(problem, optimizer, problem.loss)
    path = checkpoint.write(str(tmp_path / "state"))
    step(problem, optimizer, problem.loss)

    other, restored, checkpoint = build()
    restored.build([other.w])
    checkpoint.read(path).assert_consumed()
    step(other, restored, other.loss)
    assert other.w.numpy().tobytes() == problem.w.numpy().tobytes()
    assert float(restored.damping) == float(optimizer.damping)
    assert int(restored.iterations) == 4


def test_plain_apply_gradients_says_what_to_call():
    with pytest.raises(TypeError, match="apply_natural_gradient"):
        optimizers.NaturalGradient().apply_gradients([])


@pytest.mark.parametrize("option", [{"clipnorm": 1.0}, {"weight_decay": 0.1}, {"global_clipnorm": 1.0}])
def test_options_that_bend_the_joint_solve_are_refused(option):
    with pytest.raises(TypeError, match=next(iter(option))):
        optimizers.NaturalGradient(**option)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"max_kl": 0.0}, "max_kl"),
        ({"momentum": 1.0}, "momentum"),
        ({"damping": -1.0}, "damping"),
        ({"damping": "0.1"}, "damping"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": float("inf")}, "max_kl"),
        ({"solver": "dual"}, "solver"),
        (
            {"damping": tf.keras.utils.serialize_keras_object(solvers.Dual())},
            "damping must be or describe a damping rule",
        ),
        ({"damping": {"a": 1}}, "damping must be or describe a damping rule"),
        ({"learning_rate": {"a": 1}}, "learning_rate must be or describe a learning-rate schedule"),
        ({"max_kl": {"class_name": "Nope", "config": {}}}, "max_kl must be or describe a learning-rate schedule"),
    ],
)
def test_wrong_arguments_are_named(option, message):
    with pytest.raises(ValueError, match=message):
        optimizers.NaturalGradient(**option)


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), np.int64(1)])
def test_numpy_numbers_are_numbers(number):
    optimizer = optimizers.NaturalGradient(learning_rate=number, damping=number, max_kl=number)
    assert optimizer.damping_rule.initial == optimizer.max_kl == float(number)


def test_a_schedule_may_be_given_as_keras_serialises_it():
    schedule = tf.keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)
    described = tf.keras.optimizers.schedules.serialize(schedule)
    optimizer = optimizers.NaturalGradient(described, max_kl=described)
    optimizer.build([tf.Variable(1.0)])
    assert optimizer.get_config() == optimizers.NaturalGradient(schedule, max_kl=schedule).get_config()


@pytest.mark.parametrize("wrong", [tf.ones([1]), tf.ones([12])], ids=["[1]", "[B]"])
@pytest.mark.parametrize("by", ["loss", "loss_fn"])
def test_a_loss_that_is_no_scalar_is_refused_before_anything_moves(wrong, by):
    problem = LinearProblem()
    optimizer = optimizers.NaturalGradient()
    given = {"loss": wrong} if by == "loss" else {"loss_fn": lambda: wrong}
    with pytest.raises(ValueError, match=r"loss.* must be a scalar, got shape"):
        optimizer.apply_output_gradient(problem.output_gradient(), problem.operator(), **given)
    np.testing.assert_array_equal(problem.w, problem.start)


def test_a_loss_may_be_an_integer():
    problem = LinearProblem()
    optimizer = optimizers.NaturalGradient()
    assert optimizer.apply_output_gradient(problem.output_gradient(), problem.operator(), loss=1).skipped == 0


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("max_kl", [None, 0.01])
def test_a_rate_below_0_takes_a_step_of_no_length(max_kl, compiled):
    problem = LinearProblem()
    rate = tf.keras.optimizers.schedules.PiecewiseConstantDecay([0], [-5.0, -5.0])
    optimizer = optimizers.NaturalGradient(rate, max_kl=max_kl)
    optimizer.build([problem.w])
    stats = tf.function(lambda: step(problem, optimizer), jit_compile=compiled)()
    assert (stats.skipped, stats.step_norm) == (0, 0)
    np.testing.assert_array_equal(problem.w, problem.start)


def test_optimizer_of_one_network_is_refused_for_another():
    first, second = LinearProblem(), LinearProblem()
    optimizer = optimizers.NaturalGradient(momentum=0.5)
    step(first, optimizer)
    with pytest.raises(ValueError, match="built for other variables"):
        step(second, optimizer)


def test_operator_of_other_variables_is_refused():
    problem = LinearProblem()
    other = tf.Variable(problem.start)
    with pytest.raises(ValueError, match="other variables"):
        optimizers.NaturalGradient().apply_natural_gradient([(other * 1.0, other)], problem.operator())
    with pytest.raises(ValueError, match="no gradient"):
        optimizers.NaturalGradient().apply_natural_gradient([(None, problem.w)], problem.operator())
