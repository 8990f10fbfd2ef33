"""The critic's fit against a slow loop over the same minibatches, and against linear regression."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec

from ngrl import agents, networks, optimizers, solvers
from ngrl.agents import critic as critic_module
from ngrl.agents.minibatches import shuffled_minibatches

SPEC = tensor_spec.TensorSpec([3], tf.float32)
SEED = tf.constant([3, 5])
ROWS = 20
RUNS = ["eager", "graph", "xla"]


def batch(seed=0, masked=()):
    """Observations [N, 3], returns [N] and weights [N] with 0 in the rows `masked`."""
    random = np.random.default_rng(seed)
    observation = random.normal(size=(ROWS, 3)).astype(np.float32)
    returns = (observation @ [1.0, -2.0, 0.5] + 0.3 * random.normal(size=ROWS) + 4).astype(np.float32)
    weights = np.ones(ROWS, np.float32)
    weights[list(masked)] = 0
    return observation, returns, weights


def adam():
    return tf.keras.optimizers.Adam(0.05)


def natural(**options):
    solver = solvers.Dual(solver=solvers.Cholesky())
    return optimizers.NaturalGradient(**{"learning_rate": 1.0, "solver": solver, "damping": 0.1, **options})


def made(optimizer=None, hidden_layers=(5,), normaliser=None, **options):
    network = networks.ValueNetwork(SPEC, hidden_layers, normaliser=normaliser, seed=1)
    return agents.Critic(network, adam() if optimizer is None else optimizer, **options)


def fit(critic, arrays, run="eager"):
    call = critic.fit
    if run != "eager":
        call = tf.function(critic.fit, jit_compile=run == "xla", autograph=False)
    return call(*[tf.constant(array) for array in arrays], SEED)


def parameters(critic):
    return [v.numpy().astype(np.float64) for v in critic.network.trainable_weights]


def contents(critic):
    return [v.numpy().tobytes() for v in [*critic.network.variables, *critic.optimizer.variables]]


def flat(critic):
    return np.concatenate([p.reshape(-1) for p in parameters(critic)])


def gradients_by_hand(theta, observation, returns, weights):
    """Loss and gradients of a network with one tanh layer, by back-propagation on paper."""
    kernel, bias, last_kernel, last_bias = theta
    hidden = np.tanh(observation @ kernel + bias)
    error = (hidden @ last_kernel + last_bias)[:, 0] - returns
    share = weights / max(weights.sum(), 1e-30)
    at_output = (share * error)[:, np.newaxis]
    at_hidden = (at_output @ last_kernel.T) * (1 - hidden**2)
    gradients = [observation.T @ at_hidden, at_hidden.sum(axis=0), hidden.T @ at_output, at_output.sum(axis=0)]
    return (share * error**2).sum() / 2, gradients


def slow_adam(theta, arrays, minibatches, max_norm=None):
    """Kingma & Ba 2015, Algorithm 1 in the form of section 2, float64; also the mean loss and gradient norm."""
    observation, returns, weights = (array.astype(np.float64) for array in arrays)
    first = [np.zeros_like(p) for p in theta]
    second = [np.zeros_like(p) for p in theta]
    records = []
    for step, rows in enumerate(minibatches, start=1):
        loss, gradients = gradients_by_hand(theta, observation[rows], returns[rows], weights[rows])
        norm = np.sqrt(sum((g**2).sum() for g in gradients))
        records.append((loss, norm))
        if max_norm is not None:
            gradients = [g * min(1, max_norm / norm) for g in gradients]
        first = [0.9 * m + 0.1 * g for m, g in zip(first, gradients, strict=True)]
        second = [0.999 * v + 0.001 * g**2 for v, g in zip(second, gradients, strict=True)]
        rate = 0.05 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        theta = [p - rate * m / (np.sqrt(v) + 1e-7) for p, m, v in zip(theta, first, second, strict=True)]
    return theta, np.mean(records, axis=0)


@pytest.mark.parametrize("max_norm", [None, 0.5])
def test_adam_fit_equals_a_slow_loop_over_the_same_minibatches(max_norm):
    critic, arrays = made(epochs=4, batch_size=6, max_gradient_norm=max_norm), batch(masked=(2, 7, 8))
    minibatches = shuffled_minibatches(ROWS, 6, 4, SEED).numpy()
    expected, (loss, norm) = slow_adam(parameters(critic), arrays, minibatches, max_norm)
    stats = fit(critic, arrays)
    for got, wanted in zip(parameters(critic), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose([stats.loss, stats.gradient_norm], [loss, norm], rtol=1e-3)
    assert stats.skipped == 0
    assert critic.optimizer.iterations == len(minibatches) == 12


@pytest.mark.parametrize("solver", ["dual", "cg"])
def test_one_natural_step_solves_a_linear_regression(solver):
    """The ridge regression that the damping makes of it: ‖Xθ − G‖²/n + λ‖θ − θ₀‖² is least."""
    damping = 1e-3  # with less, float32 leaves the dual solve too few digits
    options = {"damping": damping}
    if solver == "cg":
        options["solver"] = solvers.ConjugateGradient(max_iterations=50)
    critic, arrays = made(natural(**options), hidden_layers=(), epochs=1, batch_size=ROWS), batch(masked=(0, 4))
    initial = flat(critic)
    fit(critic, arrays)
    observation, returns, weights = arrays
    design = np.hstack([observation, np.ones((ROWS, 1))])[weights > 0]
    ridge = np.sqrt(damping * len(design)) * np.eye(4)
    expected, *_ = np.linalg.lstsq(
        np.vstack([design, ridge]), np.concatenate([returns[weights > 0], ridge @ initial]), rcond=None
    )
    np.testing.assert_allclose(flat(critic), expected, rtol=1e-4, atol=1e-5)


def test_natural_steps_follow_the_minibatches_with_their_damping():
    """θ ← θ − (JᵀJ/n + λI)⁻¹ Jᵀe/n, one minibatch after another."""
    critic, arrays = made(natural(), hidden_layers=(), epochs=3, batch_size=6), batch(masked=(2, 7, 8))
    observation, returns, weights = (array.astype(np.float64) for array in arrays)
    design = np.hstack([observation, np.ones((ROWS, 1))])
    theta, steps = flat(critic), []
    for rows in shuffled_minibatches(ROWS, 6, 3, SEED).numpy():
        kept = rows[weights[rows] > 0]
        j, error = design[kept], design[kept] @ theta - returns[kept]
        steps.append(np.mean(error**2) / 2)
        theta = theta - np.linalg.solve(j.T @ j / len(kept) + 0.1 * np.eye(4), j.T @ error / len(kept))
    stats = fit(critic, arrays)
    np.testing.assert_allclose(flat(critic), theta, rtol=1e-3)
    np.testing.assert_allclose(stats.loss, np.mean(steps), rtol=1e-3)


def test_steps_that_curvature_forbids_say_so():
    optimizer = natural(solver=solvers.Dual(solver=solvers.Cholesky()), damping=0.0)
    critic = made(optimizer)
    inputs, returns, weights = batch()
    same = tf.nest.map_structure(lambda leaf: tf.repeat(leaf[:1], len(leaf), axis=0), inputs)
    stats = fit(critic, (same, returns, weights))
    assert stats.skipped > 0
    assert stats.skip_cause > float(optimizers.SkipCause.GRADIENT)


@pytest.mark.parametrize("optimizer", [adam, natural])
@pytest.mark.parametrize("run", ["eager", "xla"])
def test_masked_rows_count_for_nothing_whatever_they_hold(optimizer, run):
    """One minibatch an epoch, so that leaving the rows out leaves the minibatches what they are."""
    masked = [1, 6, 13]
    observation, returns, weights = batch(masked=masked)
    short = [np.delete(array, masked, axis=0) for array in (observation, returns, weights)]
    observation[masked] = [[np.nan] * 3, [np.inf] * 3, [0.0, np.nan, 1e30]]
    returns[masked] = [np.nan, 0.0, np.inf]
    whole, part = made(optimizer(), epochs=3, batch_size=100), made(optimizer(), epochs=3, batch_size=100)
    stats, expected = fit(whole, (observation, returns, weights), run), fit(part, short, run)
    np.testing.assert_allclose(flat(whole), flat(part), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(stats, expected, rtol=1e-3)
    assert stats.skipped == 0


@pytest.mark.parametrize("optimizer", [adam, natural])
def test_a_batch_of_masked_rows_leaves_the_weights(optimizer):
    critic = made(optimizer(), epochs=2, batch_size=10)
    before = flat(critic)
    stats = fit(critic, batch(masked=range(ROWS)))
    np.testing.assert_array_equal(flat(critic), before)
    assert tuple(stats) == (0, 0, 0, optimizers.SkipCause.NONE)


@pytest.mark.parametrize("optimizer", ["adam", "natural"])
@pytest.mark.parametrize("run", ["eager", "xla"])
@pytest.mark.parametrize(("place", "poison"), [("returns", np.nan), ("returns", np.inf), ("observation", np.nan)])
def test_what_is_not_finite_leaves_weights_and_slots_byte_identical(optimizer, run, place, poison):
    made_optimizer = adam() if optimizer == "adam" else natural(momentum=0.5)
    critic = made(made_optimizer, epochs=3, batch_size=100)
    fit(critic, batch())
    before = contents(critic)
    observation, returns, weights = batch(seed=1)
    (returns if place == "returns" else observation)[4] = poison
    stats = fit(critic, (observation, returns, weights), run)
    assert contents(critic) == before
    assert tuple(stats) == (0, 0, 3, optimizers.SkipCause.LOSS)


@pytest.mark.parametrize("optimizer", [adam, natural])
def test_one_bad_row_spoils_its_own_minibatches_alone(optimizer):
    """As if the minibatches with the row had not been; the means are over the others."""
    arrays = batch()
    arrays[1][4] = np.nan
    critic = made(optimizer(), epochs=3, batch_size=5)
    minibatches = shuffled_minibatches(ROWS, 5, 3, SEED).numpy()
    good = minibatches[~(minibatches == 4).any(axis=1)]
    other = made(optimizer(), epochs=1, batch_size=5)
    records = []
    for rows in good:  # a batch of one minibatch each
        stats = other.fit(*[tf.constant(array[rows]) for array in arrays], SEED)
        records.append((stats.loss, stats.gradient_norm))
    stats = fit(critic, arrays)
    assert stats.skipped == 3
    assert len(good) == 9
    np.testing.assert_allclose(flat(critic), flat(other), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose([stats.loss, stats.gradient_norm], np.mean(records, axis=0), rtol=1e-3)


@pytest.mark.parametrize("optimizer", [adam, natural])
def test_eager_graph_and_xla_agree(optimizer, monkeypatch):
    """In one and the same order: XLA shuffles otherwise."""
    order = shuffled_minibatches(ROWS, 6, 2, SEED).numpy()
    monkeypatch.setattr(critic_module, "shuffled_minibatches", lambda *_: tf.constant(order))
    fitted = {}
    for run in RUNS:
        critic = made(optimizer(), epochs=2, batch_size=6)
        stats = fit(critic, batch(masked=(3,)), run)
        fitted[run] = np.append(flat(critic), stats)
    np.testing.assert_allclose(fitted["graph"], fitted["eager"], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(fitted["xla"], fitted["eager"], rtol=1e-3, atol=1e-5)


def test_levenberg_marquardt_damping_learns_from_the_fit():
    critic = made(natural(damping=optimizers.LevenbergMarquardt(initial=1.0)), epochs=10, batch_size=ROWS)
    fit(critic, batch())
    assert critic.optimizer.iterations == 10
    assert critic.optimizer.damping != 1.0


@pytest.mark.parametrize("run", RUNS)
def test_values_are_the_networks_with_its_normaliser(run):
    normaliser = networks.ObservationNormaliser(SPEC)
    critic = made(normaliser=normaliser)
    observation = 5 + 3 * batch()[0]
    before = critic.values(critic.encode(tf.constant(observation))).numpy()
    normaliser.update(tf.constant(observation), tf.ones(ROWS))

    def values(rows):
        return critic.values(critic.encode(rows))

    if run != "eager":
        values = tf.function(values, jit_compile=run == "xla", autograph=False)
    got = values(tf.constant(observation)).numpy()
    assert got.shape == (ROWS,)
    np.testing.assert_allclose(got, critic.network(observation)[0], rtol=1e-4, atol=1e-6)
    assert np.abs(got - before).max() > 0.01


def test_a_fit_leaves_the_normaliser_as_it_is():
    normaliser = networks.ObservationNormaliser(SPEC)
    normaliser.update(tf.constant(batch()[0]), tf.ones(ROWS))
    critic = made(normaliser=normaliser)
    before = [v.numpy().tobytes() for v in normaliser.variables]
    assert fit(critic, batch(seed=2)).skipped == 0
    assert [v.numpy().tobytes() for v in normaliser.variables] == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be a positive integer, got 0"),
        ({"batch_size": 0}, "batch_size must be a positive integer, got 0"),
        ({"max_gradient_norm": 0.0}, "max_gradient_norm must be positive and finite or None"),
        ({"optimizer": "adam"}, "must be a tf.keras.optimizers.Optimizer, got 'adam'"),
        ({"optimizer": natural(), "max_gradient_norm": 1.0}, "bound its step with max_kl"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        made(**options)
