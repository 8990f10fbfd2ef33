"""Regularisers count where values are learnt; what an agent would train as another network than it is, it refuses."""

import acer_reference
import numpy as np
import on_policy_reference
import pytest
import tensorflow as tf
from test_dqn_agent import ACTION, OBSERVATION, SPEC, experience, jacobian, make, natural, weights
from tf_agents.agents.dqn import dqn_agent as stock
from tf_agents.networks import network, q_rnn_network, sequential

from ngrl import agents, losses, networks, optimizers, solvers

KERAS = tf.keras.layers
RUNS = ["eager", "graph", "xla"]


def compiled(call, run):
    return call if run == "eager" else tf.function(call, jit_compile=run == "xla", autograph=False)


def regularised(factor=1.0):
    return sequential.Sequential([KERAS.Dense(2, kernel_regularizer=tf.keras.regularizers.L2(factor))])


# --- regularisers that count


def test_a_plain_step_with_a_regulariser_is_that_of_tf_agents_own_agent():
    theirs_network, ours_network = regularised(), regularised()
    theirs = stock.DqnAgent(
        SPEC,
        ACTION,
        theirs_network,
        tf.keras.optimizers.SGD(0.1),
        td_errors_loss_fn=lambda target, value: losses.half_squared_error(target, value),
        gamma=0.9,
    )
    # TF-Agents bootstraps from a copy, which before the first update is the network itself.
    theirs.initialize()
    ours = make(tf.keras.optimizers.SGD(0.1), ours_network)
    for source, destination in zip(theirs_network.variables, ours_network.variables, strict=True):
        destination.assign(source)
    theirs._target_q_network.set_weights(theirs_network.get_weights())
    batch, kernel = experience(), ours_network.variables[0].numpy()
    expected = theirs.train(batch)
    info = ours.train(batch)
    np.testing.assert_allclose(ours_network.variables[0], theirs_network.variables[0], rtol=1e-5)
    np.testing.assert_allclose(info.loss, expected.loss, rtol=1e-6)
    assert np.abs(ours_network.variables[0] - 0.8 * kernel).max() < 0.5 * np.abs(kernel).max()  # 0.1 · 2 θ is in it


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("solver", ["dual", "cg", "cholesky"])
def test_a_natural_step_with_a_regulariser_equals_a_dense_solve(solver, run):
    """(F + λI) x = Jᵀr/B + 2cθ in float64; F is that of the outputs alone, and c's gradient outside of its rows."""
    made = {
        "dual": solvers.Dual(solver=solvers.Cholesky()),
        "cg": solvers.ConjugateGradient(max_iterations=200),
        "cholesky": solvers.Cholesky(),
    }
    agent = make(natural(solver=made[solver], damping=0.3), regularised(0.25))
    batch = experience(4)
    observation, action = batch.observation[:, 0], batch.action[:, 0].numpy()
    rows = jacobian(agent, observation)[np.arange(4), action]
    q = agent.q_network(observation)[0].numpy()
    q_next = agent.q_network(batch.observation[:, 1])[0].numpy()
    residual = q[np.arange(4), action] - (batch.reward[:, 0].numpy() + 0.9 * q_next.max(axis=1))
    before = weights(agent).astype(np.float64)
    kernel = np.concatenate([before[:6], np.zeros(2)])  # the bias has none
    gradient = rows.T @ residual / 4 + 2 * 0.25 * kernel
    expected = np.linalg.solve(rows.T @ rows / 4 + 0.3 * np.eye(8), gradient)
    info = compiled(agent.train, run)(batch)
    np.testing.assert_allclose(weights(agent), before - expected, rtol=2e-3, atol=2e-5)
    np.testing.assert_allclose(info.loss, 0.5 * np.mean(residual**2) + 0.25 * np.sum(kernel**2), rtol=1e-5)


@pytest.mark.parametrize(
    ("network", "problem"),
    [
        (
            tf.keras.Sequential([tf.keras.layers.Dense(2)]),
            r"must be a TF-Agents network, got Sequential: wrap it in tf_a",
        ),
        (None, "must be a TF-Agents network, got NoneType$"),
        (sequential.Sequential([tf.keras.layers.Lambda(lambda x: x[:, :2])]), "has no weights to train, and agents"),
        (
            sequential.Sequential([tf.keras.layers.Dense(2, dtype="float64")]),
            "has weights of float64, and agents train",
        ),
    ],
)
def test_what_is_no_network_of_float32_weights_is_refused(network, problem):
    with pytest.raises(ValueError, match=f"^DqnAgent: .*{problem}"):
        agents.DqnAgent(SPEC, ACTION, network, natural())


def test_critic_that_is_no_value_network_is_refused():
    with pytest.raises(ValueError, match=r"^Critic: network must be an ngrl\.networks\.ValueNetwork, got Sequential$"):
        agents.Critic(tf.keras.Sequential([tf.keras.layers.Dense(1)]), tf.keras.optimizers.SGD(0.1))


def test_kfac_of_the_losss_own_derivatives_takes_no_regulariser():
    optimizer = optimizers.NaturalGradient(solver=solvers.Kfac(kind="empirical"))
    with pytest.raises(ValueError, match=r"DqnAgent: the model has regularisers .*take another kind"):
        make(optimizer, regularised())


def test_levenberg_marquardt_measures_the_regulariser_too():
    """On a linear network loss and regulariser are quadratic, and the model lacks the latter's curvature 2c alone."""
    agent = make(natural(damping=optimizers.LevenbergMarquardt(initial=1.0)), regularised(0.1))
    batch = experience()
    before = agent.loss(batch).loss
    info = agent.train(batch)
    stats = info.extra.optimizer
    np.testing.assert_allclose(info.loss, before, rtol=1e-6)
    assert 0 < stats.reduction_ratio < 1.5


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("natural_step", [False, True])
def test_a_critic_with_regularisers_fits_them_too(natural_step, run):
    """One step on the whole batch, against the same in float64."""
    value = networks.ValueNetwork(OBSERVATION, (), seed=1)
    value.layers_in_order[0].kernel_regularizer = tf.keras.regularizers.L2(0.5)
    optimizer = natural(damping=0.3) if natural_step else tf.keras.optimizers.SGD(0.1)
    critic = agents.Critic(value, optimizer, epochs=1, batch_size=100)
    generator = np.random.default_rng(0)
    x, returns = generator.normal(size=(20, 3)), generator.normal(size=20)
    theta = np.append(value.layers_in_order[0].kernel.numpy(), 0.0)
    rows = np.concatenate([x, np.ones([20, 1])], axis=1)
    penalised = np.append(theta[:3], 0.0)
    gradient = rows.T @ (rows @ theta - returns) / 20 + penalised
    step = np.linalg.solve(rows.T @ rows / 20 + 0.3 * np.eye(4), gradient) if natural_step else 0.1 * gradient
    arrays = [tf.constant(values, tf.float32) for values in (x, returns, np.ones(20))]
    stats = compiled(critic.fit, run)(*arrays, tf.constant([0, 1]))
    fitted = np.append(value.layers_in_order[0].kernel.numpy(), value.layers_in_order[0].bias.numpy())
    np.testing.assert_allclose(fitted, theta - step, rtol=1e-3, atol=1e-5)
    loss = 0.5 * np.mean((rows @ theta - returns) ** 2) + 0.5 * np.sum(penalised**2)
    np.testing.assert_allclose(stats.loss, loss, rtol=1e-4)


@pytest.mark.parametrize("damping", ["none", "scheduled"])
@pytest.mark.parametrize("owner", ["DqnAgent", "Critic"])
def test_the_dual_solver_without_damping_refuses_regularisers_when_it_is_built(owner, damping):
    rising = tf.keras.optimizers.schedules.PolynomialDecay(0.0, 10, 1.0)
    damping = 0.0 if damping == "none" else optimizers.ScheduledDamping(rising)
    value = networks.ValueNetwork(OBSERVATION, (), seed=1)
    value.layers_in_order[0].kernel_regularizer = tf.keras.regularizers.L2(0.5)
    build = {
        "DqnAgent": lambda: make(natural(damping=damping), regularised()),
        "Critic": lambda: agents.Critic(value, natural(damping=damping)),
    }
    with pytest.raises(ValueError, match=rf"^{owner}: .*regularisers.*damping above 0"):
        build[owner]()


# --- networks that are refused


class AddsLoss(KERAS.Layer):
    """Passes its inputs on, and adds their mean square to the loss."""

    def call(self, inputs):
        self.add_loss(tf.reduce_mean(tf.square(inputs)))
        return inputs


LAYERS = {
    "dropout": (lambda: KERAS.Dropout(0.5), r"layer 'dropout\w*' \(Dropout\) draws new random numbers"),
    "noise": (lambda: KERAS.GaussianNoise(0.1), "GaussianNoise.* draws new random numbers"),
    "batch norm": (KERAS.BatchNormalization, "BatchNormalization.* depend on the whole batch"),
    "spectral norm": (
        lambda: KERAS.SpectralNormalization(KERAS.Dense(4)),
        r"\(SpectralNormalization\) changes its kernel in calls",
    ),
    "add_loss": (AddsLoss, r"layer 'adds_loss\w*' \(AddsLoss\) adds a loss in its call"),
    "activity": (lambda: KERAS.Dense(4, activity_regularizer="l2"), r"\(Dense\) adds a loss in its call"),
}


def with_layer(net, layer):
    """A network of ngrl with one more layer, first in its chain."""
    net.layers_in_order = [layer, *net.layers_in_order]
    return net


def with_penalty(net):
    net.layers_in_order[-1].kernel_regularizer = tf.keras.regularizers.L2(0.5)
    return net


def value_network():
    return networks.ValueNetwork(OBSERVATION, (4,), seed=5)


def average(net):
    agent = on_policy_reference.AGENTS["npg"]()
    agent.average_into(net, agents.SoftUpdate())


def acer(**given):
    """An ACER agent, one of whose networks is another."""
    actors = [given.get(name) or on_policy_reference.make_actor(hidden=()) for name in ("actor", "average")]
    critic = agents.DiscreteCritic(given.get("critic") or networks.QNetwork(OBSERVATION, 3, ()))
    optimizer, critic_optimizer = (tf.keras.optimizers.SGD(0.1) for _ in range(2))
    spec = on_policy_reference.DISCRETE
    return agents.AcerAgent(on_policy_reference.SPEC, spec, *actors, critic, optimizer, critic_optimizer)


def nac(**options):
    return on_policy_reference.make(agents.NacAgent, natural(), **options)


#: Whoever trains a network: builds itself with a network that `change` was applied to.
OWNERS = {
    "DqnAgent": lambda change: make(network=change(networks.QNetwork(OBSERVATION, 2, (5,)))),
    "plain DqnAgent": lambda change: make(tf.keras.optimizers.SGD(0.1), change(networks.QNetwork(OBSERVATION, 2, ()))),
    "Critic": lambda change: agents.Critic(change(value_network()), tf.keras.optimizers.SGD(0.1)),
    **{
        kind: lambda change, build=build: build(actor=change(on_policy_reference.make_actor()))
        for kind, build in on_policy_reference.AGENTS.items()
    },
    "nac": lambda change: nac(actor=change(on_policy_reference.make_actor())),
    "average": lambda change: average(change(on_policy_reference.make_actor())),
    "acer actor": lambda change: acer(actor=change(on_policy_reference.make_actor(hidden=()))),
    "acer average": lambda change: acer(average=change(on_policy_reference.make_actor(hidden=()))),
    "acer critic": lambda change: acer(critic=change(networks.QNetwork(OBSERVATION, 3, ()))),
}
#: Who would lose a regulariser; an average is not trained.
POLICIES = [owner for owner in OWNERS if owner not in ("DqnAgent", "plain DqnAgent", "Critic", "average")]


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("owner", OWNERS)
def test_layers_that_would_be_trained_wrongly_are_refused_by_name(owner, kind):
    make_layer, message = LAYERS[kind]
    with pytest.raises(ValueError, match=message) as refused:
        OWNERS[owner](lambda net: with_layer(net, make_layer()))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("owner", POLICIES)
def test_regularisers_of_policies_are_refused_by_name(owner):
    with pytest.raises(ValueError, match=r"layer 'dense\w*' \(Dense\) has a regulariser"):
        OWNERS[owner](with_penalty)


@pytest.mark.parametrize("owner", [owner for owner in OWNERS if owner not in ("acer actor", "acer average")])
def test_frozen_batch_norm_and_dropout_that_is_off_are_accepted(owner):
    def frozen():
        OWNERS[owner](lambda net: with_layer(net, KERAS.BatchNormalization(trainable=False)))

    OWNERS[owner](lambda net: with_layer(net, KERAS.Dropout(0.0)))
    if owner == "average":  # of a network without one: it would be no average of it
        with pytest.raises(ValueError, match=r"the average's weights .* don't match the policy's"):
            frozen()
    else:
        frozen()


def test_constraints_are_for_plain_optimizers():
    def constrained():
        return sequential.Sequential([KERAS.Dense(2, kernel_constraint="non_neg")])

    make(tf.keras.optimizers.SGD(0.1), constrained())
    with pytest.raises(ValueError, match=r"DqnAgent: variable .* has a constraint"):
        make(network=constrained())


def test_a_recurrent_network_is_refused_by_name():
    recurrent = q_rnn_network.QRnnNetwork(OBSERVATION, ACTION, lstm_size=(4,))
    with pytest.raises(ValueError, match=r"DqnAgent: network 'QRnnNetwork' is recurrent"):
        make(network=recurrent)


class Handed(network.Network):
    """A network that is handed its layers."""

    def __init__(self, input_tensor_spec, layers, name="Handed"):
        super().__init__(input_tensor_spec=input_tensor_spec, state_spec=(), name=name)
        self._handed = layers

    def call(self, observation, step_type=None, network_state=(), training=False):
        for layer in self._handed:
            observation = layer(observation)
        return observation, network_state


def test_a_target_network_that_would_be_the_online_network_is_refused():
    handed = Handed(OBSERVATION, [KERAS.Dense(2)])
    make(network=handed)  # without a target network it is as good as any
    with pytest.raises(ValueError, match=r"its copy, the target network, shares '.*kernel:0' with the Q-network"):
        make(network=Handed(OBSERVATION, [KERAS.Dense(2)]), target_update=agents.HardUpdate(10))
    make(network=sequential.Sequential([KERAS.Dense(2)]), target_update=agents.HardUpdate(10))


def test_networks_of_one_agent_that_share_variables_are_refused():
    actor = on_policy_reference.make_actor()
    agent = on_policy_reference.make(agents.ReinforceAgent, tf.keras.optimizers.SGD(0.1), actor=actor)
    with pytest.raises(ValueError, match=r"ReinforceAgent: the average shares '.*' with the policy"):
        agent.average_into(actor, agents.SoftUpdate())
    actor, value = on_policy_reference.make_actor(), value_network()
    value.layers_in_order[0] = actor.layers_in_order[0]
    with pytest.raises(ValueError, match=r"ReinforceAgent: the critic shares '.*' with the policy"):
        on_policy_reference.make(
            agents.ReinforceAgent,
            tf.keras.optimizers.SGD(0.1),
            actor=actor,
            critic=agents.Critic(value, tf.keras.optimizers.SGD(0.1)),
        )
    actor = on_policy_reference.make_actor(hidden=())
    with pytest.raises(ValueError, match=r"AcerAgent: the average shares '.*' with the policy"):
        acer(actor=actor, average=actor)
    critic = networks.QNetwork(OBSERVATION, 3, ())
    critic.layers_in_order = actor.layers_in_order
    with pytest.raises(ValueError, match=r"AcerAgent: the critic shares '.*' with the policy"):
        acer(actor=actor, critic=critic)
    acer_reference.make()


def test_a_line_search_of_a_value_is_refused_when_it_is_built():
    search = natural(line_search=optimizers.BacktrackingLineSearch(), max_kl=0.1)
    with pytest.raises(ValueError, match="DqnAgent takes no line search"):
        make(search)
    with pytest.raises(ValueError, match="Critic: its optimizer has a line search"):
        agents.Critic(value_network(), natural(line_search=optimizers.BacktrackingLineSearch(), max_kl=0.1))
    with pytest.raises(ValueError, match="Critic: its optimizer has learning_rate=None"):
        agents.Critic(value_network(), natural(learning_rate=None, max_kl=0.1))
