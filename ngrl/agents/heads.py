"""What a policy's distribution parameters mean: the one place where discrete and continuous actions differ.

Parameters are the rows of `ActorNetwork.distribution_parameters`: logits [N, A], those of several discrete actions side
by side, or μ and log σ [N, 2D].
"""

import abc
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ngrl import losses
from ngrl.curvature import Categorical, DiagonalGaussian, MultiCategorical, OutputMetric
from ngrl.networks import action_choices
from ngrl.seeding import GENERATOR


class ActionHead(abc.ABC):
    """A family of distributions over actions."""

    #: Fisher information of the distribution with respect to its parameters.
    metric: OutputMetric

    @abc.abstractmethod
    def log_prob(self, parameters: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
        """Log-probability log π(a|s) [N] of actions [N], [N, n] or [N, D]."""

    @abc.abstractmethod
    def entropy(self, parameters: tf.Tensor) -> tf.Tensor:
        """Entropy in nats [N]."""

    @abc.abstractmethod
    def kl(self, old: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
        """KL(π_old ‖ π_new) in nats [N]."""

    @abc.abstractmethod
    def noise(self, shape: Any, dtype: tf.DType, seed: tf.Tensor) -> tf.Tensor:
        """What `sample` draws with a seed [2], of the shape of the logits [N, A] or of μ [N, D]."""

    @abc.abstractmethod
    def sample(self, parameters: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Actions that depend on the parameters and the seed [2] only; [N] or [N, n] int32, or [N, D].

        XLA draws other numbers from a seed than TensorFlow without it.
        """


class CategoricalHead(ActionHead):
    """One of A actions."""

    metric = Categorical()

    def log_prob(self, parameters: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
        return losses.categorical_log_prob(parameters, tf.cast(actions, tf.int32))

    def entropy(self, parameters: tf.Tensor) -> tf.Tensor:
        return losses.categorical_entropy(parameters)

    def kl(self, old: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
        return losses.kl_categorical(old, new)

    def noise(self, shape: Any, dtype: tf.DType, seed: tf.Tensor) -> tf.Tensor:
        return _negative_gumbel(shape, dtype, seed)

    def sample(self, parameters: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """argmax_a z_a − log(−log u_a), u uniform (Gumbel 1954); [N] int32."""
        noise = self.noise(tf.shape(parameters), parameters.dtype, seed)
        return tf.argmax(parameters - noise, axis=-1, output_type=tf.int32)


class MultiCategoricalHead(ActionHead):
    """One of A_i actions for each of n, independent of each other: logarithms of their probabilities add up.

    Args:
      sizes: A_1 to A_n.
    """

    def __init__(self, sizes: Sequence[int]):
        self._sizes = tuple(sizes)
        self.metric = MultiCategorical(self._sizes)

    def _split(self, parameters: tf.Tensor) -> list[tf.Tensor]:
        return tf.split(parameters, self._sizes, axis=-1)

    def log_prob(self, parameters: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
        parts = zip(
            self._split(parameters), tf.unstack(tf.cast(actions, tf.int32), len(self._sizes), axis=-1), strict=True
        )
        return tf.add_n([losses.categorical_log_prob(*part) for part in parts])

    def entropy(self, parameters: tf.Tensor) -> tf.Tensor:
        return tf.add_n([losses.categorical_entropy(part) for part in self._split(parameters)])

    def kl(self, old: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
        parts = zip(self._split(old), self._split(new), strict=True)
        return tf.add_n([losses.kl_categorical(*part) for part in parts])

    def noise(self, shape: Any, dtype: tf.DType, seed: tf.Tensor) -> tf.Tensor:
        return _negative_gumbel(shape, dtype, seed)

    def sample(self, parameters: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """As one action is drawn, each; [N, n] int32."""
        noisy = parameters - self.noise(tf.shape(parameters), parameters.dtype, seed)
        return tf.stack([tf.argmax(part, axis=-1, output_type=tf.int32) for part in self._split(noisy)], axis=-1)


class GaussianHead(ActionHead):
    """D independent Gaussians."""

    metric = DiagonalGaussian()

    def log_prob(self, parameters: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
        mean, log_std = tf.split(parameters, 2, axis=-1)
        return losses.diagonal_gaussian_log_prob(mean, log_std, actions)

    def entropy(self, parameters: tf.Tensor) -> tf.Tensor:
        return losses.diagonal_gaussian_entropy(tf.split(parameters, 2, axis=-1)[1])

    def kl(self, old: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
        return losses.kl_diagonal_gaussian(*tf.split(old, 2, axis=-1), *tf.split(new, 2, axis=-1))

    def noise(self, shape: Any, dtype: tf.DType, seed: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_normal(shape, seed, dtype=dtype, alg=GENERATOR)

    def sample(self, parameters: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """μ + σ · ε, ε standard normal; [N, D], not clipped."""
        mean, log_std = tf.split(parameters, 2, axis=-1)
        return mean + tf.exp(log_std) * self.noise(tf.shape(mean), mean.dtype, seed)


def _negative_gumbel(shape: Any, dtype: tf.DType, seed: tf.Tensor) -> tf.Tensor:
    # Numbers 2^-23 apart: 1 is not among them, and `minval` stands for 0, whose logarithm is infinite.
    uniform = tf.random.stateless_uniform(shape, seed, minval=1e-20, dtype=dtype, alg=GENERATOR)
    return tf.math.log(-tf.math.log(uniform))


def head_for(action_spec: Any) -> ActionHead:
    """The head for an environment's actions.

    Raises:
      ValueError: They are neither discrete actions counted from 0 nor one vector of real numbers.
    """
    choices = action_choices(action_spec)
    if choices is None:
        return GaussianHead()
    return MultiCategoricalHead(choices) if tf.nest.flatten(action_spec)[0].shape.rank else CategoricalHead()
