"""Action values."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ngrl.configurable import configurable
from ngrl.networks.activation import Activation
from ngrl.networks.dense_network import DenseNetwork, Trunk
from ngrl.seeding import Stream


@configurable
class QNetwork(DenseNetwork):
    """Action values: observation to encoded vector to Dense layers to one value an action.

    Args:
      input_tensor_spec: Spec of the observations: floats, bounded integers, or nested dicts of those.
      num_actions: Number of discrete actions A.
      hidden_layers: Width of each hidden layer.
      activation: Name of the hidden layers' Keras activation.
      initial_scale: See `DenseNetwork`.
      output_scale: The last kernel's initial standard deviation times the root of its fan-in. Small values start all
        action values near 0.
      trunk: Makes layers to be put before the Dense ones, see `DenseNetwork`; None for none.
      seed: Seed of the initial weights.
      name: Name of the network.
      layer_norm: Normalise each hidden layer over its units, before the activation (Ba et al. 2016).

    Raises:
      ValueError: An argument is out of its range.
    """

    stream = Stream.Q_WEIGHTS

    def __init__(
        self,
        input_tensor_spec: Any,
        num_actions: int,
        hidden_layers: Sequence[int] = (64,),
        activation: Activation = "tanh",
        initial_scale: float = 1.0,
        output_scale: float = 1.0,
        trunk: Trunk | None = None,
        seed: int = 0,
        name: str = "QNetwork",
        layer_norm: bool = False,
    ):
        if not isinstance(num_actions, int):
            raise ValueError(f"QNetwork is for discrete actions and needs their number, got {num_actions!r}")
        super().__init__(
            input_tensor_spec,
            num_actions,
            hidden_layers,
            activation,
            initial_scale,
            output_scale,
            normaliser=None,
            trunk=trunk,
            seed=seed,
            name=name,
            layer_norm=layer_norm,
        )

    def call(
        self, observation: Any, step_type: Any = None, network_state: Any = (), training: bool = False
    ) -> tuple[tf.Tensor, Any]:
        """Action values [B, A] and the unchanged state."""
        del step_type, training
        return self._chain(observation), network_state
