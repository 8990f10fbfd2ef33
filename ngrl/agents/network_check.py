"""Which networks agents train, and what of a network's own losses counts."""

from typing import Any

import tensorflow as tf
from tf_agents.networks import network

from ngrl.agents.steps import Penalty, is_natural
from ngrl.curvature import check_network, describe_layer, layers_of
from ngrl.networks import ActorNetwork, ObservationNormaliser, action_choices, describe_actions
from ngrl.optimizers import check_penalised


def check_kind(owner: str, net: Any) -> None:
    """Refuse what is no TF-Agents network, before it is built.

    Raises:
      ValueError: It is none; the message of a Keras model says how to make it one.
    """
    if not isinstance(net, network.Network):
        keras = isinstance(net, tf.keras.layers.Layer)
        hint = ": wrap it in tf_agents.networks.sequential.Sequential([...])" if keras else ""
        raise ValueError(f"{owner}: the network must be a TF-Agents network, got {type(net).__name__}{hint}")


def check_trainable(owner: str, net: Any, natural: bool, carries_state: bool = False) -> None:
    """Refuse a built network that an agent would train as another one than it is.

    Args:
      owner: Who trains it, for the message.
      net: A TF-Agents network, or a module of them.
      natural: Whether it is trained by natural steps.
      carries_state: Whether the owner carries the network's state from step to step, and trains it on sequences.

    Raises:
      ValueError: It has no weights to train or others than float32, has a state that nobody carries, adds losses in
        its call, or holds what `ngrl.curvature.check_network` refuses.
    """
    dtypes = {weight.dtype.name for weight in net.trainable_variables}
    if dtypes != {"float32"}:
        found = f"weights of {', '.join(sorted(dtypes))}" if dtypes else "no weights to train"
        raise ValueError(f"{owner}: network {net.name!r} has {found}, and agents train float32 ones")
    for part in (net, *net.submodules):
        # Keras' recurrent layers have a `state_spec` too, and begin anew in every call unless they are stateful.
        if not carries_state and isinstance(part, network.Network) and tf.nest.flatten(part.state_spec):
            raise ValueError(
                f"{owner}: network {part.name!r} is recurrent, and its state would be lost in training: stack "
                "observations in the environment (Environment.frame_stack), or take REINFORCE, NPG, TRPO or PPO, which "
                "carry that of ActorNetwork.recurrent"
            )
    try:
        check_network(net, natural=natural)
    except ValueError as error:
        raise ValueError(f"{owner}: {error}") from None
    for layer in layers_of(net):
        # Keras keeps there what `add_loss` was given in the layer's latest call; regularisers of weights are elsewhere.
        called = getattr(layer, "_eager_losses", None) or getattr(layer, "_losses", None)
        if called or getattr(layer, "activity_regularizer", None) is not None:
            raise ValueError(
                f"{owner}: {describe_layer(layer)} adds a loss in its call, which would not count: regularise its "
                "weights, or its outputs in the agent's loss"
            )


def check_actions(owner: str, actor: ActorNetwork, action_spec: Any) -> None:
    """Refuse a policy that is for other actions than the environment's.

    Raises:
      ValueError: It is no `ActorNetwork`, or for more or fewer actions, longer or shorter vectors, or the other kind.
    """
    if not isinstance(actor, ActorNetwork):
        raise ValueError(f"{owner}: the policy's network must be an ngrl.networks.ActorNetwork, got {actor!r}")
    kinds = [(action_choices(spec), tuple(tf.nest.flatten(spec)[0].shape)) for spec in (actor.action_spec, action_spec)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"{owner}: the policy's network is for {describe_actions(actor.action_spec)}, the environment has "
            f"{describe_actions(action_spec)}"
        )


def check_normaliser(owner: str, noun: str, normaliser: ObservationNormaliser | None) -> None:
    """Refuse a normaliser that the agent doesn't update where it has seen nothing: it would change nothing.

    Raises:
      ValueError: It has seen nothing.
    """
    if normaliser is not None and normaliser.moments.count == 0:
        raise ValueError(
            f"{owner}: {noun}'s normaliser has seen no observation, and only that of an on-policy agent's policy is "
            "updated: set normaliser to None, or call its update first"
        )


def check_action_values(owner: str, net: network.Network, observation_spec: Any, num_actions: int) -> None:
    """Refuse a network whose output is not one value for each action.

    Raises:
      ValueError: It is of another shape.
    """
    output_spec = net.create_variables(observation_spec)
    if tuple(output_spec.shape) != (num_actions,):
        raise ValueError(
            f"{owner}: the Q-network's output has shape {tuple(output_spec.shape)}, the environment {num_actions} "
            "actions"
        )


def penalty_of(owner: str, net: Any, optimizer: tf.keras.optimizers.Optimizer) -> Penalty | None:
    """The sum of a network's regularisers at its present weights, or None if it has none.

    Raises:
      ValueError: The optimizer can't count them.
    """
    if not net.losses:
        return None
    if is_natural(optimizer):
        try:
            check_penalised(optimizer)
        except ValueError as error:
            raise ValueError(f"{owner}: {error}") from None
    return lambda: tf.add_n([tf.convert_to_tensor(part) for part in net.losses])


def check_unpenalised(owner: str, net: Any) -> None:
    """Refuse regularisers, where the loss is one of which only the gradient is known, or only its way up.

    Raises:
      ValueError: A layer has one.
    """
    for layer in layers_of(net):
        if layer.losses and not any(part.losses for part in layers_of(layer)[1:]):
            raise ValueError(
                f"{owner}: {describe_layer(layer)} has a regulariser, which a policy's loss doesn't count: remove it "
                "(an entropy_weight keeps a policy from growing sure of itself)"
            )


def check_separate(owner: str, first: str, one: Any, second: str, other: Any) -> None:
    """Refuse two networks that share variables.

    Raises:
      ValueError: So they do; the message names one.
    """
    owned = {variable.ref() for variable in one.trainable_variables}
    shared = [variable.name for variable in other.trainable_variables if variable.ref() in owned]
    if shared:
        raise ValueError(
            f"{owner}: {second} shares {shared[0]!r} with {first}, and must have variables of its own (a network that "
            "is handed its layers gives them to its copies: let it make them)"
        )


def freeze_alike(net: Any, copy: Any) -> None:
    """Freeze the layers of a copy that are frozen in the network: Keras lists those that are trained first."""
    for layer, other in zip(layers_of(net), layers_of(copy), strict=False):
        other.trainable = layer.trainable


def trained_layers(net: Any) -> list[bool]:
    """Which of a network's layers with weights are trained, without those that are made of layers."""
    return [layer.trainable for layer in layers_of(net) if layer.weights and len(layers_of(layer)) == 1]
