"""Multi-layer perceptrons over flattened observations."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tf_agents.networks import network
from tf_agents.specs import tensor_spec

_MOST_DISCRETE_VALUES = 1024


def _check_observation_spec(spec: Any) -> None:
    for leaf in tf.nest.flatten(spec):
        if leaf.dtype.is_floating:
            continue
        if not tensor_spec.is_bounded(leaf):
            raise ValueError(f"a discrete observation needs bounds, got {leaf}")
        values = int(leaf.maximum.max()) - int(leaf.minimum.min()) + 1
        if values > _MOST_DISCRETE_VALUES:
            raise ValueError(
                f"an integer observation of {values} values is too wide for one-hot encoding "
                f"(at most {_MOST_DISCRETE_VALUES}): convert it to floats in the environment"
            )


def encode_observation(observation: Any, spec: Any) -> tf.Tensor:
    """Observations [B, ...] as one matrix [B, D] of float32.

    Floats are flattened, bounded integers become one-hot vectors, the parts of a Dict are concatenated in the order
    of their sorted keys.
    """
    parts = []
    for leaf, leaf_spec in zip(tf.nest.flatten(observation), tf.nest.flatten(spec), strict=True):
        if not leaf_spec.dtype.is_floating:
            low, high = int(leaf_spec.minimum.min()), int(leaf_spec.maximum.max())
            leaf = tf.one_hot(leaf - low, high - low + 1)
        size = 1
        for dimension in leaf.shape[1:]:
            size *= dimension
        parts.append(tf.reshape(tf.cast(leaf, tf.float32), [-1, size]))
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=1)


class QNetwork(network.Network):
    """Action values: observation to encoded vector to Dense layers to one value an action.

    The part with parameters is `layers_in_order`, a plain chain of Dense layers, which is what the layer-wise Gram
    matrix of `ngrl.curvature` needs; `encode` has none.

    Args:
      input_tensor_spec: Spec of the observations: floats, bounded integers, or nested dicts of those.
      num_actions: Number of discrete actions A.
      hidden_layers: Width of each hidden layer.
      activation: Name of the hidden layers' Keras activation.
      initial_scale: The hidden kernels' initial variance times their fan-in: 1 after LeCun et al. (1998), 2 after He
        et al. (2015).
      output_scale: The last kernel's initial standard deviation times the root of its fan-in. Small values start all
        action values near 0.
      seed: Seed of the initial weights.
      name: Name of the network.

    Raises:
      ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        input_tensor_spec: Any,
        num_actions: int,
        hidden_layers: Sequence[int] = (64,),
        activation: str = "tanh",
        initial_scale: float = 1.0,
        output_scale: float = 1.0,
        seed: int = 0,
        name: str = "QNetwork",
    ):
        super().__init__(input_tensor_spec=input_tensor_spec, state_spec=(), name=name)
        if num_actions < 1 or any(width < 1 for width in hidden_layers):
            raise ValueError(f"widths must be positive, got {tuple(hidden_layers)} and {num_actions} actions")
        if not output_scale > 0 or not initial_scale > 0:
            raise ValueError(f"output_scale and initial_scale must be positive, got {output_scale}, {initial_scale}")
        _check_observation_spec(input_tensor_spec)
        widths = [*hidden_layers, num_actions]
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
                    seed=seed * 1000 + layer,
                ),
            )
            for layer, width in enumerate(widths)
        ]

    def encode(self, observation: Any) -> tf.Tensor:
        """The input of the first Dense layer, [B, D]."""
        return encode_observation(observation, self.input_tensor_spec)

    def call(
        self, observation: Any, step_type: Any = None, network_state: Any = (), training: bool = False
    ) -> tuple[tf.Tensor, Any]:
        """Action values [B, A] and the unchanged state."""
        del step_type, training
        hidden = self.encode(observation)
        for layer in self.layers_in_order:
            hidden = layer(hidden)
        return hidden, network_state
