"""The critic of the on-policy agents: a value network and how it is fitted."""

from typing import Any, NamedTuple

import tensorflow as tf

from ngrl import losses
from ngrl.agents.linearisable import linearisable
from ngrl.agents.minibatches import add_stats, for_each_minibatch, masked_rows, shuffled_minibatches
from ngrl.agents.network_check import check_trainable, penalty_of
from ngrl.agents.steps import Stepper, is_natural
from ngrl.checks import check_count
from ngrl.configurable import configurable
from ngrl.curvature import GaussNewton, SquaredError
from ngrl.networks import ValueNetwork
from ngrl.optimizers import NaturalGradient, SkipCause


class CriticStats(NamedTuple):
    """What a fit did: float32 scalars."""

    # Mean over the minibatches of ½ (G − v)² and regularisers, each before its own step; without the skipped ones.
    loss: tf.Tensor
    gradient_norm: tf.Tensor  # mean over the same minibatches
    skipped: tf.Tensor  # minibatches that were skipped because something was not finite
    skip_cause: tf.Tensor  # the largest `SkipCause` of these


@configurable
class Critic(tf.Module):
    """Fits v(s) to returns, by minibatches of a shuffled batch in one graph.

    It is fitted after the policy's update and is never part of the policy's Fisher. The network's regularisers count.

    Args:
      network: The value network.
      optimizer: `NaturalGradient`, which takes Gauss-Newton steps on each minibatch, or any other Keras optimizer. A
        natural one has no line search and a finite learning rate.
      epochs: How often each fit goes through the batch.
      batch_size: States in a minibatch.
      max_gradient_norm: Clip the norm of a plain optimizer's gradients, all variables together.
      name: Name of the module.

    Raises:
      ValueError: An argument is out of its range, the optimizer can't fit a critic, or the network is one that
        `check_trainable` refuses.
    """

    def __init__(
        self,
        network: ValueNetwork,
        optimizer: tf.keras.optimizers.Optimizer,
        epochs: int = 10,
        batch_size: int = 128,
        max_gradient_norm: float | None = None,
        name: str = "Critic",
    ):
        super().__init__(name=name)
        check_count("Critic: epochs", epochs)
        check_count("Critic: batch_size", batch_size)
        self._stepper = Stepper("Critic", optimizer, max_gradient_norm)
        if is_natural(optimizer):
            _check_natural(optimizer)
        if not isinstance(network, ValueNetwork):
            raise ValueError(f"Critic: network must be an ngrl.networks.ValueNetwork, got {type(network).__name__}")
        network.create_variables()
        self.network = network
        self.optimizer = optimizer
        self._epochs = epochs
        self._batch_size = batch_size
        check_trainable("Critic", network, is_natural(optimizer))
        self._penalty = penalty_of("Critic", network, optimizer)
        #: Inputs of `values` and `fit` from observations [N, ...].
        self.encode, self._forward = linearisable(network)
        with tf.init_scope():
            optimizer.build(network.trainable_weights)

    def values(self, inputs: Any) -> tf.Tensor:
        """State values v [N] of encoded observations [N, ...]."""
        return tf.squeeze(self._forward(inputs), axis=-1)

    def fit(self, inputs: Any, returns: tf.Tensor, weights: tf.Tensor, seed: tf.Tensor) -> CriticStats:
        """Go through the batch `epochs` times.

        Args:
          inputs: Encoded observations [N, ...].
          returns: What v is to become [N].
          weights: [N]; 0 masks a state, whatever its observation and return hold.
          seed: Two integers [2], from which the minibatches' order follows.
        """
        used = weights > 0
        inputs = tf.nest.map_structure(lambda leaf: masked_rows(leaf, used), inputs)
        returns = masked_rows(returns, used)
        minibatches = shuffled_minibatches(returns.shape[0], self._batch_size, self._epochs, seed)

        def update(rows: tf.Tensor) -> CriticStats:
            return self._step(
                tf.nest.map_structure(lambda leaf: tf.gather(leaf, rows), inputs),
                tf.gather(returns, rows),
                tf.gather(weights, rows),
            )

        zero = tf.zeros([])
        total = for_each_minibatch(minibatches, update, CriticStats(zero, zero, zero, zero), add_stats)
        done = minibatches.shape[0] - total.skipped
        return total._replace(
            loss=tf.math.divide_no_nan(total.loss, done),
            gradient_norm=tf.math.divide_no_nan(total.gradient_norm, done),
        )

    def _step(self, inputs: Any, returns: tf.Tensor, weights: tf.Tensor) -> CriticStats:
        def loss_of(outputs: tf.Tensor) -> tf.Tensor:
            return losses.weighted_mean(losses.half_squared_error(returns, outputs[:, 0]), weights)

        variables = self.network.trainable_weights
        loss, _, stats = self._stepper.step(
            variables,
            lambda: self._forward(inputs),
            loss_of,
            lambda: GaussNewton(self._forward, variables, inputs, SquaredError(), weights=weights),
            self._penalty,
        )
        # What was skipped counts in `skipped`, not as NaN in the means.
        finite = tf.equal(stats.skip_cause, float(SkipCause.NONE))
        return CriticStats(
            loss=tf.where(finite, loss, 0.0),
            gradient_norm=tf.where(finite, stats.gradient_norm, 0.0),
            skipped=stats.skipped,
            skip_cause=stats.skip_cause,
        )


def _check_natural(optimizer: NaturalGradient) -> None:
    """Refuse settings that are for policies: a policy in gin is likely to have lent them."""
    if optimizer.line_search is not None:
        raise ValueError(
            "Critic: its optimizer has a line search, which measures the KL of a policy: set line_search=None "
            "(in gin critic/NaturalGradient.line_search)"
        )
    if optimizer.get_config()["learning_rate"] is None:
        raise ValueError(
            "Critic: its optimizer has learning_rate=None, with which every step is as long as max_kl allows and "
            "values never settle: give it a number (in gin critic/NaturalGradient.learning_rate)"
        )
