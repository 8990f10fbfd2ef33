import numpy as np
import pytest
import tensorflow as tf
from tf_agents.agents.dqn import dqn_agent as stock
from tf_agents.networks import q_network as stock_q_network
from tf_agents.networks import sequential
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory

from ngrl import agents, losses, networks, optimizers, solvers

OBSERVATION = tensor_spec.TensorSpec([3], tf.float32)
ACTION = tensor_spec.BoundedTensorSpec([], tf.int64, 0, 1)
SPEC = ts.time_step_spec(OBSERVATION)
FIRST, MID, LAST = 0, 1, 2
NEVER = agents.HardUpdate(period=1_000)


def natural(**options):
    solver = solvers.Dual(solver=solvers.Cholesky())
    return optimizers.NaturalGradient(**{"learning_rate": 1.0, "solver": solver, "damping": 0.1, **options})


def make(optimizer=None, network=None, **options):
    if network is None:
        network = networks.QNetwork(OBSERVATION, 2, (5,), seed=1)
    return agents.DqnAgent(SPEC, ACTION, network, optimizer or natural(), gamma=0.9, **options)


def experience(size=8, step_types=None, discounts=None, seed=0):
    """Random trajectories [B, 2]; step types [B, 2] and the discount of the second step [B] as asked for."""
    generator = np.random.default_rng(seed)
    step_types = np.full((size, 2), MID) if step_types is None else np.asarray(step_types)
    discounts = np.ones(size) if discounts is None else np.asarray(discounts)
    return trajectory.Trajectory(
        step_type=tf.constant(step_types, tf.int32),
        observation=tf.constant(generator.normal(size=(size, 2, 3)), tf.float32),
        action=tf.constant(generator.integers(2, size=(size, 2)), tf.int64),
        policy_info=(),
        next_step_type=tf.constant(np.stack([step_types[:, 1], step_types[:, 1]], 1), tf.int32),
        reward=tf.constant(generator.normal(size=(size, 2)), tf.float32),
        discount=tf.constant(np.stack([discounts, discounts], 1), tf.float32),
    )


def weights(agent):
    return np.concatenate([v.numpy().reshape(-1) for v in agent.q_network.trainable_weights])


def jacobian(agent, observation):
    """J [B, A, P] by reverse mode, one output at a time."""
    variables = agent.q_network.trainable_weights
    with tf.GradientTape() as tape:
        outputs = agent.q_network(observation)[0]
    parts = tape.jacobian(outputs, variables)
    return np.concatenate([p.numpy().reshape(*outputs.shape, -1) for p in parts], -1).astype(np.float64)


@pytest.mark.parametrize("frozen", [0, 1])
def test_target_network_of_a_network_with_a_frozen_layer_is_that_network(frozen):
    network = networks.QNetwork(OBSERVATION, 2, (3, 3), seed=1)
    network.create_variables(OBSERVATION)
    network.layers_in_order[frozen].trainable = False
    agent = make(network=network, target_update=agents.HardUpdate(1))
    agent.initialize()
    inputs = tf.constant(np.random.default_rng(0).normal(size=(4, 3)), tf.float32)
    np.testing.assert_array_equal(agent._target_network(inputs)[0], network(inputs)[0])
    before = network.layers_in_order[frozen].kernel.numpy()
    agent.train(experience())
    np.testing.assert_array_equal(agent._target_network(inputs)[0], network(inputs)[0])
    np.testing.assert_array_equal(network.layers_in_order[frozen].kernel, before)


def test_network_with_a_frozen_layer_takes_kfacs_steps():
    network = networks.QNetwork(OBSERVATION, 2, (3, 3), seed=1)
    network.create_variables(OBSERVATION)
    network.layers_in_order[0].trainable = False
    agent = make(natural(solver=solvers.Kfac(), learning_rate=0.1), network)
    before = weights(agent)
    assert float(agent.train(experience()).extra.optimizer.skipped) == 0
    assert not np.array_equal(weights(agent), before)


@pytest.mark.parametrize("outputs", ["chosen", "all"])
@pytest.mark.parametrize("solver", ["dual", "cg", "minres_qlp"])
def test_natural_step_equals_a_dense_solve(outputs, solver):
    made = {
        "dual": solvers.Dual(solver=solvers.Cholesky()),
        "cg": solvers.ConjugateGradient(max_iterations=200),
        "minres_qlp": solvers.MinresQLP(max_iterations=200),
    }
    agent = make(natural(solver=made[solver]), fisher_outputs=outputs)
    batch = experience()
    observation, action = batch.observation[:, 0], batch.action[:, 0].numpy()
    j = jacobian(agent, observation)
    q = agent.q_network(observation)[0].numpy()
    q_next = agent.q_network(batch.observation[:, 1])[0].numpy()
    residual = q[np.arange(8), action] - (batch.reward[:, 0].numpy() + 0.9 * q_next.max(axis=1))
    chosen = j[np.arange(8), action]
    gradient = chosen.T @ residual / 8
    rows = chosen if outputs == "chosen" else j.reshape(-1, j.shape[-1])
    expected = np.linalg.solve(rows.T @ rows / 8 + 0.1 * np.eye(len(gradient)), gradient)
    before = weights(agent)
    info = agent.train(batch)
    np.testing.assert_allclose(weights(agent), before - expected, rtol=2e-3, atol=2e-5)
    np.testing.assert_allclose(info.loss, 0.5 * np.mean(residual**2), rtol=1e-5)
    np.testing.assert_allclose(info.extra.td_error, np.mean(np.abs(residual)), rtol=1e-5)


@pytest.mark.parametrize("scale", [True, False], ids=["as_printed", "second_reading"])
def test_papers_first_steps_are_the_same_solved_among_outputs(scale):
    """Knight & Lerner (2018), Algorithm 1: `MinresQLP` over the parameters, and in `Dual` as in `launch/letter.gin`."""
    direct, dual = (
        make(
            natural(solver=solver, damping=6.0, scale_by_gradient_norm=scale),
            td_loss=losses.squared_error,
            fisher_outputs="all",
        )
        for solver in (solvers.MinresQLP(), solvers.Dual(solver=solvers.MinresQLP()))
    )
    for seed in range(8):
        before = weights(direct)
        direct.train(experience(seed=seed))
        dual.train(experience(seed=seed))
        assert np.abs(weights(direct) - before).max() > 1e-3
        np.testing.assert_allclose(weights(dual), weights(direct), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["natural", "adam"])
def test_system_is_that_of_the_next_step_of_this_agent_and_takes_none(optimizer):
    batch = experience()
    agent = make(natural() if optimizer == "natural" else tf.keras.optimizers.Adam(0.1), target_update=NEVER)
    q_next = agent.q_network(batch.observation[:, 1])[0].numpy()  # of the target network, which then stays behind
    agent.train(batch)
    j, action = jacobian(agent, batch.observation[:, 0]), batch.action[:, 0].numpy()
    q, before = agent.q_network(batch.observation[:, 0])[0].numpy(), weights(agent)
    residual = q[np.arange(8), action] - (batch.reward[:, 0].numpy() + 0.9 * q_next.max(axis=1))
    chosen = j[np.arange(8), action]
    operator, output_gradient = agent.system(batch)
    np.testing.assert_allclose(operator.to_dense(), chosen.T @ chosen / 8, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(operator.vjp(output_gradient), chosen.T @ residual / 8, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(weights(agent), before)


@pytest.mark.parametrize("optimizer", ["natural", "adam"])
def test_boundary_steps_count_neither_in_the_loss_nor_in_the_fisher(optimizer):
    make_optimizer = natural if optimizer == "natural" else lambda: tf.keras.optimizers.Adam(0.1)
    step_types = [[MID, MID]] * 4 + [[LAST, FIRST]] * 4
    whole = experience(step_types=step_types)
    part = tf.nest.map_structure(lambda leaf: leaf[:4], whole)
    masked, short = make(make_optimizer()), make(make_optimizer())
    masked.train(whole)
    short.train(part)
    np.testing.assert_allclose(weights(masked), weights(short), rtol=1e-4, atol=1e-6)


def test_truncation_bootstraps_and_termination_does_not():
    agent = make()
    batch = experience(size=2, step_types=[[MID, LAST]] * 2, discounts=[1.0, 0.0])
    q_next = agent.q_network(batch.observation[:, 1])[0].numpy().max(axis=1)
    q = agent.q_network(batch.observation[:, 0])[0].numpy()[np.arange(2), batch.action[:, 0].numpy()]
    target = batch.reward[:, 0].numpy() + [0.9 * q_next[0], 0.0]
    np.testing.assert_allclose(agent.loss(batch).loss, 0.5 * np.mean((q - target) ** 2), rtol=1e-5)


@pytest.mark.parametrize("double_q", [False, True])
def test_plain_step_equals_tf_agents_own_agent(double_q):
    ours = make(
        tf.keras.optimizers.Adam(0.01),
        td_loss=losses.huber,
        target_update=agents.HardUpdate(period=2),
        double_q=double_q,
    )
    network = networks.QNetwork(OBSERVATION, 2, (5,), seed=1)
    kind = stock.DdqnAgent if double_q else stock.DqnAgent
    theirs = kind(
        SPEC,
        ACTION,
        network,
        tf.keras.optimizers.Adam(0.01),
        target_update_period=2,
        gamma=0.9,
        train_step_counter=tf.Variable(0, dtype=tf.int64),
    )
    theirs.initialize()
    for seed in range(5):
        batch = experience(seed=seed)
        np.testing.assert_allclose(ours.train(batch).loss, theirs.train(batch).loss, rtol=1e-5)
    theirs_weights = np.concatenate([v.numpy().reshape(-1) for v in network.trainable_weights])
    np.testing.assert_allclose(weights(ours), theirs_weights, rtol=1e-4, atol=1e-6)


def test_hard_update_copies_every_period():
    online, target = [tf.Variable(1.0)], [tf.Variable(0.0)]
    rule, seen = agents.HardUpdate(period=3), []
    for step in range(1, 7):
        online[0].assign(float(step))
        rule.apply(online, target, tf.constant(step))
        seen.append(float(target[0]))
    assert seen == [0, 0, 3, 3, 3, 6]


def test_soft_update_moves_by_tau():
    online, target = [tf.Variable(1.0)], [tf.Variable(0.0)]
    for _ in range(2):
        agents.SoftUpdate(tau=0.25).apply(online, target, tf.constant(1))
    np.testing.assert_allclose(target[0], 1 - 0.75**2)


def test_exploration_is_greedy_uniform_and_repeatable():
    agent = make()
    observation = tf.random.stateless_normal([4000, 3], [0, 0])
    greedy = np.argmax(agent.q_network(observation)[0], axis=1)
    seed = tf.constant([3, 5])
    np.testing.assert_array_equal(agent.act(observation, seed, tf.constant(0.0)).action, greedy)
    random = agent.act(observation, seed, tf.constant(1.0)).action.numpy()
    assert abs(random.mean() - 0.5) < 0.05
    np.testing.assert_array_equal(agent.act(observation, seed, tf.constant(1.0)).action, random)
    assert (agent.act(observation, seed + 1, tf.constant(1.0)).action.numpy() != random).any()
    mixed = agent.act(observation, seed, tf.constant(0.2)).action.numpy()
    assert abs(np.mean(mixed != greedy) - 0.1) < 0.02


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("optimizer", ["natural", "adam"])
@pytest.mark.parametrize("poison", ["reward", "observation"])
def test_non_finite_experience_leaves_weights_and_slots_byte_identical(compiled, optimizer, poison):
    agent = make(natural(momentum=0.5) if optimizer == "natural" else tf.keras.optimizers.Adam(0.1))
    agent.train(experience())
    before = [v.numpy().tobytes() for v in [*agent.q_network.variables, *agent.optimizer.variables]]
    batch = experience(seed=1)
    leaf = getattr(batch, poison).numpy()
    leaf.flat[0] = np.nan
    batch = batch._replace(**{poison: tf.constant(leaf)})
    train = tf.function(agent.train, jit_compile=True) if compiled else agent.train
    info = train(batch)
    assert info.extra.optimizer.skipped == 1
    assert info.extra.optimizer.skip_cause == optimizers.SkipCause.LOSS
    assert [v.numpy().tobytes() for v in [*agent.q_network.variables, *agent.optimizer.variables]] == before


def test_compiled_and_eager_updates_agree():
    eager, compiled = make(), make()
    train = tf.function(compiled.train, jit_compile=True)
    for seed in range(3):
        eager.train(experience(seed=seed))
        train(experience(seed=seed))
    np.testing.assert_allclose(weights(eager), weights(compiled), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["sequential", "q_network"])
def test_tf_agents_networks_take_the_same_step_as_ours(kind):
    ours = make()
    if kind == "sequential":
        network = sequential.Sequential([tf.keras.layers.Dense(5, "tanh"), tf.keras.layers.Dense(2)])
    else:
        network = stock_q_network.QNetwork(
            OBSERVATION, ACTION, fc_layer_params=(5,), activation_fn=tf.keras.activations.tanh
        )
    theirs = make(network=network)
    for source, target in zip(ours.q_network.variables, network.variables, strict=True):
        target.assign(source)
    for agent in (ours, theirs):
        agent.train(experience())
    np.testing.assert_allclose(weights(ours), weights(theirs), rtol=1e-3, atol=1e-5)


def test_subclass_with_its_own_call_trains_the_function_it_acts_with():
    class Scaled(networks.QNetwork):
        def call(self, observation, step_type=None, network_state=(), training=False):
            values, state = super().call(observation, step_type, network_state, training)
            return 3.0 * values + 1.0, state

    agent = make(network=Scaled(OBSERVATION, 2, (5,), seed=1))
    batch = experience()
    q = agent.q_network(batch.observation[:, 0])[0].numpy()[np.arange(8), batch.action[:, 0].numpy()]
    q_next = agent.q_network(batch.observation[:, 1])[0].numpy().max(axis=1)
    expected = 0.5 * np.mean((q - batch.reward[:, 0].numpy() - 0.9 * q_next) ** 2)
    np.testing.assert_allclose(agent.train(batch).loss, expected, rtol=1e-5)


def test_collect_policy_follows_the_epsilon_it_is_given():
    agent = make()
    observation = tf.random.stateless_normal([2000, 3], [0, 0])
    steps = ts.restart(observation, batch_size=2000)
    greedy = agent.policy.action(steps).action.numpy()
    for epsilon in (0.0, 0.5):
        agent.set_epsilon(epsilon)
        random = np.mean(agent.collect_policy.action(steps).action.numpy() != greedy)
        assert abs(random - epsilon / 2) < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"double_q": True}, "target network"),
        ({"fisher_outputs": "some"}, "fisher_outputs"),
        ({"max_gradient_norm": 10.0}, "max_kl"),
        ({"max_gradient_norm": -1.0}, "max_gradient_norm must be positive"),
        ({"target_update": 0.01}, r"target_update must be HardUpdate\(\), SoftUpdate\(\) or None, got 0.01"),
        ({"td_loss": None}, "td_loss must be a function such as half_squared_error, got None"),
        (
            {"td_loss": lambda target, prediction: tf.reduce_mean(tf.square(target - prediction))},
            r"td_loss must give a number for each target and prediction \[B\]; of two it gives shape \(\)",
        ),
    ],
)
def test_contradicting_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_continuous_actions_and_foreign_outputs_are_refused():
    box = tensor_spec.BoundedTensorSpec([2], tf.float32, -1, 1)
    network = networks.QNetwork(OBSERVATION, 2, (5,))
    with pytest.raises(ValueError, match="one discrete action"):
        agents.DqnAgent(SPEC, box, network, natural())
    with pytest.raises(ValueError, match="output has shape \\(3,\\)"):
        agents.DqnAgent(SPEC, ACTION, networks.QNetwork(OBSERVATION, 3, (5,)), natural())


@pytest.mark.parametrize("target_update", [None, agents.HardUpdate(2)])
def test_average_follows_the_q_network_and_is_what_acts_greedily(target_update):
    agent = make(target_update=target_update)
    plain = make(target_update=target_update)
    average = networks.QNetwork(OBSERVATION, 2, (5,), seed=9)
    agent.average_into(average, agents.SoftUpdate(0.25))
    expected = [v.numpy() for v in agent.q_network.trainable_weights]
    for seed in range(3):
        agent.train(experience(seed=seed))
        plain.train(experience(seed=seed))
        pairs = zip(expected, agent.q_network.trainable_weights, strict=True)
        expected = [0.75 * mean + 0.25 * new.numpy() for mean, new in pairs]
    for variable, value in zip(average.trainable_weights, expected, strict=True):
        np.testing.assert_allclose(variable, value, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(weights(agent), weights(plain))  # training knows nothing of it
    observation = experience(size=64, seed=7).observation[:, 0]
    first = ts.restart(observation, batch_size=64)
    averaged, online = (np.argmax(net(observation)[0], axis=1) for net in (average, agent.q_network))
    assert (averaged != online).any()
    agent.set_epsilon(0.0)
    np.testing.assert_array_equal(agent.policy.action(first).action, averaged)
    np.testing.assert_array_equal(agent.collect_policy.action(first).action, online)


def test_average_that_acts_collects_and_changes_no_update():
    agent, plain = make(), make()
    average = networks.QNetwork(OBSERVATION, 2, (5,), seed=9)
    agent.average_into(average, agents.SoftUpdate(0.25), acts=True)
    for seed in range(3):
        agent.train(experience(seed=seed))
        plain.train(experience(seed=seed))
    np.testing.assert_array_equal(weights(agent), weights(plain))
    observation = experience(size=64, seed=7).observation[:, 0]
    averaged, online = (np.argmax(net(observation)[0], axis=1) for net in (average, agent.q_network))
    assert (averaged != online).any()
    agent.set_epsilon(0.0)
    np.testing.assert_array_equal(agent.collect_policy.action(ts.restart(observation, batch_size=64)).action, averaged)
    np.testing.assert_array_equal(agent.act(observation, tf.constant([1, 2]), tf.constant(0.0)).action, averaged)
    explored = agent.act(observation, tf.constant([1, 2]), tf.constant(1.0)).action
    np.testing.assert_array_equal(explored, plain.act(observation, tf.constant([1, 2]), tf.constant(1.0)).action)


def test_average_of_a_skipped_update_stays_as_it_is():
    agent = make()
    average = networks.QNetwork(OBSERVATION, 2, (5,), seed=9)
    agent.average_into(average, agents.SoftUpdate(0.5))
    agent.train(experience())
    before = [v.numpy().tobytes() for v in average.trainable_weights]
    batch = experience()
    agent.train(batch._replace(reward=batch.reward * np.inf))
    assert [v.numpy().tobytes() for v in average.trainable_weights] == before


@pytest.mark.parametrize("rule", [agents.HardUpdate(2), agents.FunctionalRegularisation(agents.HardUpdate(2))])
def test_copy_that_is_due_at_a_skipped_update_is_made(rule):
    agent = make(target_update=rule)
    agent.train(experience())
    online, target = (agent.q_network.variables, agent._target_network.variables)
    assert any((new.numpy() != old.numpy()).any() for new, old in zip(online, target, strict=True))
    batch = experience()
    assert agent.train(batch._replace(reward=batch.reward * np.inf)).extra.optimizer.skipped == 1
    for new, copied in zip(online, target, strict=True):
        np.testing.assert_array_equal(copied, new)


def test_average_that_does_not_fit_the_q_network_is_refused():
    agent = make()
    with pytest.raises(ValueError, match=r"DqnAgent: the average's weights .* don't match the Q-network's"):
        agent.average_into(networks.QNetwork(OBSERVATION, 2, (4,)), agents.SoftUpdate())
    with pytest.raises(ValueError, match=r"DqnAgent: the average shares '.*' with the Q-network"):
        agent.average_into(agent.q_network, agents.SoftUpdate())


@pytest.mark.parametrize("epsilon", [7, -0.1, "a", True, None])
def test_epsilon_is_a_probability(epsilon):
    with pytest.raises(ValueError, match="DqnAgent: epsilon_greedy must"):
        make(epsilon_greedy=epsilon)


def test_epsilon_may_be_a_number_of_numpys():
    agent = make(epsilon_greedy=np.float32(0.25))
    agent.set_epsilon(0.5)
    assert agent.collect_policy._get_epsilon() == 0.5


@pytest.mark.parametrize("optimizer", ["natural", "sgd"])
def test_rows_that_are_no_transitions_may_hold_anything(optimizer):
    step_types = np.array([[MID, MID], [LAST, FIRST], [MID, LAST]])
    batch = experience(3, step_types)
    spoilt = batch.observation.numpy()
    spoilt[1] = np.nan
    trained = []
    for observation in (batch.observation, tf.constant(spoilt)):
        agent = make(natural() if optimizer == "natural" else tf.keras.optimizers.SGD(0.1))
        assert agent.train(batch._replace(observation=observation)).extra.optimizer.skipped == 0
        trained.append(weights(agent).tobytes())
    assert trained[0] == trained[1]


def test_weights_are_one_for_each_transition_in_a_row_or_a_column():
    batch, given = experience(), np.linspace(0.1, 2.0, 8).astype(np.float32)
    trained = []
    for shaped in (given, given[:, np.newaxis]):
        agent = make(tf.keras.optimizers.SGD(0.1))
        agent.train(batch, weights=tf.constant(shaped))
        trained.append(weights(agent).tobytes())
    assert trained[0] == trained[1]
    with pytest.raises(ValueError, match=r"DqnAgent\.train takes a weight for each of 8, got weights of shape \(3,\)"):
        agent.train(batch, weights=tf.ones([3]))


@pytest.mark.parametrize(
    ("update", "problem"),
    [(agents.FunctionalRegularisation(), "is for DqnAgent.target_update"), (0.005, "got 0.005")],
)
def test_average_follows_by_a_rule_that_moves_weights_alone(update, problem):
    with pytest.raises(ValueError, match=f"DqnAgent: .*{problem}"):
        make().average_into(networks.QNetwork(OBSERVATION, 2), update)
    with pytest.raises(ValueError, match=f"TrustRegion: .*{problem}"):
        agents.TrustRegion(average_update=update)


@pytest.mark.parametrize("optimizer", ["natural", "sgd"])
def test_functional_regularisation_bootstraps_online_and_pulls_towards_the_network_that_follows(optimizer):
    made = {"natural": natural, "sgd": lambda: tf.keras.optimizers.SGD(0.3)}[optimizer]
    agent = make(made(), target_update=agents.FunctionalRegularisation(NEVER, weight=0.7))
    old = networks.QNetwork(OBSERVATION, 2, (5,), seed=1)  # the agent's at first
    old.create_variables(OBSERVATION)
    agent.train(experience(seed=1))
    batch = experience(seed=2)
    observation, action = batch.observation[:, 0], batch.action[:, 0].numpy()
    target = batch.reward[:, 0].numpy() + 0.9 * agent.q_network(batch.observation[:, 1])[0].numpy().max(axis=1)
    chosen, lagging = (net(observation)[0].numpy()[np.arange(8), action] for net in (agent.q_network, old))
    assert np.abs(chosen - lagging).max() > 1e-3
    np.testing.assert_allclose(
        agent.loss(batch).loss, 0.5 * np.mean((target - chosen) ** 2 + 0.7 * (lagging - chosen) ** 2), rtol=1e-5
    )
    gradient = jacobian(agent, observation)[np.arange(8), action].T @ (1.7 * chosen - target - 0.7 * lagging) / 8
    np.testing.assert_allclose(agent.train(batch).extra.optimizer.gradient_norm, np.linalg.norm(gradient), rtol=1e-4)


def test_double_q_needs_a_network_to_bootstrap_from_beside_a_regularising_one():
    with pytest.raises(ValueError, match="double_q needs a target network"):
        make(target_update=agents.FunctionalRegularisation(NEVER), double_q=True)


def test_a_network_with_layer_norm_takes_natural_steps_by_its_layers_rules():
    network = networks.QNetwork(OBSERVATION, 2, (5,), seed=1, layer_norm=True)
    agent = make(network=network)
    batch = experience()
    operator, _ = agent.system(batch)
    chosen = jacobian(agent, batch.observation[:, 0])[np.arange(8), batch.action[:, 0].numpy()]
    assert chosen.shape[1] == operator.shape[0] == 3 * 5 + 5 + 2 * 5 + 5 * 2 + 2
    np.testing.assert_allclose(operator.to_dense(), chosen.T @ chosen / 8, rtol=1e-3, atol=1e-5)
