"""The stochastic dueling network: state values and advantages of continuous actions."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ngrl.checks import check_count
from ngrl.configurable import configurable
from ngrl.networks.activation import Activation
from ngrl.networks.actor_network import is_discrete_action
from ngrl.networks.dense_network import Trunk
from ngrl.networks.value_network import ValueNetwork
from ngrl.seeding import Stream


class _Value(ValueNetwork):
    stream = Stream.DUELING_VALUE_WEIGHTS


class _Advantage(ValueNetwork):
    stream = Stream.DUELING_ADVANTAGE_WEIGHTS

    @property
    def _trunk_spec(self) -> Any:
        return self.input_tensor_spec[0]

    def encode(self, observation: Any) -> tf.Tensor:
        """Of states and actions: a trunk is for the states [B, D]."""
        if self.trunk is None:
            return super().encode(observation)
        state, action = observation
        return tf.concat([self._features(state), action], axis=1)


@configurable
class StochasticDuelingNetwork(tf.Module):
    """V(x) and A(x, a), from which `Q̃(x, a) = V(x) + A(x, a) − (1/n) Σ A(x, u_i)` (Wang et al. 2017, section 5.1).

    V and A are networks of their own. Actions count as the environment takes them, clipped to its bounds: beyond
    these A would have to learn to be flat.

    Args:
      input_tensor_spec: Spec of the observations: floats, bounded integers, or nested dicts of those.
      action_spec: One vector of real numbers.
      hidden_layers: Width of each hidden layer, of V and of A.
      activation: Name of the hidden layers' Keras activation.
      initial_scale: The hidden kernels' initial variance times their fan-in, as in `DenseNetwork`.
      output_scale: The last kernels' initial standard deviation times the root of their fan-in.
      trunk: Makes layers to be put before the Dense ones, those of V and those of A, see `DenseNetwork`; None for none.
      num_samples: n, draws from the policy over which A is averaged.
      seed: Seed of the initial weights.
      name: Name of the network.

    Raises:
      ValueError: The actions are discrete, or an argument is out of its range.
    """

    def __init__(
        self,
        input_tensor_spec: Any,
        action_spec: Any,
        hidden_layers: Sequence[int] = (64, 64),
        activation: Activation = "tanh",
        initial_scale: float = 1.0,
        output_scale: float = 1.0,
        trunk: Trunk | None = None,
        num_samples: int = 5,
        seed: int = 0,
        name: str = "StochasticDuelingNetwork",
    ):
        super().__init__(name=name)
        # A number stands for that many discrete actions, as in `QNetwork`.
        if isinstance(action_spec, int) or is_discrete_action(action_spec):
            raise ValueError("StochasticDuelingNetwork is for continuous actions, the environment's are discrete")
        check_count("num_samples", num_samples)
        self.num_samples = num_samples
        self.num_dimensions = int(tf.nest.flatten(action_spec)[0].shape[0])
        self._bounds = tf.nest.flatten(action_spec)[0]
        shared = (hidden_layers, activation, initial_scale, output_scale)
        made: dict[str, Any] = {"trunk": trunk, "seed": seed}
        self._value = _Value(input_tensor_spec, *shared, **made, name="value")
        self._advantage = _Advantage((input_tensor_spec, self._bounds), *shared, **made, name="advantage")
        self._value.create_variables()
        self._advantage.create_variables()

    def value(self, observation: Any) -> tf.Tensor:
        """V [N] of observations [N, ...]."""
        return self._value(observation)[0]

    def advantages(self, observation: Any, actions: tf.Tensor) -> tf.Tensor:
        """A [N, J] of observations [N, ...] and J actions each [N, J, D]."""
        count = actions.shape[1]
        flat = tf.reshape(actions, [-1, actions.shape[-1]])
        taken = tf.clip_by_value(flat, self._bounds.minimum, self._bounds.maximum)
        repeated = tf.nest.map_structure(lambda leaf: tf.repeat(leaf, count, axis=0), observation)
        return tf.reshape(self._advantage((repeated, taken))[0], [-1, count])
