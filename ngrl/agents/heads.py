"""What a policy's distribution parameters mean: the one place where discrete and continuous actions differ.

Parameters are the rows of `ActorNetwork.distribution_parameters`: logits [N, A], or μ and log σ [N, 2D].
"""

import abc
from typing import Any

import tensorflow as tf

from ngrl import losses
from ngrl.curvature import Categorical, DiagonalGaussian, OutputMetric
from ngrl.networks import is_discrete_action
from ngrl.seeding import GENERATOR


class ActionHead(abc.ABC):
    """A family of distributions over actions."""

    #: Fisher information of the distribution with respect to its parameters.
    metric: OutputMetric

    @abc.abstractmethod
    def log_prob(self, parameters: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
        """Log-probability log π(a|s) [N] of actions [N] or [N, D]."""

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
        """Actions that depend on the parameters and the seed [2] only; [N] int32 or [N, D].

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
        # Numbers 2^-23 apart: 1 is not among them, and `minval` stands for 0, whose logarithm is infinite.
        uniform = tf.random.stateless_uniform(shape, seed, minval=1e-20, dtype=dtype, alg=GENERATOR)
        return tf.math.log(-tf.math.log(uniform))

    def sample(self, parameters: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """argmax_a z_a − log(−log u_a), u uniform (Gumbel 1954); [N] int32."""
        noise = self.noise(tf.shape(parameters), parameters.dtype, seed)
        return tf.argmax(parameters - noise, axis=-1, output_type=tf.int32)


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


def head_for(action_spec: Any) -> ActionHead:
    """The head for an environment's actions.

    Raises:
      ValueError: They are neither one discrete action counted from 0 nor one vector of real numbers.
    """
    return CategoricalHead() if is_discrete_action(action_spec) else GaussianHead()
