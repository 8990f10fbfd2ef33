"""NAC: the natural gradient from the compatible critics, the step, and what becomes of singular systems."""

import numpy as np
import pytest
import tensorflow as tf
from on_policy_reference import (
    LAST,
    POLICIES,
    SlowPolicy,
    experience,
    make,
    make_actor,
    make_critic,
    slow_batch,
    transitions,
    weights,
)
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from ngrl import agents, networks, optimizers, solvers
from ngrl.agents import compatible
from ngrl.agents.compatible import Steps, solve_rows, solve_square
from ngrl.curvature import EmpiricalFisher, GaussNewton
from ngrl.losses import LinearSystem

EXACT = solvers.MinresQLP(rtol=1e-7, max_iterations=200)


def natural(**options):
    return optimizers.NaturalGradient(**{"learning_rate": 1.0, "damping": 0.0, "solver": EXACT, **options})


def nac(compatible_critic, policy="discrete", hidden=(), optimizer=None, **options):
    actor = make_actor(policy, hidden=hidden)
    return make(
        agents.NacAgent, optimizer or natural(), policy, actor=actor, compatible_critic=compatible_critic, **options
    )


def relative_error(actual, expected):
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


def natural_gradient(agent, batch):
    """What the agent's compatible critic makes of a batch: w [P], float64."""
    made = agent._batch(batch, None)
    scores = agent._trained.scores(made)
    return agent.update.compatible_critic(made.steps, scores).value.numpy().astype(np.float64)


def slow_scores(agent, policy, batch):
    """ψ of every row that is a transition or a reset [B·(T − 1), P], one tape a row, in float64."""
    slow = SlowPolicy(agent, policy)
    observation, actions = transitions(batch)
    rows = []
    for number in range(len(observation)):
        with tf.GradientTape() as tape:
            tape.watch(slow.theta)
            one = slice(number, number + 1)
            log_prob = slow.log_prob(slow.parameters(slow.theta, observation[one]), actions[one])
        rows.append(tape.gradient(log_prob, slow.theta).numpy())
    return np.array(rows)


def slow_lstd(agent, policy, batch, gamma, trace_decay, basis):
    """Algorithm 1 of the paper, row after row, solved by numpy's least squares."""
    psi = slow_scores(agent, policy, batch)
    trajectories, rows = batch.step_type.shape
    batch = tf.nest.map_structure(lambda leaf: leaf.numpy(), batch)
    observation = batch.observation.astype(np.float64)
    size = len(basis(observation[0, 0])) + psi.shape[1]
    matrix, target, count = np.zeros((size, size)), np.zeros(size), 0
    for b in range(trajectories):
        trace = np.zeros(size)
        for t in range(rows - 1):
            if batch.step_type[b, t] == LAST:
                trace = np.zeros(size)
                continue
            features = np.concatenate([basis(observation[b, t]), psi[b * (rows - 1) + t]])
            reached = np.concatenate([basis(observation[b, t + 1]), np.zeros(psi.shape[1])])
            trace = trace + features
            discount = gamma * float(batch.discount[b, t])
            matrix += np.outer(trace, features - discount * reached)
            target += trace * float(batch.reward[b, t])
            trace = gamma * trace_decay * trace * (batch.next_step_type[b, t] != LAST)
            count += 1
    solution = np.linalg.lstsq(matrix / count, target / count, rcond=1e-10)[0]
    return solution[-psi.shape[1] :]


BASES = {
    "linear": lambda x: np.append(x, 1.0),
    "quadratic": lambda x: np.concatenate([np.outer(x, x)[np.triu_indices(3)], x, [1.0]]),
}


@pytest.mark.parametrize(("policy", "basis"), [("discrete", "linear"), ("gaussian", "quadratic")])
def test_lstd_q_is_the_papers_algorithm_and_the_step_is_its_answer(policy, basis):
    """Episodes' ends, resets and softmax's null directions included; undamped, a step of length 1 is w."""
    agent = nac(agents.LstdQ(gamma=0.9, trace_decay=0.7, basis=basis), policy)
    batch = experience(policy, trajectories=12)
    assert (batch.step_type[:, :-1].numpy() == LAST).sum() >= 10
    expected = slow_lstd(agent, policy, batch, 0.9, 0.7, BASES[basis])
    assert relative_error(natural_gradient(agent, batch), expected) < 1e-6
    before = weights(agent)
    agent.train(batch)
    assert relative_error(weights(agent) - before, expected) < 1e-5


@pytest.mark.parametrize(
    ("solver", "tolerance"), [(EXACT, 1e-5), (solvers.Dual(solver=EXACT), 1e-4)], ids=["primal", "dual"]
)
@pytest.mark.parametrize("policy", POLICIES)
def test_regressions_weights_equal_the_inverse_fisher_times_the_gradient(policy, solver, tolerance):
    """For the batch's own Fisher and its own policy gradient, w = (F + λI)⁻¹ g exactly, whatever the batch."""
    damping = 0.5  # the condition number of F + λI is a few hundred then, which leaves float32 1e-5
    actor = make_actor(policy, hidden=(), seed=22)
    agent = make(
        agents.NacAgent,
        natural(),
        policy,
        actor=actor,
        compatible_critic=agents.CompatibleRegression(solver, damping),
    )
    batch = experience(policy)
    advantage, _, counts = slow_batch(agent, batch)
    observation, actions = transitions(batch)
    drawn = tf.constant(actions, tf.int32 if policy == "discrete" else tf.float32)
    inputs = tf.constant(observation, tf.float32)
    operator = EmpiricalFisher(
        lambda x: agent._head.log_prob(agent.actor_network.distribution_parameters(x[0]), x[1]),
        agent.actor_network.trainable_weights,
        (inputs, drawn),
        weights=tf.constant(counts, tf.float32),
    )
    dense = operator.to_dense().numpy().astype(np.float64)
    gradient = SlowPolicy(agent, policy).gradient(observation, actions, advantage, counts)
    expected = np.linalg.solve(dense + damping * np.eye(len(dense)), -gradient)
    steps = agent._batch(batch, None).steps
    assert relative_error(agent.update.compatible_critic(steps, operator).value.numpy(), expected) < tolerance


def chain_steps(agent, gamma):
    """Every transition of a 5-state chain once, weighed by π(a|s)/5, with what is known of it in closed form.

    Walking out to the left pays ½, to the right 1. Returns the critic's steps, the scores, F⁻¹ ∇J and F's rank.
    """
    states = np.repeat(np.arange(5), 2)
    actions = np.tile([0, 1], 5)
    reached = states + 2 * actions - 1
    ends = (reached < 0) | (reached > 4)
    reward = np.where(reached < 0, 0.5, np.where(reached > 4, 1.0, 0.0))
    observation = np.eye(5, dtype=np.float32)[states]
    actor = agent.actor_network
    logits = actor.distribution_parameters(tf.eye(5)).numpy().astype(np.float64)
    policy = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    share = policy[states, actions] / 5
    transition, expected_reward = np.zeros((5, 5)), np.zeros(5)
    for s, a, s2, r, end in zip(states, actions, reached, reward, ends, strict=True):
        expected_reward[s] += policy[s, a] * r
        if not end:
            transition[s, s2] += policy[s, a]
    value = np.linalg.solve(np.eye(5) - gamma * transition, expected_reward)
    next_value = np.where(ends, 0.0, value[np.clip(reached, 0, 4)])
    advantage = reward + gamma * next_value - value[states]
    counts = tf.constant(share, tf.float32)
    scores = EmpiricalFisher(
        lambda x: agent._head.log_prob(actor.distribution_parameters(x[0]), x[1]),
        actor.trainable_weights,
        (tf.constant(observation), tf.constant(actions, tf.int32)),
        weights=counts,
    )
    fisher = GaussNewton(agent._trained.forward, actor.trainable_weights, tf.eye(5), agent._head.metric)
    gradient = scores.row_matrix().numpy().astype(np.float64).T @ (np.sqrt(share) * advantage)
    expected = np.linalg.pinv(fisher.to_dense().numpy().astype(np.float64), rcond=1e-5) @ gradient
    encoded = np.stack([observation, np.eye(5, dtype=np.float32)[np.clip(reached, 0, 4)]])
    # [T = 1, B = 10]: each transition is a trajectory, of which the last row is the state reached.
    steps = Steps(
        r_t=tf.constant(reward[None], tf.float32),
        discount_t=tf.constant(~ends[None], tf.float32),
        continues_t=tf.zeros([1, 10]),
        weights=counts[tf.newaxis],
        is_first_tm1=tf.ones([1, 10], tf.bool),
        encoded=tf.constant(encoded),
        values=None,
        advantage=tf.constant(advantage[None], tf.float32),
    )
    return steps, scores, expected


@pytest.mark.parametrize("critic", [agents.LstdQ(0.9, 0.0), agents.CompatibleRegression(EXACT)], ids=["lstd", "mc"])
def test_linear_policys_weights_equal_the_true_natural_gradient_on_a_chain(critic):
    """Where every action counts by π(a|s) and φ can represent V, w = F⁻¹∇J with the Hessian of the KL as F.

    F is singular: logits have a null direction for every state, and the bias repeats the kernel.
    """
    observation = tensor_spec.TensorSpec([5], tf.float32)
    actor = networks.ActorNetwork(
        observation, tensor_spec.BoundedTensorSpec([], tf.int32, 0, 1), (), output_scale=1.0, seed=3
    )
    agent = agents.NacAgent(ts.time_step_spec(observation), actor._action_spec, actor, natural())
    steps, scores, expected = chain_steps(agent, 0.9)
    assert relative_error(critic(steps, scores).value.numpy(), expected) < 1e-5


@pytest.mark.parametrize("baseline", ["optimal", "average"])
@pytest.mark.parametrize("trajectories", [24, 3], ids=["many episodes", "fewer episodes than parameters"])
def test_episodic_step_is_the_regression_of_returns(trajectories, baseline):
    """Whole episodes alone; with too few of them the shortest of the solutions."""
    gamma = 0.95
    agent = nac(agents.EpisodicCritic(gamma, baseline), "gaussian")
    batch = experience("gaussian", trajectories=trajectories, rows=12, ends=0.5)
    psi = slow_scores(agent, "gaussian", batch).reshape(trajectories, 11, -1)
    scores, returns = [], []
    for b in range(trajectories):
        start = None
        for t in range(11):
            if batch.step_type[b, t] == 0:
                start = t
            if start is not None and batch.next_step_type[b, t] == LAST:
                factors = gamma ** np.arange(t + 1 - start)
                scores.append(factors @ psi[b, start : t + 1])
                returns.append(factors @ batch.reward.numpy()[b, start : t + 1])
                start = None
    scores, returns = np.array(scores), np.array(returns)
    assert len(scores) > 3
    assert (len(scores) < psi.shape[2]) == (trajectories == 3)
    if baseline == "optimal":
        scores = scores - scores.mean(0)
    expected = np.linalg.lstsq(scores, returns - returns.mean(), rcond=1e-9)[0]
    assert relative_error(natural_gradient(agent, batch), expected) < 1e-5


def test_without_a_whole_episode_the_episodic_critic_changes_nothing():
    agent = nac(agents.EpisodicCritic())
    before = weights(agent)
    stats = agent.train(experience(ends=0.0)).extra.optimizer
    np.testing.assert_array_equal(weights(agent), before)
    assert stats.skipped == stats.step_norm == 0


@pytest.mark.parametrize("critic", [agents.LstdQ(), agents.EpisodicCritic(), agents.CompatibleRegression()])
def test_a_batch_of_one_step_has_a_finite_answer(critic):
    """Ten unknowns and more for one equation; where nothing is learned the KL-sized step is 0."""
    agent = nac(critic, optimizer=natural(learning_rate=None, max_kl=0.01))
    before = weights(agent)
    stats = agent.train(experience(trajectories=1, rows=2, ends=0.0)).extra.optimizer
    assert stats.skipped == 0
    assert np.isfinite(weights(agent)).all()
    assert stats.predicted_kl <= 0.0101
    assert np.linalg.norm(weights(agent) - before) == pytest.approx(float(stats.step_norm), rel=1e-3, abs=1e-6)


def test_kl_sized_step_follows_w_to_the_kl_that_was_asked_for():
    agent = nac(agents.LstdQ(0.9, 0.7), "gaussian", hidden=(4,), optimizer=natural(learning_rate=None, max_kl=1e-3))
    batch = experience("gaussian", trajectories=12)
    slow = SlowPolicy(agent, "gaussian")
    observation, _ = transitions(batch)
    _, _, counts = slow_batch(agent, batch)
    fisher = slow.fisher(observation, counts)
    w = natural_gradient(agent, batch)
    before = weights(agent)
    stats = tf.function(agent.train)(batch).extra.optimizer
    step = weights(agent) - before
    np.testing.assert_allclose(stats.predicted_kl, 1e-3, rtol=1e-5)
    np.testing.assert_allclose(0.5 * step @ fisher @ step, 1e-3, rtol=1e-3)
    # Along w as far as the policy can tell.
    cosine = step @ fisher @ w / np.sqrt((step @ fisher @ step) * (w @ fisher @ w))
    assert cosine > 1 - 1e-4


def test_a_reward_that_is_not_finite_skips_the_update():
    agent = nac(agents.LstdQ())
    batch = experience()
    reward = batch.reward.numpy()
    reward[0, 0] = np.nan
    before = weights(agent)
    stats = agent.train(batch._replace(reward=tf.constant(reward))).extra.optimizer
    np.testing.assert_array_equal(weights(agent), before)
    assert stats.skipped == 1


def test_xla_and_eager_updates_agree():
    def build():
        return nac(agents.LstdQ(0.9, 0.7), "gaussian", optimizer=natural(learning_rate=None, max_kl=0.01, damping=0.1))

    eager, compiled = build(), build()
    batch = experience("gaussian", trajectories=12)
    eager.train(batch)
    tf.function(compiled.train, jit_compile=True)(batch)
    np.testing.assert_allclose(weights(compiled), weights(eager), rtol=1e-3, atol=1e-5)


def test_values_of_the_critic_network_as_a_basis():
    agent = nac(agents.LstdQ(0.9, 0.7, "critic"), critic=make_critic())
    batch = experience(trajectories=12)
    network = agent.critic.network
    value = network(tf.reshape(batch.observation, [-1, 3]))[0].numpy().reshape(batch.step_type.shape)
    table = {tuple(x): v for x, v in zip(batch.observation.numpy().reshape(-1, 3), value.reshape(-1), strict=True)}
    expected = slow_lstd(
        agent, "discrete", batch, 0.9, 0.7, lambda x: np.array([table[tuple(x.astype(np.float32))], 1.0])
    )
    assert relative_error(natural_gradient(agent, batch), expected) < 1e-4


def test_singular_systems_have_the_shortest_least_squares_solution():
    random = np.random.default_rng(0)
    low_rank = random.normal(size=(6, 3)) @ random.normal(size=(3, 6))
    target = random.normal(size=6)
    solution = solve_square(LinearSystem(tf.constant(low_rank), tf.constant(target)))
    np.testing.assert_allclose(solution.value, np.linalg.pinv(low_rank) @ target, rtol=1e-6, atol=1e-9)
    for rows in (random.normal(size=(4, 7)), random.normal(size=(9, 3)), np.ones((5, 3))):
        y = random.normal(size=len(rows))
        shortest = np.linalg.pinv(rows) @ y
        np.testing.assert_allclose(solve_rows(tf.constant(rows), tf.constant(y)).value, shortest, rtol=1e-6, atol=1e-9)
        ridge = np.linalg.solve(rows.T @ rows + 0.3 * np.eye(rows.shape[1]), rows.T @ y)
        damped = solve_rows(tf.constant(rows), tf.constant(y), 0.3).value
        np.testing.assert_allclose(damped, ridge, rtol=1e-6, atol=1e-9)


def test_policy_too_large_for_the_dense_system_is_refused():
    with pytest.raises(ValueError, match=r"a policy of 1123 parameters is too large .* CompatibleRegression"):
        nac(agents.LstdQ(), hidden=(160,))


def test_more_scores_than_memory_is_meant_for_are_refused(monkeypatch):
    monkeypatch.setattr(compatible, "_MOST_NUMBERS", 100)
    with pytest.raises(
        ValueError, match=r"the scores of 32 steps for 12 parameters are too many numbers .* CompatibleRegression"
    ):
        nac(agents.EpisodicCritic()).train(experience())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: agents.LstdQ(gamma=1.5), "gamma"),
        (lambda: agents.LstdQ(trace_decay=-0.1), "trace_decay"),
        (lambda: agents.LstdQ(damping=float("nan")), "damping"),
        (lambda: agents.LstdQ(basis="cubic"), "basis"),
        (lambda: agents.EpisodicCritic(baseline="none"), "baseline"),
        (lambda: agents.EpisodicCritic(gamma=float("nan")), "gamma"),
        (lambda: agents.CompatibleRegression("cg"), "solver"),
        (lambda: agents.CompatibleRegression(solvers.Dual(momentum=0.9)), "solves each batch afresh, and Dual"),
        (lambda: agents.CompatibleRegression(solvers.ConjugateGradient(warm_start=True)), "solves each batch afresh"),
        (lambda: agents.CompatibleRegression(solvers.Kfac()), "solves each batch afresh"),
        (lambda: nac(agents.LstdQ(basis="critic")), "needs a critic network"),
        (lambda: nac("lstd"), "compatible_critic"),
        (
            lambda: nac(agents.LstdQ(), optimizer=optimizers.NaturalGradient(solver=solvers.Kfac(kind="empirical"))),
            "takes the derivatives of a loss, w has none",
        ),
        (lambda: nac(agents.LstdQ(), optimizer=tf.keras.optimizers.SGD()), "CompatibleUpdate needs NaturalGradient"),
    ],
)
def test_settings_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_batch_keeps_its_trajectories_through_replace_and_map_structure():
    agent = nac(agents.LstdQ(), critic=make_critic())
    trajectories = experience("discrete")
    made = agent._batch(trajectories, None)
    for copy in (made._replace(value=made.value), tf.nest.map_structure(tf.identity, made)):
        np.testing.assert_array_equal(copy.steps.r_t, tf.transpose(trajectories.reward[:, :-1]))
        for found, expected in zip(copy.steps, made.steps, strict=True):
            if expected is not None:
                np.testing.assert_array_equal(found, expected)
