"""Policies: distributions over actions."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from ngrl.checks import check_choice
from ngrl.configurable import configurable
from ngrl.messages import shortened
from ngrl.networks.activation import Activation
from ngrl.networks.dense_network import DenseNetwork, Trunk
from ngrl.networks.encoding import ObservationNormaliser, encoded_size
from ngrl.networks.memory import MemoryInputs, make_cell
from ngrl.seeding import Stream
from ngrl.specs import holds_quantities


def num_discrete_actions(action_spec: Any) -> int | None:
    """A, where the spec is one discrete action counted from 0; None for any other."""
    flat = tf.nest.flatten(action_spec)
    discrete = len(flat) == 1 and flat[0].shape.rank == 0 and flat[0].dtype.is_integer
    if discrete and tensor_spec.is_bounded(flat[0]) and flat[0].minimum == 0:
        return int(flat[0].maximum) + 1
    return None


def describe_actions(action_spec: Any) -> str:
    """Actions in a few words, for messages that no array of bounds is to make long."""
    flat = tf.nest.flatten(action_spec)
    if len(flat) != 1:
        return f"{len(flat)} actions"
    kind = f"actions of shape {tuple(flat[0].shape)} and dtype {flat[0].dtype.name}"
    if flat[0].shape.rank == 1 and flat[0].dtype.is_integer and tensor_spec.is_bounded(flat[0]):
        first, last = (np.broadcast_to(bound, flat[0].shape) for bound in (flat[0].minimum, flat[0].maximum))
        return f"{kind}, {shortened([f'{low} to {high}' for low, high in zip(first, last, strict=True)])}"
    if flat[0].shape.rank or not tensor_spec.is_bounded(flat[0]):
        return kind
    return f"{kind} from {flat[0].minimum} to {flat[0].maximum}"


def action_choices(action_spec: Any) -> tuple[int, ...] | None:
    """A of one discrete action, A_1 to A_n of a vector of n, counted from 0; None for one vector of real numbers.

    Raises:
      ValueError: The spec is neither.
    """
    flat = tf.nest.flatten(action_spec)
    if len(flat) == 1 and flat[0].dtype.is_floating and flat[0].shape.rank == 1:
        return None
    if len(flat) == 1 and flat[0].dtype.is_integer and flat[0].shape.rank in (0, 1) and tensor_spec.is_bounded(flat[0]):
        first, last = (
            np.broadcast_to(bound, flat[0].shape).reshape(-1) for bound in (flat[0].minimum, flat[0].maximum)
        )
        if last.size and not first.any() and not (flat[0].shape.rank and holds_quantities(flat[0])):
            return tuple(int(number) + 1 for number in last)
    raise ValueError(
        "a policy needs discrete actions counted from 0 or one vector of real numbers, the environment has "
        f"{describe_actions(action_spec)}"
    )


def action_size(action_spec: Any) -> int:
    """A of one discrete action, the sum of several, D of one vector of real numbers: what a policy has outputs for.

    Raises:
      ValueError: It is neither.
    """
    choices = action_choices(action_spec)
    return int(tf.nest.flatten(action_spec)[0].shape[0]) if choices is None else sum(choices)


def is_discrete_action(action_spec: Any) -> bool:
    """Whether the spec is of discrete actions counted from 0 (True) or one vector of real numbers (False).

    Raises:
      ValueError: It is neither.
    """
    return action_choices(action_spec) is not None


@configurable
class ActorNetwork(DenseNetwork):
    """A stochastic policy: a categorical distribution over A actions, several of these, or D independent Gaussians.

    `distribution_parameters` gives logits [B, A], those of several discrete actions side by side [B, A_1 + … + A_n], or
    μ and log σ side by side [B, 2D]. Called as TF-Agents calls its
    actor networks it gives a TensorFlow Probability distribution. A Gaussian is not squashed: actions beyond the
    environment's bounds are clipped on their way there, and count as they were drawn.

    log σ never falls below `min_log_std`, so that log-probabilities stay finite. Where a state-independent log σ has
    been trained beyond this bound, `project` sets it back onto it, which does not change the policy but lets
    gradients move it again. A state-dependent one has no gradient in the states where it lies below the bound.

    Args:
      input_tensor_spec: Spec of the observations: floats, bounded integers, or nested dicts of those.
      action_spec: One discrete action counted from 0, one vector of these, or one vector of real numbers.
      hidden_layers: Width of each hidden layer.
      activation: Name of the hidden layers' Keras activation.
      initial_scale: See `DenseNetwork`.
      output_scale: The last kernel's initial standard deviation times the root of its fan-in. Small values start
        with nearly equal actions, or means near 0.
      std: For continuous actions: "state_independent", a vector of parameters (the default), or "state_dependent",
        outputs of the network.
      initial_log_std: Initial log σ, for continuous actions; 0 by default.
      min_log_std: Lower bound of log σ.
      normaliser: Normalises the encoded observations; None leaves them as they are.
      trunk: Makes layers to be put before the Dense ones, see `DenseNetwork`; None for none.
      seed: Seed of the initial weights.
      name: Name of the network.
      recurrent: H, the numbers that a GRU between the encoded observation and the Dense layers remembers; None for
        none. Its state is TF-Agents' network state [B, H], which whoever acts carries; it counts as 0 at the first step
        of an episode.

    Raises:
      ValueError: An argument is out of its range or belongs to the other kind of action, or a trunk has a memory behind
        it.
    """

    stream = Stream.ACTOR_WEIGHTS

    def __init__(
        self,
        input_tensor_spec: Any,
        action_spec: Any,
        hidden_layers: Sequence[int] = (64, 64),
        activation: Activation = "tanh",
        initial_scale: float = 1.0,
        output_scale: float = 0.01,
        std: Literal["state_independent", "state_dependent"] | None = None,
        initial_log_std: float | None = None,
        min_log_std: float = -5.0,
        normaliser: ObservationNormaliser | None = None,
        trunk: Trunk | None = None,
        seed: int = 0,
        name: str = "ActorNetwork",
        recurrent: int | None = None,
    ):
        if recurrent is not None and trunk is not None:
            raise ValueError(f"{name}: recurrent is for encoded observations, without a trunk: set one of both to None")
        discrete = is_discrete_action(action_spec)
        if discrete and (std is not None or initial_log_std is not None):
            raise ValueError("std and initial_log_std are for continuous actions; the environment's are discrete")
        if std is not None:
            check_choice("std", std, ("state_independent", "state_dependent"))
        log_std = 0.0 if initial_log_std is None else float(initial_log_std)
        if not math.isfinite(min_log_std) or not math.isfinite(log_std) or log_std < min_log_std:
            raise ValueError(f"initial_log_std ({log_std}) must be finite and not below min_log_std ({min_log_std})")
        size = action_size(action_spec)
        in_chain = not discrete and std == "state_dependent"
        super().__init__(
            input_tensor_spec,
            2 * size if in_chain else size,
            hidden_layers,
            activation,
            initial_scale,
            output_scale,
            normaliser,
            trunk,
            seed,
            name,
        )
        #: The GRU, if there is one.
        self.cell = None if recurrent is None else make_cell(recurrent, seed, self.stream)
        if recurrent is not None:
            self._state_spec = tensor_spec.TensorSpec([recurrent], tf.float32, name="memory")
        self._action_spec = action_spec
        self._is_discrete = discrete
        self._initial_log_std = log_std
        self._min_log_std = float(min_log_std)
        self._log_std: tf.Variable | None = None
        if not discrete and not in_chain:
            self._log_std = tf.Variable(tf.fill([size], log_std), name="log_std")

    @property
    def is_discrete(self) -> bool:
        """Whether actions are discrete."""
        return self._is_discrete

    @property
    def action_spec(self) -> Any:
        """Spec of the actions that it is for."""
        return self._action_spec

    @property
    def log_std(self) -> tf.Variable | None:
        """The state-independent log σ [D], if the policy has one."""
        return self._log_std

    @property
    def critic_spec(self) -> Any:
        """Spec of what a critic beside this policy sees: observations, or encoded ones and h side by side [D + H]."""
        if self.cell is None:
            return self.input_tensor_spec
        return tensor_spec.TensorSpec([encoded_size(self.input_tensor_spec) + self.cell.units], tf.float32)

    def distribution_parameters(self, observation: Any) -> tf.Tensor:
        """Logits [B, A], or μ and log σ [B, 2D], for observations [B, ...]; with a memory, those of first steps."""
        if self.cell is None:
            return self.from_chain(self._chain(observation))
        return self._after(observation, None, ())[0]

    def remember(self, inputs: MemoryInputs) -> tf.Tensor:
        """What the GRU remembers after one step of each, h [N, H]."""
        assert self.cell is not None
        before = tf.where(inputs.is_first[:, tf.newaxis], tf.zeros_like(inputs.memory), inputs.memory)
        return self.cell(inputs.encoded, before)[0]

    def from_memory(self, memory: tf.Tensor) -> tf.Tensor:
        """The distribution's parameters from what is remembered after a step, [..., K] from [..., H]."""
        return self.from_chain(self.dense(memory))

    def unrolled(self, sequences: MemoryInputs) -> tf.Tensor:
        """The distribution's parameters of L steps in a row side by side, [S, L·K] from sequences [S, L, ...].

        What is remembered before the first step is a constant, and each later one follows from the weights.
        """
        memory, remembered = sequences.memory[:, 0], []
        for step in range(sequences.is_first.shape[1]):
            encoded, is_first = sequences.encoded[:, step], sequences.is_first[:, step]
            memory = self.remember(MemoryInputs(encoded, is_first, memory))
            remembered.append(memory)
        parameters = self.from_memory(tf.stack(remembered, axis=1))
        return tf.reshape(parameters, [-1, parameters.shape[1] * parameters.shape[2]])

    def from_chain(self, outputs: tf.Tensor) -> tf.Tensor:
        """The distribution's parameters from the last layer's outputs [..., A], [..., D] or [..., 2D]."""
        if self._is_discrete:
            return outputs
        if self._log_std is not None:
            mean = outputs
            log_std = self._log_std + tf.zeros_like(mean)
        else:
            mean, log_std = tf.split(outputs, 2, axis=-1)
            log_std = log_std + self._initial_log_std
        return self.bound(tf.concat([mean, log_std], axis=-1))

    def bound(self, parameters: tf.Tensor) -> tf.Tensor:
        """Distribution parameters [B, A] or [B, 2D] with log σ kept from falling below its bound."""
        if self._is_discrete:
            return parameters
        mean, log_std = tf.split(parameters, 2, axis=-1)
        return tf.concat([mean, tf.maximum(log_std, self._min_log_std)], axis=-1)

    def project(self) -> None:
        """Set a state-independent log σ that lies below its bound onto the bound. The policy stays the same."""
        if self._log_std is not None:
            self._log_std.assign(tf.maximum(self._log_std, self._min_log_std))

    def call(
        self, observation: Any, step_type: Any = None, network_state: Any = (), training: bool = False
    ) -> tuple[Any, Any]:
        """The distribution of actions, batch shape [B], and the state, unchanged without a memory."""
        del training
        if self.cell is None:
            return self.distribution(self.distribution_parameters(observation)), network_state
        parameters, memory = self._after(observation, step_type, network_state)
        return self.distribution(parameters), memory

    def _after(self, observation: Any, step_type: Any, memory: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """The distribution's parameters, and h [B, H] after a step; where h before it is () or None, it is 0."""
        encoded = self.encode(observation)
        is_first = tf.zeros(tf.shape(encoded)[:1], tf.bool)
        if memory is None or isinstance(memory, tuple):
            memory = self.get_initial_state(tf.shape(encoded)[0])
        elif step_type is not None:
            is_first = tf.equal(step_type, ts.StepType.FIRST)
        memory = self.remember(MemoryInputs(encoded, is_first, memory))
        return self.from_memory(memory), memory

    def distribution(self, parameters: tf.Tensor) -> tfp.distributions.Distribution:
        """The distribution, batch shape [B], with these parameters."""
        if self._is_discrete:
            spec, choices = tf.nest.flatten(self._action_spec)[0], action_choices(self._action_spec)
            if spec.shape.rank == 0:
                return tfp.distributions.Categorical(logits=parameters, dtype=spec.dtype)
            assert choices is not None
            parts, most = tf.split(parameters, choices, axis=-1), max(choices)
            filled = [  # to equal lengths, by actions of probability 0
                tf.pad(part, [[0, 0], [0, most - part.shape[-1]]], constant_values=-np.inf) for part in parts
            ]
            several = tfp.distributions.Categorical(logits=tf.stack(filled, axis=1), dtype=spec.dtype)
            return tfp.distributions.Independent(several, 1)
        mean, log_std = tf.split(parameters, 2, axis=-1)
        return tfp.distributions.MultivariateNormalDiag(mean, tf.exp(log_std))
