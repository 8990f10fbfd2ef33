"""What the on-policy agents' tests share: small agents, random trajectories, and the agents' equations in float64.

The reference reads the networks' weights and nothing else of `ngrl`: loops over rows for advantages, the formulas of
the distributions written out, and second derivatives by nested tapes.
"""

import functools
import math

import numpy as np
import tensorflow as tf
from on_policy_agents import ON_POLICY, make_optimizer
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory

from ngrl import agents, networks, optimizers

OBSERVATION = tensor_spec.TensorSpec([3], tf.float32)
SPEC = ts.time_step_spec(OBSERVATION)
DISCRETE = tensor_spec.BoundedTensorSpec([], tf.int64, 0, 2)
BOX = tensor_spec.BoundedTensorSpec([2], tf.float32, -1, 1)
FIRST, MID, LAST = 0, 1, 2
GAMMA, LAMBDA = 0.9, 0.8

#: Kinds of policies: the action spec and the actor's options.
POLICIES = {
    "discrete": (DISCRETE, {}),
    "gaussian": (BOX, {"initial_log_std": -0.3}),
    "state_dependent": (BOX, {"std": "state_dependent", "initial_log_std": -0.3}),
}


def make_actor(policy="discrete", hidden=(4,), seed=7, output_scale=0.7, **options):
    spec, chosen = POLICIES[policy]
    return networks.ActorNetwork(
        OBSERVATION, spec, hidden, output_scale=output_scale, seed=seed, **{**chosen, **options}
    )


def make_critic(optimizer=None, epochs=2, batch_size=16, normaliser=None, seed=5):
    network = networks.ValueNetwork(OBSERVATION, (4,), normaliser=normaliser, seed=seed)
    return agents.Critic(network, optimizer or tf.keras.optimizers.Adam(0.01), epochs, batch_size)


def make(kind, optimizer, policy="discrete", actor=None, critic=None, normalise=True, gamma=GAMMA, **options):
    actor = actor or make_actor(policy)
    advantage = agents.GeneralisedAdvantage(gamma, LAMBDA, normalise)
    return kind(SPEC, POLICIES[policy][0], actor, optimizer, critic, advantage, **options)


def trust_region(**options):
    """The optimizer of TRPO."""
    search = optimizers.BacktrackingLineSearch()
    return optimizers.NaturalGradient(
        **{"learning_rate": None, "max_kl": 0.05, "damping": 0.1, "line_search": search, **options}
    )


def build(kind, **options):
    """An on-policy agent whose step is large enough to be seen; `policy`, `critic` and other options are passed on."""
    own = {"epochs": 2, "batch_size": 8} if kind == "ppo" else {}
    optimizer = make_optimizer(kind, 0.05, damping=0.1, max_kl=0.05)
    return make(ON_POLICY[kind][0], optimizer, **{**own, **options})


#: Every on-policy agent: called with `policy`, `critic` and other options.
AGENTS = {kind: functools.partial(build, kind) for kind in ON_POLICY}


def experience(policy="discrete", trajectories=4, rows=9, seed=0, ends=0.25, reward=None):
    """Random trajectories [B, T]: episodes end with probability `ends` a step, terminated or truncated, then reset.

    The rewards of reset rows are as random as the others: they must not matter.
    """
    generator = np.random.default_rng(seed)
    shape = (trajectories, rows)
    step_type, discount = np.full((trajectories, rows + 1), MID, np.int32), np.ones(shape, np.float32)
    for b in range(trajectories):
        for t in range(rows):
            if step_type[b, t] == LAST:
                step_type[b, t + 1] = FIRST
            elif generator.random() < ends:
                step_type[b, t + 1] = LAST
                discount[b, t] = generator.integers(2)  # 0 where it terminated
    spec = POLICIES[policy][0]
    if policy == "discrete":
        action, info = generator.integers(3, size=shape), ()
    else:
        drawn = tf.constant(generator.normal(size=(*shape, 2)), tf.float32)
        action, info = tf.clip_by_value(drawn, -1, 1), {"drawn_action": drawn}
    rewards = generator.normal(size=shape) if reward is None else np.full(shape, reward)
    return trajectory.Trajectory(
        step_type=tf.constant(step_type[:, :-1]),
        observation=tf.constant(generator.normal(size=(*shape, 3)), tf.float32),
        action=tf.cast(action, spec.dtype),
        policy_info=info,
        next_step_type=tf.constant(step_type[:, 1:]),
        reward=tf.constant(rewards, tf.float32),
        discount=tf.constant(discount),
    )


def drawn_by(agent, batch, seed=0):
    """The same trajectories with actions that the agent's policy draws."""
    step = agent.act(tf.reshape(batch.observation, [-1, 3]), tf.constant([seed, 7]))
    shape = batch.step_type.shape
    action, info = tf.nest.map_structure(
        lambda leaf: tf.reshape(leaf, [*shape, *leaf.shape[1:]]), (step.action, step.info)
    )
    return batch._replace(action=action, policy_info=info)


def snapshot(*modules):
    """Every variable of networks and optimizers, as bytes; None stands for no module."""
    variables = []
    for module in modules:
        if module is not None:
            variables += module.variables() if callable(module.variables) else module.variables
    return [variable.numpy().tobytes() for variable in variables]


def everything(agent):
    """Bytes of the policy's and the critic's weights and slots."""
    critic = agent.critic
    return snapshot(agent.actor_network, agent.optimizer, critic and critic.network, critic and critic.optimizer)


def weights(agent):
    """The policy's parameters as one vector, float64."""
    variables = agent.actor_network.trainable_weights
    return np.concatenate([variable.numpy().reshape(-1) for variable in variables]).astype(np.float64)


def slow_batch(agent, batch, gamma=GAMMA, gae_lambda=LAMBDA, normalise=True):
    """Advantages, returns and weights [B·(T − 1)] in float64, row by row."""
    trajectories, rows = batch.step_type.shape
    step_type, reached = batch.step_type.numpy(), batch.next_step_type.numpy()
    reward, discount = batch.reward.numpy().astype(np.float64), batch.discount.numpy().astype(np.float64)
    if agent.critic is None:
        value, gae_lambda = np.zeros((trajectories, rows)), 1.0
    else:
        value = agent.critic.network(tf.reshape(batch.observation, [-1, 3]))[0].numpy().reshape(trajectories, rows)
    advantages, counts = [], []
    for b in range(trajectories):
        column, following = [], 0.0
        for t in reversed(range(rows - 1)):
            if step_type[b, t] == LAST:  # a reset: no transition, and nothing of what follows comes through
                column.append(0.0)
                following = 0.0
                continue
            if reached[b, t] == LAST:
                following = 0.0
            delta = reward[b, t] + gamma * discount[b, t] * value[b, t + 1] - value[b, t]
            following = delta + gamma * gae_lambda * discount[b, t] * following
            column.append(following)
        advantages += column[::-1]
        counts += [float(step_type[b, t] != LAST) for t in range(rows - 1)]
    advantages, counts = np.array(advantages), np.array(counts)
    returns = advantages + value[:, :-1].reshape(-1)
    if normalise:
        kept = advantages[counts > 0]
        advantages = np.where(counts > 0, (advantages - kept.mean()) / kept.std(), 0.0)
    return advantages, returns, counts


def transitions(batch):
    """Observations and drawn actions of the rows that are transitions or resets, [B·(T − 1), ...], float64."""
    drawn = batch.policy_info["drawn_action"] if batch.policy_info else batch.action
    observation = batch.observation.numpy()[:, :-1].reshape(-1, 3).astype(np.float64)
    drawn = drawn.numpy()[:, :-1]
    return observation, drawn.reshape(-1, *drawn.shape[2:])


class SlowPolicy:
    """The agent's policy as a function of its parameter vector θ [P], in float64."""

    def __init__(self, agent, policy):
        self._actor = agent.actor_network
        self._policy = policy
        self._shift = POLICIES[policy][1].get("initial_log_std", 0.0)
        self.theta = tf.constant(weights(agent))

    def parameters(self, theta, observation):
        """Logits [N, A], or μ and log σ [N, 2D]."""
        parts, start = {}, 0
        for variable in self._actor.trainable_weights:
            size = math.prod(variable.shape)
            parts[id(variable)] = tf.reshape(theta[start : start + size], variable.shape)
            start += size
        layers = self._actor.layers_in_order
        hidden = tf.constant(observation)
        for number, layer in enumerate(layers):
            hidden = tf.matmul(hidden, parts[id(layer.kernel)]) + parts[id(layer.bias)]
            if number < len(layers) - 1:
                hidden = tf.tanh(hidden)
        if self._policy == "gaussian":
            log_std = parts[id(self._actor.log_std)] + tf.zeros_like(hidden)
            return tf.concat([hidden, log_std], axis=1)
        if self._policy == "state_dependent":
            mean, log_std = tf.split(hidden, 2, axis=1)
            return tf.concat([mean, log_std + self._shift], axis=1)
        return hidden

    def log_prob(self, parameters, actions):
        if self._policy == "discrete":
            chosen = tf.gather(parameters, tf.constant(actions), axis=1, batch_dims=1)
            return chosen - tf.reduce_logsumexp(parameters, axis=1)
        mean, log_std = tf.split(parameters, 2, axis=1)
        squared = tf.square(actions - mean) / tf.exp(2 * log_std)
        return -0.5 * tf.reduce_sum(squared + 2 * log_std + math.log(2 * math.pi), axis=1)

    def kl(self, old, new):
        if self._policy == "discrete":
            p, q = tf.nn.softmax(old), tf.nn.softmax(new)
            return tf.reduce_sum(p * tf.math.log(p / q), axis=1)
        (mean_p, log_p), (mean_q, log_q) = tf.split(old, 2, axis=1), tf.split(new, 2, axis=1)
        variance_p, variance_q = tf.exp(2 * log_p), tf.exp(2 * log_q)
        ratio = (variance_p + tf.square(mean_p - mean_q)) / variance_q
        return 0.5 * tf.reduce_sum(ratio - 1 + tf.math.log(variance_q / variance_p), axis=1)

    def mean_kl(self, after, observation, counts):
        """Mean KL(π_θ ‖ π_after) over the steps that count, a number."""
        old, new = self.parameters(self.theta, observation), self.parameters(tf.constant(after), observation)
        return float(self.kl(old, new).numpy()[counts > 0].mean())

    def surrogate_loss(self, theta, observation, actions, advantages, counts):
        """−Σ w ρ Â / Σ w, a scalar tensor."""
        old = self.log_prob(self.parameters(self.theta, observation), actions)
        ratio = tf.exp(self.log_prob(self.parameters(tf.constant(theta), observation), actions) - old)
        return -tf.reduce_sum(counts * ratio * advantages) / counts.sum()

    def entropy(self, parameters):
        if self._policy == "discrete":
            p = tf.nn.softmax(parameters)
            return -tf.reduce_sum(p * tf.math.log(p), axis=1)
        return tf.reduce_sum(0.5 * tf.math.log(2 * math.pi * math.e * tf.exp(2 * tf.split(parameters, 2, 1)[1])), 1)

    def gradient(self, observation, actions, advantages, counts, entropy_weight=0.0):
        """−∇ Σ w (log π Â + c H) / Σ w at θ [P], which is the surrogate loss's gradient there too."""
        with tf.GradientTape() as tape:
            tape.watch(self.theta)
            parameters = self.parameters(self.theta, observation)
            gain = self.log_prob(parameters, actions) * advantages + entropy_weight * self.entropy(parameters)
            loss = -tf.reduce_sum(counts * gain) / counts.sum()
        return tape.gradient(loss, self.theta).numpy()

    def fisher(self, observation, counts):
        """The Hessian of the mean KL(π_θ ‖ π) at θ: [P, P]."""
        old = self.parameters(self.theta, observation)
        with tf.GradientTape(persistent=True) as outer:
            outer.watch(self.theta)
            with tf.GradientTape() as inner:
                inner.watch(self.theta)
                divergence = self.kl(tf.stop_gradient(old), self.parameters(self.theta, observation))
                mean = tf.reduce_sum(counts * divergence) / counts.sum()
            slope = inner.gradient(mean, self.theta)
        return outer.jacobian(slope, self.theta, experimental_use_pfor=False).numpy()
