"""A policy of Dense layers in NumPy: for few observations a call of TensorFlow costs more than the numbers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ngrl import seeding
from ngrl.agents.heads import head_for
from ngrl.networks import ActorNetwork, action_choices, action_size

_ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "tanh": np.tanh,
    "relu": lambda z, out: np.maximum(z, 0, out=out),
    "linear": lambda z, out: out,
}


class HostPolicy:
    """Samples actions as `OnPolicyAgent.act` does, on the host: the same draws, the distribution to float32's rounding.

    Args:
      network: The policy's network, built.
      action_spec: Spec of the actions.
      key: The stream of the actions' draws [2].
      shape: T and N; the noise of T steps of N environments is drawn in one call.
      compiled: Makes of a graph's function one that takes arrays.

    Raises:
      ValueError: The network isn't one that this class knows, in one line.
    """

    def __init__(
        self,
        network: ActorNetwork,
        action_spec: Any,
        key: np.ndarray,
        shape: tuple[int, int],
        compiled: Callable[[Callable[..., Any]], Callable[..., Any]],
    ):
        _check(network)
        self._network = network
        self._spec = tf.nest.flatten(action_spec)[0]
        self._dtype = self._spec.dtype.as_numpy_dtype
        self._key, self._steps = key, shape[0]
        self._shape = [shape[1], action_size(action_spec)]
        self._ends = np.cumsum(action_choices(action_spec) or ())[:-1]  # of each discrete action's logits but the last
        self._head = head_for(action_spec)
        self._draw = compiled(self._noise_graph)
        self._noise: np.ndarray | None = None
        self._first = 0
        self.forget()

    def forget(self) -> None:
        """Read the weights anew before the next action: they may have changed."""
        self._layers: list[tuple[np.ndarray, np.ndarray, Callable[..., Any]]] | None = None

    def __call__(self, observation: np.ndarray, call: int) -> tuple[np.ndarray, ...]:
        """Actions [N, ...] of draw number `call`, from 1, for observations [N, ...]; continuous ones also as drawn."""
        if self._layers is None:
            self._read()
        self.prepare(call)
        assert self._noise is not None
        outputs = self._outputs(observation)
        noise = self._noise[call - self._first]
        if self._network.is_discrete:
            scores = outputs - noise
            if self._spec.shape.rank:
                chosen = np.stack([part.argmax(axis=1) for part in np.split(scores, self._ends, axis=1)], axis=1)
            else:
                chosen = scores.argmax(axis=1)
            return (chosen.astype(self._dtype, copy=False),)
        drawn = outputs + self._std * noise
        return np.minimum(np.maximum(drawn, self._spec.minimum), self._spec.maximum), drawn

    def prepare(self, call: int) -> None:
        """Draw the noise of the T steps from a draw number, unless it is there."""
        if self._noise is None or not 0 <= call - self._first < self._steps:
            self._first = call
            self._noise = self._draw(np.int32(call), self._key).numpy()

    def _outputs(self, observation: np.ndarray) -> np.ndarray:
        """Of the last Dense layer [N, K]."""
        hidden = observation.reshape(len(observation), -1)
        if self._scale is not None:
            mean, deviation, clip = self._scale
            scaled = (hidden - mean) / deviation
            hidden = np.minimum(np.maximum(scaled, -clip), clip).astype(np.float32)
        for kernel, bias, activate in self._layers or ():
            z = hidden @ kernel
            z += bias
            hidden = activate(z, out=z)
        return hidden

    def _read(self) -> None:
        network = self._network
        self._layers = [
            (layer.kernel.numpy(), layer.bias.numpy(), _ACTIVATIONS[layer.activation.__name__])
            for layer in network.layers_in_order
        ]
        self._scale = None if network.normaliser is None else network.normaliser.on_host()
        if network.log_std is not None:
            parameters = network.from_chain(tf.zeros([1, network.log_std.shape[0]]))
            self._std = np.exp(np.split(parameters.numpy(), 2, axis=1)[1])

    def _noise_graph(self, first: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        """What the head adds to the parameters in T draws [T, N, ...]."""
        noise = tf.TensorArray(tf.float32, self._steps, element_shape=self._shape)

        def body(step: tf.Tensor, noise: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            drawn = self._head.noise(self._shape, tf.float32, seeding.at(key, first + step))
            return step + 1, noise.write(step, drawn)

        return tf.while_loop(lambda step, _: step < self._steps, body, (tf.constant(0), noise))[1].stack()


def _check(network: Any) -> None:
    reason = None
    spec = tf.nest.flatten(network.input_tensor_spec)
    if type(network) is not ActorNetwork or network.trunk is not None or network.cell is not None:
        reason = "a policy that is an ActorNetwork without a trunk and a memory"
    elif tf.nest.is_nested(network.input_tensor_spec) or not spec[0].dtype.is_floating:
        reason = "observations that are one array of floats"
    elif not network.is_discrete and network.log_std is None:
        reason = "discrete actions and a state-independent σ"
    elif any(layer.activation.__name__ not in _ACTIVATIONS for layer in network.layers_in_order):
        reason = f"the activations {', '.join(_ACTIVATIONS)}"
    if reason is not None:
        raise ValueError(f"OnPolicyLoop.act_on_host is for {reason}: set it to False")
