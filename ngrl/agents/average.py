"""An average of a network over its updates, which is evaluated and exported in the network's place."""

from typing import Any

import tensorflow as tf
from tf_agents.networks import network

from ngrl.agents.network_check import check_separate, check_trainable, trained_layers
from ngrl.agents.target_update import TargetUpdate, check_follower, follow_update


class Average(tf.Module):
    """A network that follows another one through its updates.

    The mean of many iterates of a noisy optimization lies nearer to what they scatter around than the last of them
    (Polyak & Juditsky 1992).

    Args:
      owner: The agent, for messages.
      noun: What is averaged, for messages.
      online: The network that is trained.
      average: Becomes the average: a network like it, with the same normaliser; its weights are set to the other's.
      update: How it follows after each update that was not skipped as a whole.
      observation_spec: Spec of what both take.
      natural: Whether the network is trained by natural steps.

    Raises:
      ValueError: The average's weights are not of the network's shapes, or are the network's own; or no average
        follows by that rule.
    """

    def __init__(
        self,
        owner: str,
        noun: str,
        online: network.Network,
        average: network.Network,
        update: TargetUpdate,
        observation_spec: Any,
        natural: bool,
    ):
        super().__init__(name="Average")
        check_follower(owner, update)
        begin_at(owner, noun, online, average, observation_spec, natural)
        self.network = average
        self._online, self._update = online, update

    def follow(self, train_step_counter: tf.Variable, skipped: tf.Tensor, num_steps: int = 1) -> None:
        """Follow an update; arguments as `follow_update`."""
        online, average = self._online.trainable_weights, self.network.trainable_weights
        follow_update(self._update, online, average, train_step_counter, skipped, num_steps)


def begin_at(
    owner: str, noun: str, online: network.Network, average: network.Network, observation_spec: Any, natural: bool
) -> None:
    """Set an average's weights to those of the network that it will follow; arguments as `Average`.

    Raises:
      ValueError: The average's weights are not of the network's shapes, or are the network's own.
    """
    average.create_variables(observation_spec)
    check_trainable(owner, average, natural, carries_state=True)  # if not, the network itself was refused
    check_separate(owner, noun, online, "the average", average)
    shapes = [[tuple(v.shape) for v in each.variables] for each in (online, average)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"{owner}: the average's weights {shapes[1]} don't match {noun}'s {shapes[0]}")
    if trained_layers(online) != trained_layers(average):
        raise ValueError(f"{owner}: the average's frozen layers are others than {noun}'s")
    # Those too that no update moves: frozen layers, and the statistics of a frozen normalisation.
    for source, destination in zip(online.variables, average.variables, strict=True):
        destination.assign(source)
