"""What REINFORCE, NPG, TRPO and PPO have in common: which rows count, bad batches, normalisation, acting."""

import numpy as np
import pytest
import tensorflow as tf
from on_policy_reference import (
    AGENTS,
    BOX,
    DISCRETE,
    LAST,
    MID,
    OBSERVATION,
    POLICIES,
    SPEC,
    SlowPolicy,
    everything,
    experience,
    make_actor,
    make_critic,
    slow_batch,
    snapshot,
    transitions,
    weights,
)
from tf_agents.networks import actor_distribution_network
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from ngrl import agents, networks, optimizers

NATURAL = ("npg", "trpo")
every_agent = pytest.mark.parametrize("kind", AGENTS)


def weights_of(network):
    return [variable.numpy() for variable in network.trainable_weights]


def whole(kind):
    """Options for updates that don't depend on the order of minibatches."""
    return {"epochs": 1, "batch_size": 1000} if kind == "ppo" else {}


def cut(batch, *index):
    return tf.nest.map_structure(lambda leaf: leaf[index], batch)


def assert_finite(agent, info):
    critic = agent.critic
    for module in (agent.actor_network, agent.optimizer, critic and critic.network, critic and critic.optimizer):
        variables = [] if module is None else module.variables
        for variable in variables() if callable(variables) else variables:
            assert np.isfinite(variable.numpy()).all(), variable.name
    allowed = {"reduction_ratio", "line_search_kl"}  # NaN where nothing was measured
    values = {**info.extra._asdict(), **info.extra.optimizer._asdict()}
    for name, value in values.items():
        assert name in {*allowed, "optimizer"} or np.isfinite(value), name


@every_agent
@pytest.mark.parametrize("policy", POLICIES)
def test_entropy_and_explained_variance_are_those_before_the_update(kind, policy):
    agent = AGENTS[kind](policy=policy, critic=make_critic())
    batch = experience(policy)
    _, returns, counts = slow_batch(agent, batch)
    observation, _ = transitions(batch)
    slow = SlowPolicy(agent, policy)
    entropy = slow.entropy(slow.parameters(slow.theta, observation)).numpy()[counts > 0].mean()
    value = agent.critic.network(tf.constant(observation, tf.float32))[0].numpy()
    left = (returns - value)[counts > 0].var() / returns[counts > 0].var()
    extra = agent.train(batch).extra
    np.testing.assert_allclose(extra.entropy, entropy, rtol=1e-5)
    np.testing.assert_allclose(extra.explained_variance, 1 - left, rtol=1e-3, atol=1e-5)


@every_agent
@pytest.mark.parametrize("policy", ["discrete", "gaussian"])
def test_reset_rows_count_nowhere_whatever_they_hold(kind, policy):
    plain, poisoned = (AGENTS[kind](policy=policy, normalise=False) for _ in range(2))
    batch = experience(policy)
    reset = batch.step_type.numpy() == LAST
    assert reset[:, :-1].sum() >= 4
    observation, reward = batch.observation.numpy().copy(), batch.reward.numpy().copy()
    observation[reset] = 50.0
    reward[reset] = np.nan
    plain.train(batch)
    info = poisoned.train(batch._replace(observation=tf.constant(observation), reward=tf.constant(reward)))
    assert info.extra.optimizer.skipped == 0
    np.testing.assert_allclose(weights(poisoned), weights(plain), rtol=1e-4, atol=1e-6)


@every_agent
@pytest.mark.parametrize("policy", ["discrete", "gaussian"])
def test_non_finite_observation_where_an_episode_terminated_spoils_nothing(kind, policy):
    """A physics engine that fails may end the episode with such an observation; nothing is bootstrapped from it."""
    plain, poisoned = (AGENTS[kind](policy=policy, critic=make_critic()) for _ in range(2))
    batch = experience(policy)
    terminated = (batch.next_step_type.numpy() == LAST) & (batch.discount.numpy() == 0)
    observation = batch.observation.numpy().copy()
    observation[:, 1:][terminated[:, :-1]] = np.nan
    assert np.isnan(observation).any()
    plain.train(batch)
    info = poisoned.train(batch._replace(observation=tf.constant(observation)))
    assert info.extra.optimizer.skipped == info.extra.critic_skipped == 0
    np.testing.assert_allclose(weights(poisoned), weights(plain), rtol=1e-4, atol=1e-6)


@every_agent
def test_batch_cut_at_its_reset_trains_the_same(kind):
    """Rows 0 to 6 and 6 to 12 as two trajectories: row 6 is the reset, whatever lies on either side."""
    together, apart = (AGENTS[kind](critic=make_critic(epochs=1, batch_size=1000), **whole(kind)) for _ in range(2))
    types = np.full((1, 14), MID)
    types[0, 6], types[0, 7] = LAST, 0
    batch = experience(trajectories=1, rows=13)._replace(
        step_type=tf.constant(types[:, :-1], tf.int32),
        next_step_type=tf.constant(types[:, 1:], tf.int32),
        discount=tf.ones([1, 13]),
    )
    halves = tf.nest.map_structure(lambda leaf: tf.stack([leaf[0, :7], leaf[0, 6:]]), batch)
    together.train(batch)
    apart.train(halves)
    np.testing.assert_allclose(weights(apart), weights(together), rtol=1e-3, atol=1e-5)
    for one, other in zip(together.critic.network.variables, apart.critic.network.variables, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


@every_agent
def test_trajectory_of_weight_zero_is_left_out(kind):
    weighted, short = (AGENTS[kind](**whole(kind)) for _ in range(2))
    batch = experience()
    weighted.train(batch, weights=tf.constant([1.0, 0.0, 1.0, 1.0]))
    short.train(tf.nest.map_structure(lambda leaf: tf.gather(leaf, [0, 2, 3]), batch))
    np.testing.assert_allclose(weights(weighted), weights(short), rtol=1e-3, atol=1e-5)


@every_agent
@pytest.mark.parametrize(("trajectories", "rows"), [(4, 1), (4, 0), (0, 9)])
def test_trajectories_without_a_transition_are_refused(kind, trajectories, rows):
    agent = AGENTS[kind]()
    before = everything(agent)
    with pytest.raises(ValueError, match=f"{trajectories} trajectories of {rows} rows hold no transition"):
        agent.train(cut(experience(), slice(trajectories), slice(rows)))
    assert everything(agent) == before


def test_trajectories_of_unknown_length_or_without_a_batch_axis_are_refused():
    agent, batch = AGENTS["npg"](), experience()
    with pytest.raises(ValueError, match="with B and T known"):
        agent.train(cut(batch, 0))
    free = tf.nest.map_structure(lambda leaf: tf.TensorSpec([None, None, *leaf.shape[2:]], leaf.dtype), batch)
    with pytest.raises(ValueError, match="with B and T known"):
        tf.function(agent.train, autograph=False).get_concrete_function(free)


@every_agent
@pytest.mark.parametrize("with_critic", [False, True])
def test_batch_of_reset_rows_alone_changes_no_weight(kind, with_critic):
    agent = AGENTS[kind](critic=make_critic() if with_critic else None)
    before = weights(agent), with_critic and snapshot(agent.critic.network)
    info = agent.train(experience()._replace(step_type=tf.fill([4, 9], LAST)))
    assert_finite(agent, info)
    np.testing.assert_array_equal(weights(agent), before[0])
    assert not with_critic or snapshot(agent.critic.network) == before[1]
    assert info.extra.optimizer.skipped == info.extra.kl == 0


@every_agent
@pytest.mark.parametrize("policy", ["discrete", "gaussian"])
def test_equal_advantages_are_no_reason_to_change_the_policy(kind, policy):
    """A natural step never does; a plain optimizer's momentum may carry on, but adds nothing."""
    agent = AGENTS[kind](policy=policy, gamma=0.0)
    batch = experience(policy, reward=7.3)
    before = snapshot(agent.actor_network)
    info = agent.train(batch)
    assert_finite(agent, info)
    assert snapshot(agent.actor_network) == before
    agent.train(experience(policy))
    trained = snapshot(agent.actor_network)
    assert trained != before
    info = agent.train(batch)
    assert_finite(agent, info)
    assert info.extra.optimizer.gradient_norm == 0
    if kind in NATURAL:
        assert snapshot(agent.actor_network) == trained


@every_agent
@pytest.mark.parametrize(
    ("poison", "normalise", "compiled"),
    [("reward", True, False), ("reward", False, True), ("observation", True, False), ("observation", False, False)],
)
def test_one_non_finite_number_leaves_policy_critic_and_slots_byte_identical(kind, poison, normalise, compiled):
    """Also where minibatches are too small for all of them to hold it."""
    agent = AGENTS[kind](critic=make_critic(batch_size=4), normalise=normalise)
    train = tf.function(agent.train) if compiled else agent.train
    train(experience())
    before = everything(agent)
    batch = experience(seed=1, ends=0.6)
    leaf = getattr(batch, poison).numpy().copy()
    leaf[1, 2] = np.inf if poison == "reward" else np.nan
    info = train(batch._replace(**{poison: tf.constant(leaf)}))
    assert everything(agent) == before
    assert info.extra.optimizer.skipped >= 1
    assert info.extra.optimizer.skip_cause == optimizers.SkipCause.LOSS
    assert info.extra.critic_skipped == 2 * 8
    assert info.extra.critic_skip_cause == optimizers.SkipCause.LOSS
    assert train(experience()).extra.optimizer.skipped == 0
    assert everything(agent) != before


def test_non_finite_reward_is_skipped_under_xla():
    agent = AGENTS["trpo"](policy="gaussian", critic=make_critic())
    before = everything(agent)
    reward = experience("gaussian").reward.numpy().copy()
    reward[0, 0] = np.nan
    info = tf.function(agent.train, jit_compile=True)(experience("gaussian")._replace(reward=tf.constant(reward)))
    assert everything(agent) == before
    assert info.extra.optimizer.skipped == 1
    assert info.extra.critic_skipped > 0


def pushing_log_std(agent, direction):
    """A batch in which actions at the mean pay more (direction −1) or less (+1) than those 2σ beside it."""
    batch = experience("gaussian", ends=0.0)
    mean, log_std = tf.split(agent.actor_network.distribution_parameters(tf.reshape(batch.observation, [-1, 3])), 2, 1)
    beside = np.tile([0.0, 1.0], 18)[:, None]
    drawn = tf.reshape(mean + 2 * beside.astype(np.float32) * tf.exp(log_std), [4, 9, 2])
    return batch._replace(
        action=tf.clip_by_value(drawn, -1, 1),
        policy_info={"drawn_action": drawn},
        reward=tf.constant(direction * beside.reshape(4, 9), tf.float32),
    )


@every_agent
@pytest.mark.parametrize("policy", ["gaussian", "state_dependent"])
@pytest.mark.parametrize("bound", [-5.0, -20.0])
def test_collapsed_log_std_stays_finite_and_at_its_bound(kind, policy, bound):
    actor = make_actor(policy, initial_log_std=bound, min_log_std=bound, output_scale=1e-3)
    agent = AGENTS[kind](policy=policy, actor=actor, gamma=0.0)
    for _ in range(3):
        assert_finite(agent, agent.train(pushing_log_std(agent, -1)))
        _, log_std = np.split(actor.distribution_parameters(experience("gaussian").observation[0]).numpy(), 2, axis=1)
        assert (log_std >= bound).all()
    if policy == "gaussian" and bound == -5.0:  # at −20 float32 can't tell a drawn action from the mean
        np.testing.assert_array_equal(actor.log_std, bound)


@every_agent
def test_log_std_at_its_bound_can_leave_it(kind):
    actor = make_actor("gaussian", initial_log_std=-5.0, min_log_std=-5.0)
    agent = AGENTS[kind](policy="gaussian", actor=actor, gamma=0.0)
    agent.train(pushing_log_std(agent, 1))
    assert (actor.log_std.numpy() > -5.0).all()


@every_agent
def test_observations_are_normalised_by_what_was_known_before_the_update(kind):
    """Policy and critic train on the moments under which the policy acted, and only then is the batch counted."""
    first, second = experience(seed=1), experience(seed=2)
    scaled = second._replace(observation=3.0 * second.observation + 1.0)
    normaliser = networks.ObservationNormaliser(OBSERVATION)
    first_rows, second_rows = (
        batch.observation.numpy()[:, :-1][batch.step_type.numpy()[:, :-1] != LAST] for batch in (first, scaled)
    )
    normaliser.update(tf.constant(first_rows), tf.ones([len(first_rows)]))
    mean, std = first_rows.mean(axis=0), first_rows.std(axis=0)
    by_hand = scaled._replace(observation=(scaled.observation - mean) / std)

    def build(shared):
        actor = make_actor(normaliser=shared)
        return AGENTS[kind](actor=actor, critic=make_critic(normaliser=shared))

    ours, reference = build(normaliser), build(None)
    ours.train(scaled)
    reference.train(by_hand)
    np.testing.assert_allclose(weights(ours), weights(reference), rtol=1e-3, atol=1e-5)
    for one, other in zip(
        ours.critic.network.trainable_weights, reference.critic.network.trainable_weights, strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
    seen = np.concatenate([first_rows, second_rows])
    assert np.abs(seen.mean(axis=0) - mean).max() > 0.1
    np.testing.assert_allclose(normaliser.moments.mean, seen.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(normaliser.moments.variance, seen.var(axis=0), rtol=1e-4)


def test_actions_are_clipped_to_the_bounds_and_kept_as_drawn():
    agent = AGENTS["npg"](policy="gaussian", actor=make_actor("gaussian", initial_log_std=0.5))
    observation = tf.zeros([5000, 3])
    step = agent.act(observation, tf.constant([3, 4]))
    drawn = step.info["drawn_action"].numpy()
    np.testing.assert_array_equal(step.action, np.clip(drawn, -1, 1))
    mean = agent.policy.action(ts.restart(observation[:1], 1)).action.numpy()
    np.testing.assert_allclose(drawn.mean(axis=0), mean[0], atol=4 * np.exp(0.5) / np.sqrt(5000))
    np.testing.assert_allclose(drawn.std(axis=0), np.exp(0.5), rtol=0.05)
    np.testing.assert_array_equal(agent.act(observation, tf.constant([3, 4])).action, step.action)
    assert (agent.act(observation, tf.constant([3, 5])).action != step.action).numpy().any()
    # The policy that stock drivers use says the same of its own draws.
    collected = agent.collect_policy.action(ts.restart(observation, 5000))
    assert (np.abs(collected.info["drawn_action"]) > 1).any()
    np.testing.assert_array_equal(collected.action, np.clip(collected.info["drawn_action"], -1, 1))


def test_discrete_actions_have_the_frequencies_of_the_softmax():
    agent = AGENTS["npg"]()
    observation = tf.constant([[0.5, -1.0, 2.0]])
    logits = agent.actor_network.distribution_parameters(observation)
    expected = tf.nn.softmax(logits).numpy()[0]
    assert expected.min() > 0.02
    drawn = agent.act(tf.tile(observation, [20_000, 1]), tf.constant([1, 2])).action.numpy()
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / 20_000, expected, atol=0.02)


@every_agent
def test_each_update_is_counted_and_repeats_exactly(kind):
    first, second = (AGENTS[kind](critic=make_critic()) for _ in range(2))
    for agent in (first, second):
        for seed in range(2):
            agent.train(experience(seed=seed))
        assert agent.train_step_counter == 2
    assert everything(first) == everything(second)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"optimizer must be a tf\.keras\.optimizers\.Optimizer"):
        agents.ReinforceAgent(SPEC, BOX, make_actor("gaussian"), 0.1)
    with pytest.raises(ValueError, match="entropy_weight must be finite and not negative"):
        AGENTS["ppo"](entropy_weight=-0.1)
    shared = tf.keras.optimizers.Adam(0.1)
    with pytest.raises(ValueError, match="ReinforceAgent: policy and critic have one optimizer"):
        agents.ReinforceAgent(SPEC, DISCRETE, make_actor(), shared, make_critic(shared))
    other = networks.ObservationNormaliser(OBSERVATION)
    with pytest.raises(ValueError, match="NpgAgent: the critic's normaliser has seen no observation"):
        AGENTS["npg"](critic=make_critic(normaliser=other))


@pytest.mark.parametrize(
    ("policy", "spec", "problem"),
    [
        ("gaussian", DISCRETE, r"the policy's network is for actions of shape \(\) and dtype int64 from 0 to 2, the "),
        ("discrete", BOX, r"the environment has actions of shape \(\) and dtype int64 from 0 to 2"),
        ("discrete", tensor_spec.BoundedTensorSpec([], tf.int64, 0, 4), "is for .* from 0 to 4, the environment has"),
        ("gaussian", tensor_spec.BoundedTensorSpec([3], tf.float32, -1, 1), r"is for actions of shape \(3,\)"),
    ],
)
def test_policy_that_is_for_other_actions_is_refused(policy, spec, problem):
    with pytest.raises(ValueError, match=f"NpgAgent: .*{problem}"):
        AGENTS["npg"](policy=policy, actor=networks.ActorNetwork(OBSERVATION, spec, (4,)))


def test_policy_that_is_no_actor_network_is_refused():
    network = actor_distribution_network.ActorDistributionNetwork(OBSERVATION, BOX)
    with pytest.raises(ValueError, match=r"NpgAgent: the policy's network must be an ngrl\.networks\.ActorNetwork"):
        AGENTS["npg"](policy="gaussian", actor=network)


@every_agent
def test_weights_are_one_for_each_trajectory(kind):
    agent = AGENTS[kind]()
    with pytest.raises(ValueError, match=r"train takes a weight for each of 4, got weights of shape \(3,\)"):
        agent.train(experience(), weights=tf.ones([3]))


@pytest.mark.parametrize("option", [{"std": "state_independent"}, {"initial_log_std": 0.0}])
def test_options_of_continuous_actions_are_refused_for_discrete_ones(option):
    with pytest.raises(ValueError, match="are for continuous actions; the environment's are discrete"):
        make_actor("discrete", **option)


@every_agent
def test_entropy_weight_may_follow_a_schedule_over_the_train_steps(kind):
    """Each update is that of an agent with the constant weight; below zero it is zero."""
    schedule = tf.keras.optimizers.schedules.PiecewiseConstantDecay([0, 1], [2.0, 0.5, -1.0])
    scheduled = AGENTS[kind](entropy_weight=schedule)
    changes = []
    for step, weight in enumerate((2.0, 0.5, 0.0)):
        constant = AGENTS[kind](entropy_weight=weight)
        pairs = [(scheduled.actor_network, constant.actor_network), (scheduled.optimizer, constant.optimizer)]
        for source, destination in pairs:
            for value, variable in zip(source.variables, destination.variables, strict=True):
                variable.assign(value)
        constant.train_step_counter.assign(step)
        before = weights_of(scheduled.actor_network)
        for agent in (scheduled, constant):
            agent.train(experience(seed=step))
        changes.append(np.subtract(weights_of(scheduled.actor_network)[0], before[0]))
        for new, expected in zip(weights_of(scheduled.actor_network), weights_of(constant.actor_network), strict=True):
            np.testing.assert_array_equal(new, expected)
    assert all(np.abs(change).max() > 0 for change in changes)


@every_agent
def test_average_follows_the_policy_and_is_what_acts_greedily(kind):
    agent = AGENTS[kind](critic=make_critic())
    average = make_actor(seed=9)
    agent.average_into(average, agents.SoftUpdate(0.25))
    expected = weights_of(agent.actor_network)
    for seed in range(3):
        agent.train(experience(seed=seed))
        pairs = zip(expected, weights_of(agent.actor_network), strict=True)
        expected = [0.75 * mean + 0.25 * new for mean, new in pairs]
    for value, weight in zip(weights_of(average), expected, strict=True):
        np.testing.assert_allclose(value, weight, rtol=1e-5, atol=1e-7)
    observation = experience(seed=7).observation[0]
    first = ts.restart(observation, batch_size=9)
    assert not np.allclose(weights_of(average)[0], weights_of(agent.actor_network)[0])
    np.testing.assert_array_equal(
        agent.policy.action(first).action, np.argmax(average.distribution_parameters(observation), axis=1)
    )
    np.testing.assert_allclose(
        agent.collect_policy.distribution(first).action.logits_parameter(),
        agent.actor_network.distribution_parameters(observation),
        rtol=1e-6,
    )


def test_average_of_a_skipped_update_stays_as_it_is():
    agent = AGENTS["trpo"](critic=make_critic())
    average = make_actor()
    agent.average_into(average, agents.SoftUpdate(0.5))
    agent.train(experience())
    before = snapshot(average)
    reward = experience().reward.numpy().copy()
    reward[1, 2] = np.inf
    agent.train(experience()._replace(reward=tf.constant(reward)))
    assert snapshot(average) == before


def test_average_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"TrpoAgent: the average's weights .* don't match the policy's"):
        AGENTS["trpo"]().average_into(make_actor(hidden=(5,)), agents.SoftUpdate())
