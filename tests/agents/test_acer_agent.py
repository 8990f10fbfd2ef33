"""ACER's update against its equations written out, and what it does with input that can't be trained on."""

import math

import numpy as np
import pytest
import tensorflow as tf
from acer_reference import GAMMA, SlowAcer, everything, make, make_critic, modules, replayed
from on_policy_reference import DISCRETE, LAST, OBSERVATION, POLICIES, SPEC, make_actor
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from ngrl import agents, losses, networks, optimizers
from ngrl.replay import BEHAVIOUR

SETTINGS = {"truncation": 1.2, "trust_region": 0.05, "retrace_lambda": 0.9, "entropy_weight": 0.02}


def weights(modules):
    return [variable.numpy().astype(np.float64) for module in modules for variable in module.trainable_variables]


def state(agent):
    """All variables: weights, slots and counters."""
    return [*(variable for module in modules(agent) for variable in module.variables), agent.train_step_counter]


# --- the update


@pytest.mark.parametrize(("policy", "statistics"), [*((p, "probabilities") for p in POLICIES), ("discrete", "logits")])
def test_update_is_the_papers_with_truncation_and_trust_region_active(policy, statistics):
    settings = SETTINGS | {"phi": statistics}
    agent, batch = make(policy, reward_scale=0.5, **settings), replayed(policy)
    slow = SlowAcer(agent, policy, batch, **settings, scale=0.5)
    actor, critic = agent.actor_network, agent.critic
    old_actor, old_average, old_critic = (weights([m]) for m in (actor, agent.average_network, critic))
    extra = agent.train(batch).extra
    ascent = slow.ascent()
    truncated = np.mean([step.ratio > 1.2 for step in slow.steps])
    bent = np.mean([step.bent for step in slow.steps])
    assert 0.1 < truncated < 0.9
    assert 0.1 < bent < 0.9
    layer = actor.layers_in_order[0]
    old = {variable.ref(): value for variable, value in zip(actor.trainable_variables, old_actor, strict=True)}
    for variable, change in ((layer.kernel, ascent["kernel"]), (layer.bias, ascent["bias"])):
        np.testing.assert_allclose(variable.numpy() - old[variable.ref()], change, rtol=1e-4, atol=2e-6)
    if actor.log_std is not None:
        moved = actor.log_std.numpy() - old[actor.log_std.ref()]
        np.testing.assert_allclose(moved, ascent["log_std"][0], rtol=1e-4, atol=2e-6)
    changes = [new - before for new, before in zip(weights([critic]), old_critic, strict=True) if new.ndim == 2]
    expected = slow.critic_kernels()
    assert len(changes) == len(expected)
    for change in expected:
        assert any(c.shape == change.shape and np.allclose(c, change, rtol=1e-4, atol=2e-6) for c in changes)
    for new, average, before in zip(weights([actor]), weights([agent.average_network]), old_average, strict=True):
        np.testing.assert_allclose(average, 0.99 * before + 0.01 * new, atol=1e-6)
    assert float(extra.truncated) == pytest.approx(truncated, abs=1e-6)
    assert float(extra.trust_region) == pytest.approx(bent, abs=1e-6)
    assert float(extra.mean_ratio) == pytest.approx(np.mean([step.ratio for step in slow.steps]), rel=1e-4)
    assert float(extra.max_ratio) == pytest.approx(max(step.ratio for step in slow.steps), rel=1e-4)
    assert agent.train_step_counter == 1


@pytest.mark.parametrize("policy", POLICIES)
def test_entropy_weight_may_follow_a_schedule_over_the_train_steps(policy):
    batch = replayed(policy)
    schedule = tf.keras.optimizers.schedules.PiecewiseConstantDecay([0, 1], [0.5, 0.1, -0.1])
    scheduled = make(policy, **SETTINGS | {"entropy_weight": schedule})
    before = weights([scheduled.actor_network])
    moved = []
    for weight in (0.5, 0.1, 0.0):
        constant = make(policy, **SETTINGS | {"entropy_weight": weight})
        for source, destination in zip(state(scheduled), state(constant), strict=True):
            destination.assign(source)
        for agent in (scheduled, constant):
            agent.train(batch)
        for new, expected in zip(weights([scheduled.actor_network]), weights([constant.actor_network]), strict=True):
            np.testing.assert_array_equal(new, expected)
        moved.append(np.abs(weights([scheduled.actor_network])[0] - before[0]).max())
    assert min(moved) > 0


@pytest.mark.parametrize("policy", POLICIES)
def test_without_truncation_it_is_the_fully_importance_weighted_estimator(policy):
    """C → ∞ and λ = 1: the slope of −Ê[ρ (Q^ret − V)] (Q^opc for continuous actions), ρ differentiated itself."""
    settings = {"truncation": math.inf, "trust_region": None, "retrace_lambda": 1.0, "entropy_weight": 0.0}
    agent, batch = make(policy, **settings), replayed(policy, spread=0.5)
    slow = SlowAcer(agent, policy, batch, **settings)
    actor = agent.actor_network
    x, actions, targets = [], [], []
    for b, t, target in full_targets(slow, batch, policy):
        x.append(slow.x[b, t])
        actions.append((slow.actions[b, t], slow.behaviour[b, t]))
        targets.append(target - slow.v[b, t])
    taken = tf.constant(np.array([action for action, _ in actions]))
    behaviour = tf.constant(np.array([parameters for _, parameters in actions]), tf.float32)
    head = agents.acer_agent.head_for(POLICIES[policy][0])
    with tf.GradientTape() as tape:
        parameters = actor.distribution_parameters(tf.constant(np.array(x), tf.float32))
        ratio = tf.exp(head.log_prob(parameters, taken) - head.log_prob(behaviour, taken))
        loss = -tf.reduce_mean(ratio * tf.constant(np.array(targets), tf.float32))
    slope = tape.gradient(loss, actor.trainable_weights)
    before = [variable.numpy() for variable in actor.trainable_weights]
    agent.train(batch)
    for old, new, expected in zip(before, actor.trainable_weights, slope, strict=True):
        np.testing.assert_allclose(old - new, expected, rtol=1e-5, atol=1e-6)


def full_targets(slow, batch, policy):
    """Rows that count and their Q^ret or Q^opc, by plain recursion."""
    step_type, reached = batch.step_type.numpy(), batch.next_step_type.numpy()
    for b in range(4):
        for t in reversed(range(8)):
            if step_type[b, t] == LAST:
                continue
            bracket = slow.v[b, t + 1]
            if t < 7 and reached[b, t] != LAST:
                action = slow.actions[b, t + 1]
                c = min(1.0, slow.ratio_of(b, t + 1, action)) if policy == "discrete" else 1.0
                bracket += c * (target - slow.value_of(b, t + 1, action))  # noqa: F821
            target = float(batch.reward[b, t]) + GAMMA * float(batch.discount[b, t]) * bracket
            yield b, t, target


def test_on_policy_with_full_traces_the_target_is_the_discounted_return():
    """ρ = 1 and λ = 1, Q = V = 0: the critic's error is the return of the rest of the episode."""
    agent, batch = make(retrace_lambda=1.0), replayed(ends=0.0)
    for variable in agent.critic.variables:
        variable.assign(tf.zeros_like(variable))
    own = agent.actor_network.distribution_parameters(tf.reshape(batch.observation, [-1, 3]))
    batch = batch._replace(policy_info={BEHAVIOUR: tf.reshape(own, [4, 9, 3])})
    returns = losses.discounted_returns(
        *(tf.transpose(leaf[:, :-1]) for leaf in (batch.reward, batch.discount, tf.ones([4, 9]), tf.zeros([4, 9]))),
        GAMMA,
    )
    extra = agent.train(batch).extra
    assert float(extra.critic_loss) == pytest.approx(0.5 * np.mean(np.square(returns)), rel=1e-5)
    assert float(extra.mean_ratio) == pytest.approx(1, abs=1e-5)


def test_average_policy_begins_as_the_policy():
    actor, average = make_actor(hidden=(4,), seed=1), make_actor(hidden=(4,), seed=2)
    adam = tf.keras.optimizers.Adam
    agents.AcerAgent(SPEC, POLICIES["discrete"][0], actor, average, make_critic("discrete"), adam(), adam())
    for one, other in zip(actor.variables, average.variables, strict=True):
        np.testing.assert_array_equal(one, other)


# --- what can't be trained on


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize(("place", "row"), [("reward", 3), ("observation", 3), ("observation", 0), ("behaviour", 3)])
def test_number_that_is_not_finite_skips_the_update_and_changes_nothing(policy, number, place, row):
    adam = tf.keras.optimizers.Adam
    agent, batch = make(policy, adam(0.1), adam(0.1)), replayed(policy, ends=0.0)
    agent.train(batch)
    before = everything(agent)
    spoilt = {"reward": batch.reward, "observation": batch.observation, "behaviour": batch.policy_info[BEHAVIOUR]}
    array = spoilt[place].numpy()
    array[(2, row) if array.ndim == 2 else (2, row, 0)] = number
    if place == "behaviour":
        batch = batch._replace(policy_info={**batch.policy_info, BEHAVIOUR: tf.constant(array)})
    else:
        batch = batch._replace(**{place: tf.constant(array)})
    info = agent.train(batch)
    assert info.extra.optimizer.skipped == 1
    assert everything(agent) == before
    assert agent.train_step_counter == 2


@pytest.mark.parametrize("policy", POLICIES)
def test_what_resets_and_the_last_row_hold_does_not_matter(policy):
    one, other = make(policy), make(policy)
    batch = replayed(policy, seed=1)
    masked = batch.step_type.numpy() == LAST
    assert masked[:, :-1].sum() > 2
    ignored = masked.copy()
    ignored[:, -1] = True

    def spoil(leaf, rows):
        array = leaf.numpy()
        if array.dtype.kind == "f":
            array[rows] = np.nan
        return tf.constant(array)

    info = {name: spoil(leaf, ignored) for name, leaf in batch.policy_info.items()}
    spoilt = batch._replace(reward=spoil(batch.reward, ignored), policy_info=info)
    one.train(batch)
    assert other.train(spoilt).extra.optimizer.skipped == 0
    assert everything(one) == everything(other)


def test_last_observation_counts_after_a_truncation_and_not_after_a_termination():
    for discount, skipped in ((0.0, 0), (1.0, 1)):
        agent, batch = make(), replayed(ends=0.0)
        step_type, reached, discounts, observation = (
            leaf.numpy() for leaf in (batch.step_type, batch.next_step_type, batch.discount, batch.observation)
        )
        reached[0, 3] = step_type[0, 4] = LAST
        reached[0, 4] = step_type[0, 5] = 0
        discounts[0, 3] = discount
        observation[0, 4] = np.nan
        batch = batch._replace(step_type=step_type, next_step_type=reached, discount=discounts, observation=observation)
        info = agent.train(tf.nest.map_structure(tf.constant, batch))
        assert info.extra.optimizer.skipped == skipped


def test_action_taken_that_the_policy_never_takes_counts_for_nothing():
    agent, batch = make(trust_region=None), replayed(ends=0.0)
    bias = agent.actor_network.layers_in_order[0].bias
    for network in (agent.actor_network, agent.average_network):
        network.layers_in_order[0].bias.assign([0.0, 0.0, -np.inf])
    never = batch.action.numpy()[:, :-1] == 2
    assert never.sum() > 5
    kernel = agent.actor_network.layers_in_order[0].kernel
    before = kernel.numpy()
    extra = agent.train(batch).extra
    assert extra.optimizer.skipped == 0
    np.testing.assert_array_equal(bias[2], -np.inf)
    np.testing.assert_array_equal(kernel[:, 2], before[:, 2])
    assert np.isfinite(kernel).all()
    assert (kernel.numpy()[:, :2] != before[:, :2]).all()
    assert np.isfinite(extra.entropy)
    assert np.isfinite(extra.kl)


def test_action_taken_with_a_behaviour_probability_of_zero_contradicts_itself_and_is_skipped():
    agent, batch = make(), replayed()
    before = everything(agent)
    array = batch.policy_info[BEHAVIOUR].numpy()
    array[0, 0, batch.action[0, 0]] = -np.inf
    info = agent.train(batch._replace(policy_info={BEHAVIOUR: tf.constant(array)}))
    assert info.extra.optimizer.skipped == 1
    assert everything(agent) == before


def test_other_action_with_a_behaviour_probability_of_zero_is_corrected():
    agent, batch = make(), replayed()
    array = batch.policy_info[BEHAVIOUR].numpy()
    array[0, 0, (batch.action[0, 0] + 1) % 3] = -np.inf
    before = everything(agent)
    info = agent.train(batch._replace(policy_info={BEHAVIOUR: tf.constant(array)}))
    assert info.extra.optimizer.skipped == 0
    assert everything(agent) != before
    assert all(np.isfinite(array).all() for array in weights([agent.actor_network, agent.critic]))


@pytest.mark.parametrize("info", [(), {}, {"log_probability": tf.zeros([4, 9])}])
def test_trajectories_without_behaviour_probabilities_are_refused_in_one_line(info):
    agent, batch = make(), replayed()
    with pytest.raises(ValueError, match=r"^trajectories without behaviour probabilities can't be replayed: .*$"):
        agent.train(batch._replace(policy_info=info))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 1.5}, "Retrace: gamma must lie in"),
        ({"retrace_lambda": -0.1}, "retrace_lambda must lie in"),
        ({"truncation": 0.0}, "truncation must be positive, got 0.0"),
        ({"truncation": math.nan}, "truncation must be positive, got nan"),
        ({"trust_region": -1.0}, "TrustRegion: delta must be finite and not negative"),
        ({"phi": "logit"}, "statistics must be 'probabilities' or 'logits'"),
        (
            {"policy": "gaussian", "phi": "logits"},
            "statistics='logits' is for discrete",
        ),
        ({"entropy_weight": -1.0}, "entropy_weight must be finite and not negative"),
        ({"reward_scale": 0.0}, "reward_scale must be positive"),
        ({"max_gradient_norm": -1.0}, "max_gradient_norm must be positive"),
        ({"optimizer": optimizers.NaturalGradient()}, "AcerAgent follows a plain gradient"),
        ({"critic_optimizer": optimizers.NaturalGradient()}, "AcerAgent: the critic follows a plain gradient"),
        ({"critic": make_critic("gaussian")}, "DuelingCritic does not fit discrete actions"),
        ({"policy": "gaussian", "critic": make_critic("discrete")}, "DiscreteCritic does not fit actions of shape"),
    ],
)
def test_wrong_argument_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def acer(actor=None, average=None, critic=None, optimizer=None, critic_optimizer=None):
    """An agent for three discrete actions."""
    optimizers = [given or tf.keras.optimizers.SGD(1.0) for given in (optimizer, critic_optimizer)]
    actors = [given or make_actor(hidden=()) for given in (actor, average)]
    return agents.AcerAgent(SPEC, DISCRETE, *actors, critic or make_critic("discrete"), *optimizers)


def test_networks_that_do_not_fit_each_other_or_the_environment_are_refused():
    five = tensor_spec.BoundedTensorSpec([], tf.int64, 0, 4)
    values = agents.DiscreteCritic(networks.QNetwork(OBSERVATION, 5, ()))
    normalised = make_actor(hidden=(), normaliser=networks.ObservationNormaliser(OBSERVATION))
    shared = tf.keras.optimizers.SGD(1.0)
    for options, message in (
        ({"actor": networks.ActorNetwork(OBSERVATION, five, ())}, "the policy's network is for .* from 0 to 4"),
        ({"average": networks.ActorNetwork(OBSERVATION, five, ())}, "the policy's network is for .* from 0 to 4"),
        ({"average": make_actor(hidden=(6,))}, r"the average's weights .* don't match the policy's"),
        ({"actor": normalised}, "the policy's normaliser has seen no observation"),
        ({"critic": values}, r"the Q-network's output has shape \(5,\), the environment 3 actions"),
        ({"optimizer": shared, "critic_optimizer": shared}, "policy and critic have one optimizer"),
    ):
        with pytest.raises(ValueError, match=f"AcerAgent:? {message}"):
            acer(**options)
    longer = tensor_spec.BoundedTensorSpec([3], tf.float32, -1, 1)
    dueling = agents.DuelingCritic(networks.StochasticDuelingNetwork(OBSERVATION, longer, ()))
    with pytest.raises(ValueError, match="AcerAgent: the critic is for 3 actions, the environment has 2"):
        make("gaussian", critic=dueling)


# --- acting


@pytest.mark.parametrize("policy", POLICIES)
def test_both_ways_to_act_tell_the_distribution_that_they_drew_from(policy):
    agent = make(policy)
    observation = tf.constant(np.random.default_rng(0).normal(size=(500, 3)), tf.float32)
    told = agent.act(observation, tf.constant([1, 2]))
    collected = agent.collect_policy.action(ts.restart(observation, 500))
    tf.nest.assert_same_structure(told.info, collected.info)
    expected = agent.actor_network.distribution_parameters(observation)
    for step in (told, collected):
        np.testing.assert_allclose(step.info[BEHAVIOUR], expected, rtol=1e-6)
    for spec, leaf in zip(
        tf.nest.flatten(agent.collect_data_spec.policy_info), tf.nest.flatten(collected.info), strict=True
    ):
        assert spec.shape == leaf.shape[1:]
    np.testing.assert_array_equal(told.action, agent.act(observation, tf.constant([1, 2])).action)
    if policy == "discrete":
        frequency = np.bincount(told.action, minlength=3) / 500
        np.testing.assert_allclose(frequency, tf.reduce_mean(tf.nn.softmax(expected), axis=0), atol=0.08)
