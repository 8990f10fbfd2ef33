"""State values."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ngrl.configurable import configurable
from ngrl.networks.activation import Activation
from ngrl.networks.dense_network import DenseNetwork, Trunk
from ngrl.networks.encoding import ObservationNormaliser
from ngrl.seeding import Stream


@configurable
class ValueNetwork(DenseNetwork):
    """State values: observation to encoded vector to Dense layers to one number.

    Args:
      input_tensor_spec: Spec of the observations: floats, bounded integers, or nested dicts of those.
      hidden_layers: Width of each hidden layer.
      activation: Name of the hidden layers' Keras activation.
      initial_scale: See `DenseNetwork`.
      output_scale: The last kernel's initial standard deviation times the root of its fan-in.
      normaliser: Normalises the encoded observations; None leaves them as they are.
      trunk: Makes layers to be put before the Dense ones, see `DenseNetwork`; None for none.
      seed: Seed of the initial weights.
      name: Name of the network.

    Raises:
      ValueError: An argument is out of its range.
    """

    stream = Stream.VALUE_WEIGHTS

    def __init__(
        self,
        input_tensor_spec: Any,
        hidden_layers: Sequence[int] = (64, 64),
        activation: Activation = "tanh",
        initial_scale: float = 1.0,
        output_scale: float = 1.0,
        normaliser: ObservationNormaliser | None = None,
        trunk: Trunk | None = None,
        seed: int = 0,
        name: str = "ValueNetwork",
    ):
        super().__init__(
            input_tensor_spec, 1, hidden_layers, activation, initial_scale, output_scale, normaliser, trunk, seed, name
        )

    def call(
        self, observation: Any, step_type: Any = None, network_state: Any = (), training: bool = False
    ) -> tuple[tf.Tensor, Any]:
        """State values [B] and the unchanged state, as TF-Agents' value networks give them."""
        del step_type, training
        return tf.squeeze(self._chain(observation), axis=-1), network_state
