"""What the networks have in common: an encoded observation and a chain of Dense layers."""

from collections.abc import Sequence
from typing import Any, Literal

import tensorflow as tf
from tf_agents.networks import network

from ngrl import seeding
from ngrl.checks import check_count, check_number
from ngrl.networks.encoding import ObservationNormaliser, check_observation_spec, encode_observation, encoded_size

#: Keras' activations by name: a wrong one in a gin file is answered before TensorFlow is loaded.
Activation = Literal[
    "elu",
    "exponential",
    "gelu",
    "hard_sigmoid",
    "linear",
    "mish",
    "relu",
    "selu",
    "sigmoid",
    "softmax",
    "softplus",
    "softsign",
    "swish",
    "tanh",
]


class DenseNetwork(network.Network):
    """Observation to encoded vector to Dense layers to outputs [B, K].

    The part with parameters is `layers_in_order`, a plain chain of Dense layers, which is what the layer-wise
    products of `ngrl.curvature` need; `encode` has none.

    Args:
      input_tensor_spec: Spec of the observations: floats, bounded integers, or nested dicts of those.
      num_outputs: K.
      hidden_layers: Width of each hidden layer.
      activation: Name of the hidden layers' Keras activation.
      initial_scale: The hidden kernels' initial variance times their fan-in: 1 after LeCun et al. (1998), 2 after He
        et al. (2015).
      output_scale: The last kernel's initial standard deviation times the root of its fan-in.
      normaliser: Normalises the encoded observations; None leaves them as they are.
      seed: Seed of the initial weights.
      name: Name of the network.

    Raises:
      ValueError: An argument is out of its range.
    """

    #: Which weights of a seed a class draws: networks of one seed are to start with different ones.
    stream: seeding.Stream

    def __init__(
        self,
        input_tensor_spec: Any,
        num_outputs: int,
        hidden_layers: Sequence[int],
        activation: Activation,
        initial_scale: float,
        output_scale: float,
        normaliser: ObservationNormaliser | None,
        seed: int,
        name: str,
    ):
        super().__init__(input_tensor_spec=input_tensor_spec, state_spec=(), name=name)
        for width in (*hidden_layers, num_outputs):
            check_count("a layer's width", width)
        check_number("output_scale", output_scale, "(0, inf]")
        check_number("initial_scale", initial_scale, "(0, inf]")
        check_observation_spec(input_tensor_spec)
        if normaliser is not None and normaliser.size != encoded_size(input_tensor_spec):
            raise ValueError(
                f"the normaliser is for {normaliser.size} entries, the observations have "
                f"{encoded_size(input_tensor_spec)}"
            )
        self._normaliser = normaliser
        widths = [*hidden_layers, num_outputs]
        self.layers_in_order = [
            tf.keras.layers.Dense(
                width,
                activation=activation if layer < len(hidden_layers) else None,
                # Variance `scale` / fan-in. Fan-in alone, because observations are narrow beside hidden layers:
                # Glorot's rule would start the first layer in the linear range of its activations.
                kernel_initializer=tf.keras.initializers.VarianceScaling(
                    initial_scale if layer < len(hidden_layers) else output_scale**2,
                    "fan_in",
                    "truncated_normal",
                    seed=seeding.integer(seed, self.stream, layer),
                ),
            )
            for layer, width in enumerate(widths)
        ]

    @property
    def normaliser(self) -> ObservationNormaliser | None:
        """The observation normaliser, if there is one."""
        return self._normaliser

    def encode(self, observation: Any) -> tf.Tensor:
        """The input of the first Dense layer, [B, D]."""
        encoded = encode_observation(observation, self.input_tensor_spec)
        return encoded if self._normaliser is None else self._normaliser(encoded)

    def _chain(self, observation: Any) -> tf.Tensor:
        """Outputs [B, K] of the last layer."""
        hidden = self.encode(observation)
        for layer in self.layers_in_order:
            hidden = layer(hidden)
        return hidden
