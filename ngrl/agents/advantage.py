"""From rewards and values to advantages, and rewards on a common scale."""

from typing import NamedTuple

import tensorflow as tf

from ngrl import losses
from ngrl.checks import check_number
from ngrl.configurable import configurable
from ngrl.networks import RunningMoments, clip_finite


@configurable
class RewardNormaliser(tf.Module):
    """`clip(r / √(Var[G] + ε), ±clip)`, with G the discounted sum of the rewards still to come in its batch.

    Scaling by the returns' deviation, without taking off a mean, leaves the best policy what it is (Engstrom et al.
    2020, section 3). The moments run over all batches; a batch is counted before its own rewards are scaled.

    Args:
      clip: Largest normalised magnitude.
      epsilon: ε.
      name: Name of the module.

    Raises:
      ValueError: An argument is not positive.
    """

    def __init__(self, clip: float = 10.0, epsilon: float = 1e-8, name: str = "RewardNormaliser"):
        super().__init__(name=name)
        self._clip = check_number("clip", clip, "(0, inf]")
        self._epsilon = check_number("epsilon", epsilon, "(0, inf)")
        self.moments = RunningMoments(1)

    def __call__(self, r_t: tf.Tensor) -> tf.Tensor:
        """Normalised rewards, of the shape of `r_t`; NaN where a reward is not finite."""
        scaled = r_t * tf.cast(tf.math.rsqrt(self.moments.variance[0] + self._epsilon), r_t.dtype)
        return clip_finite(scaled, self._clip)

    def update(self, r_t: tf.Tensor, masks: losses.BoundaryMasks, gamma: float) -> None:
        """Count a batch; one that is not finite changes nothing.

        Args:
          r_t: Rewards [T, B].
          masks: Where episodes end, and which rows count [T, B].
          gamma: Discount factor of G.
        """
        returns = losses.discounted_returns(r_t, masks.continues_t, masks.continues_t, tf.zeros_like(r_t), gamma)
        self.moments.update(tf.reshape(returns, [-1, 1]), tf.reshape(masks.weights, [-1]))


class Advantages(NamedTuple):
    """Time-major [T, B]."""

    advantage: tf.Tensor
    returns: tf.Tensor  # what the critic is to learn: advantage + v_tm1


@configurable
class GeneralisedAdvantage(tf.Module):
    """GAE(λ) (Schulman et al. 2016); λ = 1 is the discounted return less the critic's value.

    Args:
      gamma: Discount factor γ.
      gae_lambda: λ. Without a critic, 1 is taken whatever this says: there is nothing to bootstrap from.
      normalise: Give the advantages of a batch mean 0 and standard deviation 1. Equal advantages become zeros.
      reward_normaliser: Scales rewards; None leaves them as they are.
      name: Name of the module.

    Raises:
      ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        normalise: bool = True,
        reward_normaliser: RewardNormaliser | None = None,
        name: str = "GeneralisedAdvantage",
    ):
        super().__init__(name=name)
        self._gamma = check_number("GeneralisedAdvantage: gamma", gamma, "[0, 1]")
        self._gae_lambda = check_number("GeneralisedAdvantage: gae_lambda", gae_lambda, "[0, 1]")
        self._normalise = normalise
        self._reward_normaliser = reward_normaliser

    def observe(self, r_t: tf.Tensor, masks: losses.BoundaryMasks) -> None:
        """Count the rewards [T, B] of a new batch in the running moments, where there are any."""
        if self._reward_normaliser is not None:
            self._reward_normaliser.update(r_t, masks, self._gamma)

    def __call__(
        self, r_t: tf.Tensor, discount_t: tf.Tensor, masks: losses.BoundaryMasks, values: tf.Tensor | None
    ) -> Advantages:
        """Advantages, not yet normalised, and returns.

        Args:
          r_t: Rewards [T, B].
          discount_t: Discounts of the environment [T, B].
          masks: Where episodes end, and which rows count [T, B].
          values: The critic's values of every state, the last one reached included [T + 1, B]; None without a critic.
        """
        if self._reward_normaliser is not None:
            r_t = self._reward_normaliser(r_t)
        gae_lambda = self._gae_lambda
        if values is None:
            values, gae_lambda = tf.zeros([r_t.shape[0] + 1, r_t.shape[1]]), 1.0
        advantage = losses.generalised_advantage(
            r_t, discount_t, masks.continues_t, values[:-1], values[1:], self._gamma, gae_lambda
        )
        return Advantages(advantage, advantage + values[:-1])

    def normalised(self, advantage: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """The advantages [N] that go into the policy's loss; `weights` [N] mask steps."""
        return losses.normalise_advantages(advantage, weights) if self._normalise else advantage
