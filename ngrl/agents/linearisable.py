"""Networks split into what has no parameters and what a curvature operator linearises."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tf_agents.networks import network, sequential

from ngrl.agents.network_check import trained_layers
from ngrl.curvature import DenseStack, LayeredNetwork, is_unchanged
from ngrl.networks import ActorNetwork, DenseNetwork, QNetwork, ValueNetwork

# A network without a trunk is its chain of layers as long as no subclass has a version of its own of what leads from
# one to the other.
_CHAINS: dict[type[DenseNetwork], tuple[str, ...]] = {
    QNetwork: ("call", "_chain"),
    ValueNetwork: ("call", "_chain"),
    ActorNetwork: ("call", "_chain", "distribution_parameters", "from_chain"),
}


def linearisable(net: network.Network) -> tuple[Callable[[Any], Any], Callable[[Any], tf.Tensor]]:
    """`encode` and `forward` with forward(encode(observation)) the outputs [B, K]; forward holds every parameter.

    `forward` is a `DenseStack` where the network is one, for which `GaussNewton` needs no tapes, and else tells of its
    layers. An actor's outputs are its distribution's parameters, a state-independent log σ as it is, before
    `ActorNetwork.bound`.

    Of a policy with a memory, `forward` takes sequences and gives [S, L·K], see `ActorNetwork.unrolled`.

    Raises:
      ValueError: A subclass of `ActorNetwork` has a `call` of its own, whose distribution's parameters nobody knows.
    """
    if isinstance(net, ActorNetwork) and type(net).call is not ActorNetwork.call:
        raise ValueError(f"{type(net).__name__} must override distribution_parameters in the place of call")
    if isinstance(net, ActorNetwork) and net.cell is not None:
        return _encode_of(net), LayeredNetwork(net.unrolled, net)
    chain = next((kind for kind in _CHAINS if _is_chain(net, kind)), None)
    stack: Callable[[Any], tf.Tensor] | None = None
    if not all(trained_layers(net)):
        pass  # a stack's layers are all trained
    elif chain is ActorNetwork and not net.is_discrete and net.log_std is None:
        pass  # the bound of a state-dependent log σ is no Dense layer
    elif chain is not None and is_unchanged(net, DenseNetwork, "dense"):
        stack = DenseStack.from_layers(net.layers_in_order, net.log_std if chain is ActorNetwork else None)
    elif type(net) is sequential.Sequential:
        # Such a network is its layers, applied in order.
        stack = _accepting(DenseStack.from_layers(net.layers), net.input_tensor_spec)
    if chain is not None:
        if stack is None:
            finish = net.from_chain if chain is ActorNetwork else _identity
            stack = LayeredNetwork(lambda encoded: finish(net.dense(encoded)), net)
        return _encode_of(net), stack
    if stack is not None:
        return _identity, stack
    if isinstance(net, ActorNetwork):
        return _identity, LayeredNetwork(net.distribution_parameters, net)
    if isinstance(net, ValueNetwork):
        return _identity, LayeredNetwork(lambda observation: net(observation)[0][:, tf.newaxis], net)
    return _identity, LayeredNetwork(lambda observation: net(observation)[0], net)


def _is_chain(net: network.Network, kind: type[DenseNetwork]) -> bool:
    return is_unchanged(net, kind, *_CHAINS[kind]) and net.trunk is None


def _accepting(stack: DenseStack | None, spec: Any) -> DenseStack | None:
    """A stack that takes inputs of this spec, of one array, or None."""
    if stack is None or not isinstance(spec, tf.TensorSpec):
        return stack
    return stack if stack.accepts(tf.TensorSpec([None, *spec.shape], spec.dtype)) else None


def _encode_of(net: Any) -> Callable[[Any], Any]:
    """The network's `encode`; encoders can be compared, so that two networks may share what they give."""
    return net.encoder if type(net).encode is DenseNetwork.encode else net.encode


def _identity(observation: Any) -> Any:
    return observation
