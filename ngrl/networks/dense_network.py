"""What the networks have in common: an encoded observation and a chain of Dense layers."""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import tensorflow as tf
from tf_agents.networks import network

from ngrl import seeding
from ngrl.checks import check_count, check_number
from ngrl.networks.activation import Activation
from ngrl.networks.conv_network import ConvNetwork
from ngrl.networks.encoding import Encoder, ObservationNormaliser, scale_observation

#: Makes the layers that a network puts before its Dense ones, or is such a layer itself.
Trunk: TypeAlias = Callable[..., Any] | ConvNetwork


class DenseNetwork(network.Network):
    """Observation to encoded vector to Dense layers to outputs [B, K].

    The part with parameters is `layers_in_order`, a plain chain of Dense layers, which is what the layer-wise
    products of `ngrl.curvature` need; `encode` has none. With `layer_norm` there are other layers between; with a
    `trunk`, such as convolutions, what that makes of an observation takes the encoded vector's place: products then go
    layer by layer.

    Args:
      input_tensor_spec: Spec of the observations: floats, bounded integers, or nested dicts of those.
      num_outputs: K.
      hidden_layers: Width of each hidden layer.
      activation: Name of the hidden layers' Keras activation.
      initial_scale: The hidden kernels' initial variance times their fan-in: 1 after LeCun et al. (1998), 2 after He
        et al. (2015).
      output_scale: The last kernel's initial standard deviation times the root of its fan-in.
      normaliser: Normalises the encoded observations; None leaves them as they are.
      trunk: A `ConvNetwork`, or a function that makes a Keras layer or model: called with observations [B, ...], scaled
        as `scale_observation` says, it gives what is flattened for the first Dense layer. A layer itself will do where
        no second network is made like this one. None for none.
      seed: Seed of the initial weights; those of a trunk of your own are your own.
      name: Name of the network.
      layer_norm: Normalise each hidden layer over its units, before the activation (Ba et al. 2016).

    Raises:
      ValueError: An argument is out of its range, or a trunk has a normaliser beside it.
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
        trunk: Trunk | None,
        seed: int,
        name: str,
        layer_norm: bool = False,
    ):
        super().__init__(input_tensor_spec=input_tensor_spec, state_spec=(), name=name)
        for width in hidden_layers:
            check_count("a width of hidden_layers", width)
        check_count("num_outputs", num_outputs)
        check_number("output_scale", output_scale, "(0, inf)")
        check_number("initial_scale", initial_scale, "(0, inf)")
        #: Makes vectors of observations; None with a trunk.
        self.encoder = Encoder(input_tensor_spec, normaliser) if trunk is None else None
        #: The layers before the Dense ones, if there are any.
        self.trunk: Any = None if trunk is None else self._made(trunk, normaliser, seed)
        self._normaliser = normaliser
        widths = [*hidden_layers, num_outputs]
        kernels = [
            tf.keras.layers.Dense(
                width,
                activation=activation if layer < len(hidden_layers) and not layer_norm else None,
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
        self.layers_in_order: list[Any] = kernels if not layer_norm else _with_norms(kernels, activation)

    @property
    def normaliser(self) -> ObservationNormaliser | None:
        """The observation normaliser, if there is one."""
        return self._normaliser

    def encode(self, observation: Any) -> tf.Tensor:
        """The input of the first Dense layer [B, D]."""
        if self.encoder is not None:
            return self.encoder(observation)
        return self._features(observation)

    @property
    def _trunk_spec(self) -> Any:
        """Spec of what the trunk is for."""
        return self.input_tensor_spec

    def _features(self, observation: Any) -> tf.Tensor:
        """What the trunk makes of observations of its spec [B, D]."""
        features = self.trunk(scale_observation(observation, self._trunk_spec))
        return tf.reshape(features, [-1, math.prod(features.shape[1:])])

    def dense(self, encoded: tf.Tensor) -> tf.Tensor:
        """Outputs [B, K] of the last Dense layer for the input of the first [B, D]."""
        for layer in self.layers_in_order:
            encoded = layer(encoded)
        return encoded

    def _chain(self, observation: Any) -> tf.Tensor:
        """Outputs [B, K] of the last layer."""
        return self.dense(self.encode(observation))

    def _made(self, trunk: Trunk, normaliser: ObservationNormaliser | None, seed: int) -> tf.keras.layers.Layer:
        if normaliser is not None:
            raise ValueError(f"{self.name}: a trunk takes observations that are not normalised: set normaliser to None")
        made = trunk if isinstance(trunk, tf.keras.layers.Layer | ConvNetwork) else trunk()
        if isinstance(made, ConvNetwork):
            return made.make(self.name, self._trunk_spec, seed, self.stream)
        if not isinstance(made, tf.keras.layers.Layer):
            raise ValueError(f"{self.name}: trunk must make a Keras layer or model, got {made!r}")
        return made


def _with_norms(kernels: Sequence[Any], activation: Activation) -> list[Any]:
    """The layers with a normalisation and the activation after each but the last."""
    layers = tf.keras.layers
    found: list[Any] = []
    for kernel in kernels[:-1]:
        found += [kernel, layers.LayerNormalization(epsilon=1e-5), layers.Activation(activation)]
    return [*found, kernels[-1]]
