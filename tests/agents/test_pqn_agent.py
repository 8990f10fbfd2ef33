import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory

from ngrl import agents, networks

OBSERVATION = tensor_spec.TensorSpec([3], tf.float32)
ACTION = tensor_spec.BoundedTensorSpec([], tf.int64, 0, 1)
FIRST, MID, LAST = 0, 1, 2
# A termination with its reset row, then a truncation: [B, T] step types, and discounts of the steps that reach them.
STEP_TYPES = np.array([[MID, MID, LAST, FIRST, MID], [FIRST, MID, MID, LAST, FIRST]])
DISCOUNT = np.array([[1, 0, 1, 1, 1], [1, 1, 1, 1, 1]], np.float32)
GAMMA, LAMBDA, RATE = 0.9, 0.7, 0.3


def make(**options):
    network = networks.QNetwork(OBSERVATION, 2, (5,), seed=1, layer_norm=True)
    defaults = {"gamma": GAMMA, "trace_lambda": LAMBDA, "epochs": 1, "batch_size": 100}
    optimizer = tf.keras.optimizers.SGD(RATE)
    return agents.PqnAgent(ts.time_step_spec(OBSERVATION), ACTION, network, optimizer, **{**defaults, **options})


def experience():
    random = np.random.default_rng(0)
    return trajectory.Trajectory(
        step_type=tf.constant(STEP_TYPES, tf.int32),
        observation=tf.constant(random.normal(size=(2, 5, 3)), tf.float32),
        action=tf.constant(random.integers(2, size=(2, 5)), tf.int64),
        policy_info=(),
        next_step_type=tf.constant(np.roll(STEP_TYPES, -1, axis=1), tf.int32),
        reward=tf.constant(random.normal(size=(2, 5)), tf.float32),
        discount=tf.constant(DISCOUNT),
    )


def targets(agent, batch):
    """Peng's Q(λ) by a plain loop over the steps that are transitions: {(trajectory, row): target}."""
    values = agent.q_network(tf.reshape(batch.observation, [-1, 3]))[0].numpy().reshape(2, 5, 2).max(axis=2)
    found = {}
    for row in range(2):
        for step in reversed(range(4)):
            if STEP_TYPES[row, step] == LAST:
                continue
            beyond = values[row, step + 1]
            if STEP_TYPES[row, step + 1] != LAST and step < 3:
                beyond = (1 - LAMBDA) * beyond + LAMBDA * found[row, step + 1]
            found[row, step] = batch.reward[row, step].numpy() + GAMMA * DISCOUNT[row, step] * beyond
    return found


@pytest.mark.parametrize("epsilon", [7.0, -0.1, float("nan")])
def test_epsilon_is_a_probability(epsilon):
    with pytest.raises(ValueError, match=r"PqnAgent: epsilon must lie in \[0, 1\]"):
        make(epsilon=epsilon)


def test_start_of_an_accumulator_is_like_what_train_returns():
    agent = make()
    tf.nest.assert_same_structure(agent.train(experience()).extra, agent.zero_extra())


def test_update_is_a_gradient_step_towards_pengs_returns_of_every_step_that_is_one():
    agent, batch = make(), experience()
    expected = targets(agent, batch)
    assert len(expected) == 6
    rows, steps = np.array(list(expected)).T
    wanted = np.array(list(expected.values()), np.float32)
    variables = agent.q_network.trainable_weights
    with tf.GradientTape() as tape:
        q = agent.q_network(batch.observation.numpy()[rows, steps])[0]
        chosen = tf.gather(q, batch.action.numpy()[rows, steps], axis=1, batch_dims=1)
        loss = 0.5 * tf.reduce_mean(tf.square(wanted - chosen))
    after = [v.numpy() - RATE * g.numpy() for v, g in zip(variables, tape.gradient(loss, variables), strict=True)]
    info = agent.train(batch)
    np.testing.assert_allclose(info.loss, loss, rtol=1e-5)
    for variable, value in zip(variables, after, strict=True):
        np.testing.assert_allclose(variable, value, rtol=1e-4, atol=1e-6)


def test_epochs_go_through_minibatches_whose_targets_are_those_before_the_first():
    agent, batch = make(epochs=3, batch_size=2), experience()
    agent.train(batch)
    assert int(agent.optimizer.iterations) == 3 * 4
    assert int(agent.train_step_counter) == 1


@pytest.mark.parametrize("field", ["reward", "observation"])
def test_a_number_that_is_not_finite_changes_nothing_and_is_counted(field):
    agent, batch = make(batch_size=2), experience()
    before = [v.numpy() for v in agent.q_network.variables]
    values = getattr(batch, field).numpy()
    values[0, 0] = np.nan  # the observation left first is in no target
    info = agent.train(batch._replace(**{field: tf.constant(values)}))
    assert info.extra.optimizer.skipped > 0
    assert info.extra.optimizer.skip_cause == 1
    for variable, value in zip(agent.q_network.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_loss_is_the_mean_of_the_minibatches_that_were_not_skipped(monkeypatch):
    agent, number = make(batch_size=2, epochs=3), tf.Variable(0)
    taken = agent._step

    def every_third_alone_works(batch):
        works, info = tf.equal(number.assign_add(1) % 3, 0), taken(batch)
        cause = tf.where(tf.equal(number % 3, 1), 4.0, 1.0)
        stats = info.extra.optimizer._replace(skipped=tf.where(works, 0.0, 1.0), skip_cause=tf.where(works, 0.0, cause))
        return info._replace(loss=tf.where(works, 2.0, np.nan), extra=info.extra._replace(optimizer=stats))

    monkeypatch.setattr(agent, "_step", every_third_alone_works)
    average = networks.QNetwork(OBSERVATION, 2, (5,), seed=9, layer_norm=True)
    agent.average_into(average, agents.SoftUpdate(0.5))
    before = average.trainable_weights[0].numpy()
    info = agent.train(experience())
    # It follows what minibatches have moved, though some were skipped.
    moved = 0.5 * before + 0.5 * agent.q_network.trainable_weights[0].numpy()
    np.testing.assert_allclose(average.trainable_weights[0], moved, rtol=1e-6)
    assert np.abs(moved - before).max() > 0
    stats = info.extra.optimizer
    assert (number.numpy(), info.loss.numpy(), stats.skipped.numpy(), stats.skip_cause.numpy()) == (12, 2, 8, 4)


def test_epsilon_follows_its_schedule_over_the_train_steps_and_is_the_collect_policys():
    agent = make(epsilon=tf.keras.optimizers.schedules.PolynomialDecay(1.0, 2, 0.0))
    observation = tf.random.stateless_normal([2000, 3], [0, 1])
    greedy = np.argmax(agent.q_network(observation)[0], axis=1)
    for share in (0.5, 0.75, 1.0):
        actions = agent.act(observation, tf.constant([1, 2])).action.numpy()
        assert np.mean(actions == greedy) == pytest.approx(share, abs=0.04)
        agent.train(experience())
        greedy = np.argmax(agent.q_network(observation)[0], axis=1)
