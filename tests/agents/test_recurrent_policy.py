"""Policies that remember: a GRU whose state is carried, over whose steps derivatives reach exactly."""

import functools

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from small_on_policy import load
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tutorial import run_block

import ngrl.curvature.layer_jacobian
from ngrl import agents, loops, networks, optimizers, replay, seeding, solvers, training
from ngrl.agents.heads import head_for
from ngrl.agents.policy import Policy
from ngrl.curvature import Categorical, GaussNewton, LayeredNetwork, OverTime
from ngrl.environments import CompiledEnvironments
from ngrl.environments.spaces import describe_converter
from ngrl.networks import MemoryInputs

MASKED = "ngrl/MaskedCartPole-v1"
OBSERVATION = tensor_spec.TensorSpec([2], tf.float32)
DISCRETE = tensor_spec.BoundedTensorSpec([], tf.int64, 0, 1)
BOX = tensor_spec.BoundedTensorSpec([1], tf.float32, -1, 1)
SPEC = ts.time_step_spec(OBSERVATION)
FIRST, MID, LAST = 0, 1, 2
H = 3


def make_actor(action_spec=DISCRETE, hidden=(), **options):
    options = {"output_scale": 1.0, "seed": 3, "recurrent": H, **options}
    return networks.ActorNetwork(OBSERVATION, action_spec, hidden, **options)


def make_agent(kind=agents.NpgAgent, optimizer=None, actor=None, specs=(SPEC, DISCRETE), length=4, **options):
    actor = actor or make_actor()
    optimizer = optimizer or optimizers.NaturalGradient(1.0, solvers.Dual(solver=solvers.Cholesky()), 0.1)
    critic = agents.Critic(networks.ValueNetwork(actor.critic_spec, (4,)), tf.keras.optimizers.Adam(0.01), 1)
    return kind(*specs, actor, optimizer, critic, sequence_length=length, **options)


def theta_of(network):
    return np.concatenate([variable.numpy().reshape(-1) for variable in network.trainable_weights]).astype(float)


def slow_steps(network, theta, observations, is_first, memory):
    """Outputs [L, K] and memories [L, H] of one sequence by Cho et al.'s equations, for any θ, complex ones too."""
    parts, start = {}, 0
    for variable in network.trainable_weights:
        size = int(np.prod(variable.shape))
        parts[variable.ref()] = theta[start : start + size].reshape(variable.shape)
        start += size
    cell, layer = network.cell, network.layers_in_order[-1]
    w, u, b = (parts[variable.ref()] for variable in (cell.kernel, cell.recurrent_kernel, cell.bias))
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    outputs, memories, h = [], [], np.asarray(memory, theta.dtype)
    for x, first in zip(observations, is_first, strict=True):
        h = np.zeros_like(h) if first else h
        (a_z, a_r, a_h), (c_z, c_r, c_h) = (np.split(v, 3) for v in (x @ w + b[0], h @ u + b[1]))
        z, r = sigmoid(a_z + c_z), sigmoid(a_r + c_r)
        h = z * h + (1 - z) * np.tanh(a_h + r * c_h)
        memories.append(h)
        outputs.append(h @ parts[layer.kernel.ref()] + parts[layer.bias.ref()])
    return np.stack(outputs), np.stack(memories)


def slow_jacobian(network, theta, *sequence):
    """∂outputs/∂θ [L, K, P], column by column, by a step into the complex plane."""
    columns = []
    for parameter in range(len(theta)):
        moved = theta.astype(complex)
        moved[parameter] += 1e-20j
        columns.append(slow_steps(network, moved, *sequence)[0].imag / 1e-20)
    return np.stack(columns, axis=-1)


def softmax(logits):
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


# --- derivatives


@pytest.fixture(scope="module")
def sequences():
    """A policy in float64, sequences [3, 5] whose episodes begin anywhere, and the Jacobian [3, 5, K, P]."""
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy("float64")
    try:
        network = make_actor()
        network.cell.build([None, 2])
        for layer, size in zip(network.layers_in_order, [H], strict=True):
            layer.build([None, size])
    finally:
        tf.keras.mixed_precision.set_global_policy(before)
    network.built = True
    rng = np.random.default_rng(0)
    for variable in network.trainable_weights:
        variable.assign(rng.normal(0.1, 0.7, variable.shape))
    is_first = np.array([[1, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 1, 0, 0, 1]], bool)
    given = rng.normal(size=(3, 5, 2)), is_first, rng.normal(size=(3, 5, H))
    inputs = MemoryInputs(*map(tf.constant, given))
    theta = theta_of(network)
    jacobian = [slow_jacobian(network, theta, x, first, memory[0]) for x, first, memory in zip(*given, strict=True)]
    outputs = [slow_steps(network, theta, x, first, memory[0])[0] for x, first, memory in zip(*given, strict=True)]
    return network, inputs, np.stack(outputs), np.stack(jacobian)


def masked_fisher(value):
    """The Fisher of a recurrent policy over four sequences of four steps, some of them masked; w and inputs [16]."""
    network = networks.ActorNetwork(tensor_spec.TensorSpec([3], tf.float32), DISCRETE, (5,), recurrent=4, seed=1)
    network.create_variables(network.input_tensor_spec)
    policy = Policy(network, head_for(DISCRETE), 0.0, 0, tf.Variable(0, dtype=tf.int64), 4)
    rng = np.random.default_rng(0)
    weights = np.ones(16, np.float32)
    weights[[3, 4, 9, 10, 11]] = 0
    encoded, memory = (rng.normal(size=(16, size)).astype(np.float32) for size in (3, 4))
    encoded[weights == 0] = memory[weights == 0] = value
    inputs = MemoryInputs(tf.constant(encoded), tf.zeros(16, bool), tf.constant(memory))
    return policy.fisher(inputs, tf.constant(weights)), weights, encoded


def test_kfacs_factors_are_those_of_the_steps_that_count():
    operator, weights, encoded = masked_fisher(0.0)
    found = operator.kronecker_layers()
    kernel = next(layer for layer in found.layers if found.variables[layer.kernel_slot].shape[0] == 3)
    expected = np.einsum("n,nd,ne->de", weights / weights.sum(), encoded, encoded)
    np.testing.assert_allclose(kernel.input_factor()[:3, :3], expected, rtol=1e-5)
    rows = kernel.input_rows()
    np.testing.assert_allclose(tf.matmul(rows, rows, transpose_a=True), kernel.input_factor(), rtol=1e-5, atol=1e-7)
    means = np.einsum("sl,sld->sd", *(part.reshape(4, 4, -1).squeeze() for part in (weights, encoded)))
    shares = weights.reshape(4, 4).sum(1)
    reduced = np.einsum("s,sd,se->de", 1 / (shares * weights.sum()), means, means)
    np.testing.assert_allclose(kernel.input_factor("reduce")[:3, :3], reduced, rtol=1e-5)


def test_rows_over_time_are_the_exact_derivatives_of_each_steps_outputs(sequences):
    network, inputs, outputs, jacobian = sequences
    operator = GaussNewton(LayeredNetwork(network.unrolled, network), network.trainable_weights, inputs)
    np.testing.assert_allclose(operator.outputs, outputs.reshape(3, -1), rtol=1e-12)
    assert operator.unruled == ()
    flat = jacobian.reshape(30, -1)
    assert np.abs(flat).max(axis=0).min() > 0  # no column is empty
    np.testing.assert_allclose(operator.row_matrix() * np.sqrt(3), flat, atol=1e-12)
    v, c = np.random.default_rng(1).normal(size=flat.shape[1]), np.random.default_rng(2).normal(size=30)
    np.testing.assert_allclose(operator.jvp(v), (flat @ v).reshape(3, -1), atol=1e-12)
    np.testing.assert_allclose(operator.vjp(c.reshape(3, -1)), flat.T @ c, atol=1e-12)


@pytest.mark.parametrize("compiled", [False, True])
def test_rows_of_more_outputs_than_are_written_out_are_exact_too(sequences, monkeypatch, compiled):
    """As those of three actions over 16 steps are; here a graph doesn't know how many sequences there are."""
    monkeypatch.setattr(ngrl.curvature.layer_jacobian, "_MOST_WRITTEN_OUT", 1)
    network, inputs, _, jacobian = sequences

    def rows(*inputs):
        forward = LayeredNetwork(network.unrolled, network)
        return GaussNewton(forward, network.trainable_weights, MemoryInputs(*inputs)).row_matrix()

    if compiled:
        specs = [tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype) for leaf in inputs]
        rows = tf.function(rows, input_signature=specs)
    np.testing.assert_allclose(rows(*inputs) * np.sqrt(3), jacobian.reshape(30, -1), atol=1e-12)


def test_fisher_of_sequences_is_the_mean_over_the_steps_that_count(sequences):
    network, inputs, outputs, jacobian = sequences
    weights = np.array([[1, 2, 0, 1, 1], [1, 0, 1, 1, 3], [0, 1, 1, 0.5, 1]])
    p = softmax(outputs)
    metric = np.einsum("btk,kl->btkl", p, np.eye(2)) - np.einsum("btk,btl->btkl", p, p)
    fisher = np.einsum("bt,btkp,btkl,btlq->pq", weights / weights.sum(), jacobian, metric, jacobian)
    over_time = OverTime(Categorical(), tf.constant(weights))
    forward = LayeredNetwork(network.unrolled, network)
    operator = GaussNewton(forward, network.trainable_weights, inputs, over_time)
    rng = np.random.default_rng(3)
    v, u = rng.normal(size=len(fisher)), rng.normal(size=(3, 5, 2)) * weights[..., None]
    np.testing.assert_allclose(operator.matvec(v), fisher @ v, atol=1e-12)
    np.testing.assert_allclose(operator.to_dense(), fisher, atol=1e-12)
    # A loss's gradient is found again in the rows.
    u = (u - u.mean(axis=-1, keepdims=True)).reshape(3, -1)
    found = operator.row_rmatvec(operator.row_coefficients(u))
    np.testing.assert_allclose(found, jacobian.reshape(30, -1).T @ u.reshape(-1), atol=1e-10)
    rows = tf.constant(rng.normal(size=[3, operator.rows_per_example]))
    again = over_time.factor_rmatvec(operator.outputs, over_time.factor_matvec(operator.outputs, rows))
    factor = over_time.factor(operator.outputs)
    np.testing.assert_allclose(again, tf.linalg.matvec(factor @ tf.transpose(factor, [0, 2, 1]), rows), atol=1e-12)


def test_sampled_scores_of_steps_have_the_metric_as_their_covariance():
    weights = tf.constant([[1.0, 0.0, 3.0]], tf.float64)
    outputs = tf.constant([[0.3, -0.4, 1.0, 0.0, -0.2, 0.5]], tf.float64)
    metric = OverTime(Categorical(), weights)
    factor = metric.factor(outputs)[0]
    many = OverTime(Categorical(), tf.repeat(weights, 20_000, axis=0))
    scores = many.sample(tf.repeat(outputs, 20_000, axis=0), tf.constant([1, 2])).numpy()
    np.testing.assert_allclose(scores.T @ scores / len(scores), tf.transpose(factor) @ factor, atol=0.02)


def test_metric_over_time_refuses_outputs_of_other_steps():
    with pytest.raises(ValueError, match=r"outputs must be \[2, 3·K\]"):
        OverTime(Categorical(), tf.ones([2, 3])).check(tf.zeros([2, 4]))


# --- what was collected is what is trained on


@functools.cache
def collected(backend):
    """An agent, and two batches of 32 steps of three environments, the second of which begins within episodes."""
    options = {"backend": CompiledEnvironments()} if backend == "compiled" else {}
    environment, specs = load(MASKED, num_envs=3, **options)
    agent = make_agent(specs=specs, actor=make_actor(DISCRETE, recurrent=4))
    loop = loops.OnPolicyLoop(agent, environment, 0, 96, jit_compile=False)
    batches = []
    loop._update = lambda rows: batches.append(tf.nest.map_structure(np.array, rows))
    while len(batches) < 2:
        loop.step()
    return agent, batches


@pytest.mark.parametrize("backend", ["sync", "compiled"])
def test_log_probabilities_in_training_are_those_of_the_policy_that_acted(backend):
    agent, batches = collected(backend)
    network, encoder = agent.actor_network, agent.actor_network.encoder
    found = [agent._batch(tf.nest.map_structure(tf.constant, batch), None, is_new=False) for batch in batches]
    assert (batches[0].step_type == LAST).sum() >= 3
    assert (batches[1].step_type[:, 0] == MID).any()
    for member in range(3):
        # From its first step on, without a cut between sequences or batches: the policy has not changed.
        observation = np.concatenate([encoder(batch.observation[member, :-1]).numpy() for batch in batches])
        step_type, action = (
            np.concatenate([leaf[member, :-1] for leaf in leaves])
            for leaves in zip(*[(batch.step_type, batch.action) for batch in batches], strict=True)
        )
        outputs, memories = slow_steps(network, theta_of(network), observation, step_type == FIRST, np.zeros(4))
        expected = np.log(softmax(outputs))[np.arange(64), action].reshape(2, 32)
        values = agent.critic.network(np.concatenate([observation, memories], axis=1).astype(np.float32))[0]
        for batch, number in zip(found, range(2), strict=True):
            here = slice(32 * member, 32 * (member + 1))
            counts = batch.weights.numpy()[here] > 0
            np.testing.assert_allclose(batch.old_log_prob.numpy()[here][counts], expected[number][counts], atol=2e-6)
            seen = batch.value.numpy()[here]
            np.testing.assert_allclose(seen, values.numpy().reshape(2, 32)[number], atol=2e-6)
        # What is bootstrapped from: the observation reached after the last step.
        last = encoder(batches[1].observation[member, -1:])
        reached = batches[1].step_type[member, -1] == FIRST
        _, after = slow_steps(network, theta_of(network), last.numpy(), [reached], memories[-1])
        value = agent.critic.network(np.concatenate([last, after], axis=1).astype(np.float32))[0]
        np.testing.assert_allclose(found[1].steps.values[-1, member], value[0], atol=2e-6)


def test_drivers_policy_carries_the_same_memory_as_the_loops():
    agent = make_agent()
    step = ts.TimeStep(
        tf.constant([MID, FIRST]),
        tf.zeros(2),
        tf.ones(2),
        tf.constant(np.random.default_rng(0).normal(size=(2, 2)), tf.float32),
    )
    memory = tf.constant(np.random.default_rng(1).normal(size=(2, H)), tf.float32)
    acted = agent.act(step.observation, tf.constant([1, 2]), step.step_type, memory)
    driven = agent.collect_policy.action(step, memory)
    np.testing.assert_allclose(driven.state, acted.state, atol=1e-6)
    tf.nest.assert_same_structure(driven.info, agent.collect_policy.info_spec)
    for info in (acted.info, driven.info, agent.collect_policy.distribution(step, memory).info):
        np.testing.assert_array_equal(info[replay.MEMORY][0], memory[0])
    # Nothing is remembered at an episode's first step.
    fresh = agent.act(step.observation, tf.constant([1, 2]), step.step_type, memory + 1)
    np.testing.assert_array_equal(fresh.state[1], acted.state[1])
    assert (fresh.state[0].numpy() != acted.state[0].numpy()).all()


# --- updates


def test_npg_step_is_the_natural_gradient_through_the_unrolled_steps():
    agent, batches = collected("sync")
    network, theta = agent.actor_network, theta_of(agent.actor_network)
    before = [variable.numpy() for variable in network.trainable_weights]
    experience = tf.nest.map_structure(tf.constant, batches[1])
    batch = agent._batch(experience, None, is_new=False)
    steps = batches[1].step_type[:, :-1].reshape(24, 4)
    observation = network.encoder(batches[1].observation[:, :-1].reshape(96, 2)).numpy().reshape(24, 4, 2)
    memory = batches[1].policy_info[replay.MEMORY][:, :-1].reshape(24, 4, 4)[:, 0]
    sequences = list(zip(observation, steps == FIRST, memory, strict=True))
    jacobian = np.concatenate([slow_jacobian(network, theta, *sequence) for sequence in sequences])
    p = softmax(np.concatenate([slow_steps(network, theta, *sequence)[0] for sequence in sequences]))
    weights = (steps.reshape(-1) != LAST) / (steps != LAST).sum()
    metric = np.einsum("nk,kl->nkl", p, np.eye(2)) - np.einsum("nk,nl->nkl", p, p)
    fisher = np.einsum("n,nkp,nkl,nlq->pq", weights, jacobian, metric, jacobian, optimize=True)
    score = np.eye(2)[batch.action.numpy()] - p
    gradient = -np.einsum("n,nk,nkp->p", weights * batch.advantage.numpy(), score, jacobian)
    info = agent.train(experience)
    try:
        step = np.linalg.solve(fisher + 0.1 * np.eye(len(theta)), -gradient)
        np.testing.assert_allclose(theta_of(network) - theta, step, atol=2e-4 * np.abs(step).max())
        assert float(info.extra.surrogate_after) > 0
        assert float(info.extra.surrogate_before) == pytest.approx(0, abs=1e-6)
    finally:
        for variable, value in zip(network.trainable_weights, before, strict=True):
            variable.assign(value)


def test_minibatches_keep_sequences_whole():
    policy = Policy(make_actor(), agents.heads.CategoricalHead(), 0.0, 5, tf.Variable(3), 4)
    rows = policy.minibatches(24, 8, 2).numpy()
    assert rows.shape == (6, 8)
    np.testing.assert_array_equal(rows.reshape(12, 4) - rows.reshape(12, 4)[:, :1], np.tile(np.arange(4), (12, 1)))
    for epoch in rows.reshape(2, 24):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(24))
    assert (rows[:3] != rows[3:]).any()


def ppo(**options):
    return {"kind": agents.PpoAgent, "optimizer": tf.keras.optimizers.Adam(0.03), "epochs": 2, **options}


def searched(**options):
    search = optimizers.BacktrackingLineSearch()
    optimizer = optimizers.NaturalGradient(
        None, solvers.ConjugateGradient(max_iterations=4), 0.1, max_kl=0.02, line_search=search
    )
    return {"kind": agents.TrpoAgent, "optimizer": optimizer, **options}


@pytest.mark.parametrize("options", [ppo(batch_size=16), searched(fisher_every=3)], ids=["ppo", "trpo"])
def test_other_updates_improve_the_surrogate_of_sequences(options):
    _, batches = collected("sync")
    _, specs = load(MASKED, num_envs=3)
    agent = make_agent(specs=specs, actor=make_actor(recurrent=4), **options)
    info = agent.train(tf.nest.map_structure(tf.constant, batches[0]))
    assert float(info.extra.surrogate_after) > 1e-3
    assert 0 < float(info.extra.kl) < 0.1
    assert float(info.extra.optimizer.skipped) == 0


# --- a policy on its own


@pytest.mark.parametrize("spec", [DISCRETE, BOX], ids=["discrete", "continuous"])
def test_exported_policy_carries_its_memory_and_forgets_it_with_the_episode(spec, tmp_path):
    """Loaded by ngrl, and by the tutorial's code for those without it."""
    network = make_actor(spec, (3,) if spec is BOX else ())
    agent = make_agent(specs=(SPEC, spec), actor=network)
    space = gymnasium.spaces.Discrete(2) if spec is DISCRETE else gymnasium.spaces.Box(-1, 1, (1,))
    training.export_policy(agent.policy, tmp_path / "policy", {"actions": describe_converter(space)})
    actor, _ = training.load_policy(tmp_path / "policy")
    rng = np.random.default_rng(4)
    types = np.array([[FIRST, MID, MID, LAST, FIRST, MID], [FIRST, MID, MID, MID, MID, MID]], np.int32)
    observations = rng.normal(size=(2, 6, 2)).astype(np.float32)
    played = np.stack(
        [
            actor(ts.TimeStep(types[:, t], np.zeros(2, np.float32), np.ones(2, np.float32), observations[:, t]))
            for t in range(6)
        ],
        axis=1,
    )
    memory, expected = tf.zeros([2, H]), []
    for t in range(6):
        inputs = MemoryInputs(tf.constant(observations[:, t]), tf.constant(types[:, t] == FIRST), memory)
        memory = network.remember(inputs)
        expected.append(network.from_memory(memory))
    expected = np.stack(expected, axis=1)
    expected = expected.argmax(-1) if spec is DISCRETE else np.clip(expected[..., :1], -1, 1)
    np.testing.assert_allclose(played, expected, atol=1e-6)
    one = ts.TimeStep(types[:1, 1], np.zeros(1, np.float32), np.ones(1, np.float32), observations[:1, 1])
    assert actor(one).shape == (1, *spec.shape)  # another number of environments: a beginning
    act = run_block("acting.py", tmp_path)["load"](tmp_path / "policy")
    shown = [act(observations[0, t], types[0, t] == FIRST) for t in range(6)]
    np.testing.assert_allclose(np.stack(shown), played[0], rtol=1e-5)


def test_average_of_a_policy_that_remembers_remembers_too():
    agent = make_agent()
    agent.average_into(make_actor(), agents.SoftUpdate(0.5))
    assert agent.policy.policy_state_spec == agent.actor_network.state_spec


def test_memory_starts_as_the_seed_says():
    first, same, other = (theta_of(build(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert np.mean(first == other) < 0.5  # the biases are 0
    drawn = seeding.integer(1, seeding.Stream.TRUNK_WEIGHTS, int(seeding.Stream.ACTOR_WEIGHTS), 0)
    expected = tf.keras.initializers.VarianceScaling(1.0, "fan_in", "truncated_normal", seed=drawn)([2, 3 * H])
    np.testing.assert_array_equal(build(1).cell.kernel, expected)


def build(seed):
    network = make_actor(seed=seed)
    network.create_variables()
    return network


# --- refusals


def acer(network):
    q_network = networks.QNetwork(OBSERVATION, 2)
    adam = tf.keras.optimizers.Adam
    return agents.AcerAgent(SPEC, DISCRETE, network, make_actor(), agents.DiscreteCritic(q_network), adam(), adam())


def test_what_has_no_use_for_a_memory_refuses_it_in_a_line():
    with pytest.raises(ValueError, match=r"^AcerAgent: network 'ActorNetwork' is recurrent.* ActorNetwork\.recurrent$"):
        acer(make_actor())
    with pytest.raises(ValueError, match=r"^CompatibleUpdate \(NAC\) .* set ActorNetwork\.recurrent to None, or take"):
        make_agent(agents.NacAgent)
    with pytest.raises(ValueError, match="recurrent is for encoded observations, without a trunk"):
        make_actor(trunk=networks.ConvNetwork())
    with pytest.raises(ValueError, match="recurrent must be a positive integer, got 0"):
        make_actor(recurrent=0)


def test_recurrent_layer_that_reads_a_stack_has_no_state_to_lose():
    stack = tensor_spec.TensorSpec([4, 2], tf.float32)
    network = networks.QNetwork(stack, 2, (), trunk=tf.keras.layers.GRU(3))
    agents.DqnAgent(ts.time_step_spec(stack), DISCRETE, network, optimizers.NaturalGradient(1.0))
    stateful = tf.keras.layers.GRU(3, stateful=True, batch_input_shape=[1, 4, 2], name="memory")
    network = networks.QNetwork(stack, 2, (), trunk=stateful)
    with pytest.raises(ValueError, match=r"layer 'memory' \(GRU\) is stateful: .* set its stateful to False"):
        agents.DqnAgent(ts.time_step_spec(stack), DISCRETE, network, optimizers.NaturalGradient(1.0))


def test_sequences_that_do_not_fit_are_named():
    _, batches = collected("sync")
    agent = make_agent(length=5)
    with pytest.raises(ValueError, match=r"of 33 rows hold 32 steps, no multiple of sequence_length \(5\)"):
        agent.train(tf.nest.map_structure(tf.constant, batches[0]))
    with pytest.raises(ValueError, match=r"batch_size \(64\) must be a multiple of .*sequence_length \(5\)"):
        make_agent(**ppo(batch_size=64), length=5)
    environment, specs = load(MASKED, num_envs=3)
    with pytest.raises(ValueError, match=r"gives each of 3 environments 32 steps, no multiple of .*\(5\)"):
        loops.OnPolicyLoop(make_agent(specs=specs, length=5), environment, batch_size=96)
    with pytest.raises(ValueError, match="sequence_length must be a positive integer, got 0"):
        make_agent(length=0)


def test_critic_that_does_not_see_the_memory_is_refused():
    critic = agents.Critic(networks.ValueNetwork(OBSERVATION), tf.keras.optimizers.Adam())
    optimizer = optimizers.NaturalGradient(1.0)
    with pytest.raises(ValueError, match=r"NpgAgent: the critic .* critic_spec \(5,\)"):
        agents.NpgAgent(SPEC, DISCRETE, make_actor(), optimizer, critic)
