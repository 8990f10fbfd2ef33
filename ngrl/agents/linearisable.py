"""Networks split into what has no parameters and what a curvature operator linearises."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tf_agents.networks import network, sequential

from ngrl.curvature import DenseStack
from ngrl.networks import ActorNetwork, QNetwork, ValueNetwork

_CALLS = {QNetwork: QNetwork.call, ValueNetwork: ValueNetwork.call, ActorNetwork: ActorNetwork.call}


def linearisable(net: network.Network) -> tuple[Callable[[Any], Any], Callable[[Any], tf.Tensor]]:
    """`encode` and `forward` with forward(encode(observation)) the outputs [B, K]; forward holds every parameter.

    `forward` is a `DenseStack` where the network is one, for which `GaussNewton` needs no tapes. An actor's outputs
    are its distribution's parameters.
    """
    chain = next((kind for kind in _CALLS if isinstance(net, kind) and type(net).call is _CALLS[kind]), None)
    stack = None
    if chain is ActorNetwork and not net.is_discrete and net.log_std is None:
        pass  # the bound of a state-dependent log σ is no Dense layer
    elif chain is not None:
        stack = DenseStack.from_layers(net.layers_in_order, net.log_std if chain is ActorNetwork else None)
    elif type(net) is sequential.Sequential:
        # Such a network is its layers, applied in order.
        stack = DenseStack.from_layers(net.layers)
    if stack is not None:
        return (_identity if chain is None else net.encode), stack
    if isinstance(net, ActorNetwork):
        return _identity, net.distribution_parameters
    if isinstance(net, ValueNetwork):
        return _identity, lambda observation: net(observation)[0][:, tf.newaxis]
    return _identity, lambda observation: net(observation)[0]


def _identity(observation: Any) -> Any:
    return observation
