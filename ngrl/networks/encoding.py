"""Observations as vectors, and running statistics to normalise them by."""

from typing import Any

import tensorflow as tf
from tf_agents.specs import tensor_spec

_MOST_DISCRETE_VALUES = 1024


def check_observation_spec(spec: Any) -> None:
    """Refuse what `encode_observation` can't encode.

    Raises:
      ValueError: An integer part has no bounds, or too many values.
    """
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


def encoded_size(spec: Any) -> int:
    """D, the number of entries of an encoded observation."""
    size = 0
    for leaf in tf.nest.flatten(spec):
        width = 1 if leaf.dtype.is_floating else int(leaf.maximum.max()) - int(leaf.minimum.min()) + 1
        size += leaf.shape.num_elements() * width
    return size


def encode_observation(observation: Any, spec: Any) -> tf.Tensor:
    """Observations [B, ...] as one matrix [B, D] of float32.

    Floats are flattened, bounded integers become one-hot vectors, the parts of a Dict are concatenated in the order
    of their sorted keys.
    """
    parts = []
    for leaf, leaf_spec in zip(tf.nest.flatten(observation), tf.nest.flatten(spec), strict=True):
        if not leaf_spec.dtype.is_floating:
            low, high = int(leaf_spec.minimum.min()), int(leaf_spec.maximum.max())
            # In int64: the difference of narrow integers may not fit them, and not all of them can be one-hot encoded.
            leaf = tf.one_hot(tf.cast(leaf, tf.int64) - low, high - low + 1)
        size = 1
        for dimension in leaf.shape[1:]:
            size *= dimension
        parts.append(tf.reshape(tf.cast(leaf, tf.float32), [-1, size]))
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=1)


class RunningMoments(tf.Module):
    """Mean and variance [D] of everything seen, by merging batches (Chan, Golub & LeVeque 1983, eqs. 2.1).

    Before anything has been seen the mean is 0 and the variance 1. The moments are float64: in float32 the mean of
    numbers far from 0 is off by a good part of their deviation, and squares overflow where their roots don't.

    Args:
      size: D.
      name: Name of the module.
    """

    def __init__(self, size: int, name: str = "RunningMoments"):
        super().__init__(name=name)
        self.mean = tf.Variable(tf.zeros([size], tf.float64), trainable=False, name="mean")
        self.variance = tf.Variable(tf.ones([size], tf.float64), trainable=False, name="variance")
        self.count = tf.Variable(tf.zeros([], tf.float64), trainable=False, name="count")

    def update(self, values: tf.Tensor, weights: tf.Tensor) -> None:
        """Merge a batch; one whose moments are not finite changes nothing.

        Args:
          values: [N, D], of any float dtype.
          weights: [N]; a row of weight 0 does not count, whatever it holds.
        """
        weights = tf.cast(weights, tf.float64)[:, tf.newaxis]
        values = tf.cast(values, tf.float64)
        values = tf.where(weights > 0, values, tf.zeros_like(values))
        added = tf.reduce_sum(weights)
        batch_mean = tf.math.divide_no_nan(tf.reduce_sum(weights * values, axis=0), added)
        batch_m2 = tf.reduce_sum(weights * tf.square(values - batch_mean), axis=0)
        total = self.count + added
        # δ = m_B − m_A;  m = m_A + δ n_B/n;  M₂ = M₂_A + M₂_B + δ² n_A n_B/n
        delta = batch_mean - self.mean
        mean = self.mean + delta * tf.math.divide_no_nan(added, total)
        m2 = self.variance * self.count + batch_m2
        m2 += tf.square(delta) * tf.math.divide_no_nan(self.count * added, total)
        variance = tf.math.divide_no_nan(m2, total)
        usable = (added > 0) & tf.reduce_all(tf.math.is_finite(mean) & tf.math.is_finite(variance))
        self.mean.assign(tf.where(usable, mean, self.mean))
        self.variance.assign(tf.where(usable, variance, self.variance))
        self.count.assign(tf.where(usable, total, self.count))


def clip_finite(values: tf.Tensor, bound: float) -> tf.Tensor:
    """`clip(values, ±bound)`, NaN where a value is infinite.

    Clipped, an infinite number would look like any outlier to the guards that are to notice it.
    """
    clipped = tf.clip_by_value(values, -bound, bound)
    return tf.where(tf.math.is_inf(values), tf.constant(float("nan"), values.dtype), clipped)


class ObservationNormaliser(tf.Module):
    """`clip((x − mean) / √(variance + ε), ±clip)` of encoded observations x [B, D]; NaN where x is not finite.

    Give one object to the actor and the critic. Their SavedModels contain its variables and apply it. The agent
    updates it after each update of the policy, never between collecting and training, so that the policy that is
    trained is the one that acted.

    Args:
      observation_spec: Spec of the observations.
      clip: Largest normalised magnitude.
      epsilon: ε, added to the variance.
      name: Name of the module.

    Raises:
      ValueError: `clip` or `epsilon` is not positive, or the observations can't be encoded.
    """

    def __init__(
        self, observation_spec: Any, clip: float = 10.0, epsilon: float = 1e-8, name: str = "ObservationNormaliser"
    ):
        super().__init__(name=name)
        if not clip > 0 or not epsilon > 0:
            raise ValueError(f"clip and epsilon must be positive, got {clip} and {epsilon}")
        check_observation_spec(observation_spec)
        self._clip = float(clip)
        self._epsilon = float(epsilon)
        self._spec = observation_spec
        self.moments = RunningMoments(encoded_size(observation_spec))

    @property
    def size(self) -> int:
        """D, the number of entries of an encoded observation."""
        return self.moments.mean.shape[0]

    def __call__(self, encoded: tf.Tensor) -> tf.Tensor:
        """Normalised observations [B, D], of the dtype of `encoded`."""
        scaled = (tf.cast(encoded, tf.float64) - self.moments.mean) / tf.sqrt(self.moments.variance + self._epsilon)
        return tf.cast(clip_finite(scaled, self._clip), encoded.dtype)

    def update(self, observation: Any, weights: tf.Tensor) -> None:
        """Merge observations [N, ...] with weights [N] into the running moments."""
        self.moments.update(encode_observation(observation, self._spec), weights)
