"""Small ACER agents, and ACER's equations written out row by row in float64.

Networks have no hidden layer, so that the gradient of a parameter is an outer product that can be written down. The
reference reads the networks' weights, and the critic's draws through their seed; nothing else of the agent.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from on_policy_reference import BOX, LAST, OBSERVATION, POLICIES, SPEC, experience, make_actor, snapshot

from ngrl import agents, networks, seeding
from ngrl.agents import heads
from ngrl.replay import BEHAVIOUR

GAMMA = 0.9
NUM_SAMPLES = 3


def make_critic(policy, seed=3):
    if policy == "discrete":
        return agents.DiscreteCritic(networks.QNetwork(OBSERVATION, 3, (), output_scale=1.0, seed=seed))
    return agents.DuelingCritic(
        networks.StochasticDuelingNetwork(OBSERVATION, BOX, (), num_samples=NUM_SAMPLES, seed=seed)
    )


def settings(gamma=GAMMA, retrace_lambda=1.0, reward_scale=1.0, trust_region=1.0, phi="probabilities", **agent):
    """The agent's keyword arguments, from those of its parts."""
    parts = {
        "retrace": agents.Retrace(gamma, retrace_lambda, reward_scale),
        "trust_region": agents.TrustRegion(trust_region, phi),
    }
    return {"max_gradient_norm": None, **parts, **agent}


def make(policy="discrete", optimizer=None, critic_optimizer=None, critic=None, **options):
    """An agent; its average policy is another than its policy, so that the trust region has something to do."""
    actor, average = (make_actor(policy, hidden=(), seed=1) for _ in range(2))
    agent = agents.AcerAgent(
        SPEC,
        POLICIES[policy][0],
        actor,
        average,
        critic or make_critic(policy),
        optimizer or tf.keras.optimizers.SGD(1.0),
        critic_optimizer or tf.keras.optimizers.SGD(1.0),
        **settings(**options),
    )
    generator = np.random.default_rng(8)
    for variable in average.trainable_weights:
        variable.assign_add(generator.normal(scale=0.4, size=variable.shape))
    return agent


def replayed(policy="discrete", seed=0, spread=1.0, **options):
    """Random trajectories [4, 9] with episodes' ends among them, acted by distributions that are drawn at random."""
    batch = experience(policy, seed=seed, **options)
    generator = np.random.default_rng(seed + 100)
    size = 3 if policy == "discrete" else 4
    behaviour = generator.normal(scale=spread, size=(*batch.step_type.shape, size))
    if policy != "discrete":
        behaviour[..., 2:] = 0.3 * behaviour[..., 2:] - 0.2  # log σ
    return batch._replace(policy_info={BEHAVIOUR: tf.constant(behaviour, tf.float32), **(batch.policy_info or {})})


def modules(agent):
    """What holds the weights and slots."""
    return [agent.actor_network, agent.average_network, agent.critic, agent.optimizer, agent.critic_optimizer]


def everything(agent):
    """Bytes of all weights and slots."""
    return snapshot(*modules(agent))


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def log_density(policy, parameters, action):
    if policy == "discrete":
        return parameters[action] - np.log(np.exp(parameters).sum())
    mean, log_std = np.split(parameters, 2)
    return float(np.sum(-0.5 * ((action - mean) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)))


def score(policy, parameters, action):
    """∇_Φ log f(a|Φ) [K]; Φ is p where actions are discrete."""
    if policy == "discrete":
        return np.eye(3)[action] / softmax(parameters)
    mean, log_std = np.split(parameters, 2)
    standardised = (action - mean) / np.exp(log_std)
    return np.concatenate([standardised / np.exp(log_std), standardised**2 - 1])


def kl_slope(policy, average, parameters):
    """K = ∇_Φ KL(f(·|Φ_a) ‖ f(·|Φ)) [K]."""
    if policy == "discrete":
        return -softmax(average) / softmax(parameters)
    (mean_a, log_a), (mean, log_std) = np.split(average, 2), np.split(parameters, 2)
    variance = np.exp(2 * log_std)
    return np.concatenate([(mean - mean_a) / variance, 1 - (np.exp(2 * log_a) + (mean - mean_a) ** 2) / variance])


def entropy_slope(policy, parameters):
    if policy == "discrete":
        return -np.log(softmax(parameters)) - 1
    return np.concatenate([np.zeros(2), np.ones(2)])


def to_parameters(policy, parameters):
    """∂Φ/∂parameters, transposed [K, K]: the softmax's where actions are discrete."""
    if policy != "discrete":
        return np.eye(len(parameters))
    p = softmax(parameters)
    return np.diag(p) - np.outer(p, p)


def affine(layer, x):
    return x @ layer.kernel.numpy().astype(np.float64) + layer.bias.numpy()


def statistics(actor, policy, x):
    """Φ [..., K]."""
    outputs = affine(actor.layers_in_order[0], x)
    if policy == "gaussian":
        return np.concatenate([outputs, np.broadcast_to(actor.log_std.numpy(), outputs.shape)], axis=-1)
    if policy == "state_dependent":
        return outputs + np.array([0, 0, *[POLICIES[policy][1]["initial_log_std"]] * 2])
    return outputs


class Step(NamedTuple):
    """What ACER makes of one row that counts."""

    x: np.ndarray
    action: np.ndarray
    z: np.ndarray  # the projected gradient, by the parameters [K]
    bent: bool  # whether the trust region was active
    ratio: float  # ρ
    error: float  # Q^ret − Q(x, a)
    samples: np.ndarray  # u_i [n, D]


class SlowAcer:
    """One update, after Wang et al. 2017, algorithms 2 and 3."""

    def __init__(
        self,
        agent,
        policy,
        batch,
        truncation,
        trust_region,
        retrace_lambda,
        entropy_weight=0.0,
        scale=1.0,
        phi="probabilities",
    ):
        self._by_logits = phi == "logits"
        self._policy, self._critic = policy, agent.critic
        self._truncation, self._trust_region = truncation, trust_region
        self._lambda, self._entropy_weight = retrace_lambda, entropy_weight
        self.x = batch.observation.numpy().astype(np.float64)
        drawn = batch.action if policy == "discrete" else batch.policy_info["drawn_action"]
        self.actions = drawn.numpy()
        self.phi = statistics(agent.actor_network, policy, self.x)
        self.average = statistics(agent.average_network, policy, self.x)
        self.behaviour = batch.policy_info[BEHAVIOUR].numpy().astype(np.float64)
        self._judge(int(agent.train_step_counter))
        self.steps = []
        for b in range(self.x.shape[0]):
            self._trajectory(batch, b, scale)

    def _judge(self, step):
        """V and Q of every row, and for continuous actions the draws."""
        if self._policy == "discrete":
            self.q = affine(self._critic.network.layers_in_order[0], self.x)
            self.v = (softmax(self.phi) * self.q).sum(axis=-1)
            return
        count = NUM_SAMPLES + 1
        rows = np.repeat(self.phi.reshape(-1, 4), count, axis=0).astype(np.float32)
        draws = (
            heads.GaussianHead()
            .sample(tf.constant(rows), tf.constant(seeding.at(seeding.key(0, seeding.Stream.CRITIC_DRAWS), step)))
            .numpy()
        )
        self.draws = draws.reshape(*self.x.shape[:2], count, 2).astype(np.float64)
        self.v = affine(self._critic.network._value.layers_in_order[0], self.x)[..., 0]

    def _advantage(self, b, t, action):
        entry = np.concatenate([self.x[b, t], np.clip(action, -1, 1)])
        return affine(self._critic.network._advantage.layers_in_order[0], entry)[0]

    def value_of(self, b, t, action):
        """Q(x, a), or Q̃(x, a)."""
        if self._policy == "discrete":
            return self.q[b, t, action]
        of_policy = np.mean([self._advantage(b, t, u) for u in self.draws[b, t, 1:]])
        return self.v[b, t] + self._advantage(b, t, action) - of_policy

    def ratio_of(self, b, t, action):
        densities = [log_density(self._policy, phi[b, t], action) for phi in (self.phi, self.behaviour)]
        return np.exp(densities[0] - densities[1])

    def _trajectory(self, batch, b, scale):
        step_type, reached = batch.step_type.numpy()[b], batch.next_step_type.numpy()[b]
        reward, discount = scale * batch.reward.numpy()[b].astype(np.float64), batch.discount.numpy()[b]
        dimensions = 1 if self._policy == "discrete" else 2
        last = len(step_type) - 2
        for t in reversed(range(last + 1)):
            if step_type[t] == LAST:
                continue
            following = self.v[b, t + 1], self.v[b, t + 1]
            if t < last and reached[t] != LAST:
                action = self.actions[b, t + 1]
                c = self._lambda * min(1.0, self.ratio_of(b, t + 1, action) ** (1 / dimensions))
                q = self.value_of(b, t + 1, action)
                following = c * (q_ret - q) + self.v[b, t + 1], (q_opc - q) + self.v[b, t + 1]  # noqa: F821
            q_ret, q_opc = (reward[t] + GAMMA * discount[t] * value for value in following)
            self.steps.append(self._step(b, t, q_ret, q_ret if dimensions == 1 else q_opc))

    def _step(self, b, t, q_ret, q_policy):
        phi, action, c = self.phi[b, t], self.actions[b, t], self._truncation
        ratio = self.ratio_of(b, t, action)
        g = min(c, ratio) * (q_policy - self.v[b, t]) * score(self._policy, phi, action)
        others = [(self.draws[b, t, 0], 1.0)] if self._policy != "discrete" else list(enumerate(softmax(phi)))
        for other, probability in others:
            weight = probability * max(0.0, 1 - c / self.ratio_of(b, t, other))
            g = g + weight * (self.value_of(b, t, other) - self.v[b, t]) * score(self._policy, phi, other)
        g = g + self._entropy_weight * entropy_slope(self._policy, phi)
        k, jacobian = kl_slope(self._policy, self.average[b, t], phi), to_parameters(self._policy, phi)
        if self._by_logits:  # Φ are the logits: both slopes go through the softmax before the projection
            g, k, jacobian = jacobian @ g, jacobian @ k, np.eye(3)
        excess = 0.0 if self._trust_region is None else max(0.0, (k @ g - self._trust_region) / (k @ k))
        samples = None if self._policy == "discrete" else self.draws[b, t, 1:]
        error = q_ret - self.value_of(b, t, action)
        return Step(self.x[b, t], action, jacobian @ (g - excess * k), excess > 0, ratio, error, samples)

    def ascent(self):
        """Mean over the steps of what is added to the actor's kernel, bias and, if it has one, log σ at rate 1."""
        size = 2 if self._policy == "gaussian" else len(self.steps[0].z)
        kernel = np.mean([np.outer(s.x, s.z[:size]) for s in self.steps], axis=0)
        rest = [np.mean([s.z[size:] for s in self.steps], axis=0)] if self._policy == "gaussian" else []
        return {"kernel": kernel, "bias": np.mean([s.z[:size] for s in self.steps], axis=0), "log_std": rest}

    def critic_kernels(self):
        """The same for the critic's kernels: Q's, or V's and A's."""
        if self._policy == "discrete":
            return [np.mean([np.outer(s.x, s.error * np.eye(3)[s.action]) for s in self.steps], axis=0)]
        value = np.mean([s.error * (1 + min(1, s.ratio)) * s.x for s in self.steps], axis=0)
        action = [s.error * (np.clip(s.action, -1, 1) - np.clip(s.samples, -1, 1).mean(axis=0)) for s in self.steps]
        return [value[:, None], np.concatenate([np.zeros(3), np.mean(action, axis=0)])[:, None]]
