"""Observations as vectors, and running statistics to normalise them by."""

from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.specs import tensor_spec

from ngrl.checks import check_number
from ngrl.configurable import configurable
from ngrl.specs import holds_categories

_MOST_CATEGORIES = 1024

#: D at most, and an image's part in it: Dense layers can use MinAtar's 10 × 10 × 10, and not Atari's.
_WIDEST = 2**15
_LARGEST_IMAGE = 2**12

# Quantities of wider ranges, which float32 can't tell apart, have bounds that say nothing of their size.
_WIDEST_SCALE = 2**24


def check_observation_spec(spec: Any) -> None:
    """Refuse what `encode_observation` can't encode, and images that want convolutions.

    Raises:
      ValueError: A part is neither float, integer nor bool, its categories have no bounds or are too many, it is a
        large image, or the encoded observation is too wide.
    """
    for leaf in tf.nest.flatten(spec):
        if not (leaf.dtype.is_floating or leaf.dtype.is_integer or leaf.dtype.is_bool):
            raise ValueError(f"an observation of dtype {leaf.dtype.name} can't be encoded")
        if not _is_one_hot(leaf):
            is_image = leaf.shape.rank >= 3 or (leaf.shape.rank == 2 and leaf.dtype == tf.uint8)
            if is_image and leaf.shape.num_elements() > _LARGEST_IMAGE:
                raise ValueError(
                    f"an image of {' × '.join(map(str, leaf.shape))} is too large for Dense layers alone: give each "
                    "network convolutions, as in QNetwork.trunk = @ConvNetwork() (in Python trunk=ConvNetwork())"
                )
            continue
        if not tensor_spec.is_bounded(leaf):
            raise ValueError(f"a discrete observation needs bounds, got {leaf}")
        most = int(np.max(_categories(leaf)[1], initial=0))
        if most > _MOST_CATEGORIES:
            raise ValueError(
                f"an integer observation of {most} values is too wide for one-hot encoding "
                f"(at most {_MOST_CATEGORIES}): convert it to floats in the environment"
            )
    if encoded_size(spec) > _WIDEST:
        raise ValueError(
            f"the observation is too wide for a network of Dense layers: {encoded_size(spec):,} numbers, at most "
            f"{_WIDEST:,}; make it smaller in the environment, or give the agent a network of your own that takes it "
            "as it is"
        )


def encoded_size(spec: Any) -> int:
    """D, the number of entries of an encoded observation."""
    return sum(
        int(_categories(leaf)[1].sum()) if _is_one_hot(leaf) else leaf.shape.num_elements()
        for leaf in tf.nest.flatten(spec)
    )


def encode_observation(observation: Any, spec: Any) -> tf.Tensor:
    """Observations [B, ...] as one matrix [B, D] of float32.

    Floats are flattened. Integers become one-hot vectors where they are categories (`ngrl.specs`), and where they are
    quantities `(x − low) / (high − low)` by the spec's bounds: a pixel lies in [0, 1]. Those without bounds or of a
    range of 2²⁴ and more are converted as they are, bools to 0 and 1. The parts of a Dict are concatenated in the order
    of their sorted keys.
    """
    parts = []
    for leaf, leaf_spec in zip(tf.nest.flatten(observation), tf.nest.flatten(spec), strict=True):
        encoded = _one_hot(leaf, leaf_spec) if _is_one_hot(leaf_spec) else _on_scale(leaf, leaf_spec)
        size = 1
        for dimension in encoded.shape[1:]:
            size *= dimension
        parts.append(tf.reshape(encoded, [-1, size]))
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=1)


def scale_observation(observation: Any, spec: Any) -> Any:
    """Observations [B, ...] of the same structure and shapes, on the scale that `encode_observation` gives them.

    Categories stay integers, for layers that look them up.
    """

    def scaled(leaf: tf.Tensor, leaf_spec: Any) -> tf.Tensor:
        return leaf if _is_one_hot(leaf_spec) else _on_scale(leaf, leaf_spec)

    return tf.nest.map_structure(scaled, observation, spec)


def _is_one_hot(spec: Any) -> bool:
    return spec.dtype.is_integer and holds_categories(spec)


def _categories(spec: Any) -> tuple[np.ndarray, np.ndarray]:
    """The first category of each element, and how many there are; [elements] of Python integers."""
    low, high = (
        np.broadcast_to(bound, spec.shape).reshape(-1).astype(object) for bound in (spec.minimum, spec.maximum)
    )
    return low, high - low + 1


def _one_hot(leaf: tf.Tensor, spec: Any) -> tf.Tensor:
    """Categories [B, ...] as one-hot vectors side by side [B, D]."""
    first, count = _categories(spec)
    most = max(count)
    # In int64: the difference of narrow integers may not fit them, and not all of them can be one-hot encoded.
    indices = tf.reshape(tf.cast(leaf, tf.int64), [-1, len(first)]) - tf.constant(first.astype(np.int64))
    rows = tf.reshape(tf.one_hot(indices, most), [-1, len(first) * most])
    used = (np.arange(most) < count[:, np.newaxis]).reshape(-1)
    return rows if used.all() else tf.gather(rows, np.flatnonzero(used), axis=1)


def _on_scale(leaf: tf.Tensor, spec: Any) -> tf.Tensor:
    """Floats and bools as they are, quantities by their bounds; float32, of the shape of `leaf`."""
    if not spec.dtype.is_integer or not tensor_spec.is_bounded(spec):
        return tf.cast(leaf, tf.float32)
    low, high = (np.broadcast_to(bound, spec.shape).astype(np.float64) for bound in (spec.minimum, spec.maximum))
    span = high - low
    as_it_is = (span >= _WIDEST_SCALE) | (span == 0)
    low, span = (_shortened(np.where(as_it_is, left, value)) for left, value in ((0, low), (1, span)))
    dtype = tf.float32 if spec.dtype.size <= 2 else tf.float64  # in which the integers and their bounds are exact
    scaled = (tf.cast(leaf, dtype) - tf.constant(low, dtype)) / tf.constant(span, dtype)
    return tf.cast(scaled, tf.float32)


def _shortened(values: np.ndarray) -> np.ndarray:
    """One number in the place of as many equal ones: there is one a pixel."""
    different = np.unique(values)
    return different[0] if len(different) == 1 else values


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


@configurable
class ObservationNormaliser(tf.Module):
    """`clip((x − mean) / √(variance + ε), ±clip)` of encoded observations x [B, D]; NaN where x is not finite.

    Give one object to the actor and the critic. Their SavedModels contain its variables and apply it. An on-policy
    agent updates that of its policy after each update, never between collecting and training, so that the policy that
    is trained is the one that acted.

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
        self._clip = check_number("clip", clip, "(0, inf]")
        self._epsilon = check_number("epsilon", epsilon, "(0, inf)")
        check_observation_spec(observation_spec)
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

    def on_host(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Mean and deviation [D] in float64 and the largest magnitude, for who normalises with NumPy."""
        return self.moments.mean.numpy(), np.sqrt(self.moments.variance.numpy() + self._epsilon), self._clip

    def update(self, observation: Any, weights: tf.Tensor) -> None:
        """Merge observations [N, ...] with weights [N] into the running moments."""
        self.moments.update(encode_observation(observation, self._spec), weights)


class Encoder:
    """Observations [N, ...] of a spec as vectors [N, D]: encoded, and normalised where there is a normaliser.

    Encoders of the same normaliser and of equal specs are equal: networks that have them may share what they give.

    Args:
      observation_spec: Spec of the observations.
      normaliser: Normalises the encoded observations; None leaves them as they are.

    Raises:
      ValueError: The observations can't be encoded, or the normaliser is for others.
    """

    def __init__(self, observation_spec: Any, normaliser: ObservationNormaliser | None):
        check_observation_spec(observation_spec)
        size = encoded_size(observation_spec)
        if normaliser is not None and normaliser.size != size:
            raise ValueError(f"the normaliser is for {normaliser.size} entries, the observations have {size}")
        self._spec = observation_spec
        self._normaliser = normaliser

    def vectors(self, observation: Any) -> tf.Tensor:
        """Encoded observations [N, D], not normalised: what a normaliser's moments are of."""
        return encode_observation(observation, self._spec)

    def normalised(self, vectors: tf.Tensor) -> tf.Tensor:
        """The vectors normalised, where there is a normaliser [N, D]."""
        return vectors if self._normaliser is None else self._normaliser(vectors)

    def __call__(self, observation: Any) -> tf.Tensor:
        """Encoded observations [N, D], normalised where there is a normaliser."""
        return self.normalised(self.vectors(observation))

    def __eq__(self, other: object) -> bool:
        """Whether both give the same of every observation."""
        return isinstance(other, Encoder) and self._normaliser is other._normaliser and self._spec == other._spec

    def __hash__(self) -> int:
        """By the normaliser, since specs may be nested."""
        return hash(id(self._normaliser))
