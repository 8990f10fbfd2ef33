"""The Keras losses whose curvature is known, each as a function of the outputs that a network is linearised in.

Symbols: outputs y [B, K], targets t [B, K] (class indices [B] for the sparse loss), ℓ_i the loss of example i. For
each loss here ∂²ℓ_i/∂y_i² = h_i M_i with an output metric M of `ngrl.curvature`, so that the generalised Gauss-Newton
matrix (1/B) Σ_i h_i J_iᵀ M_i J_i is exact in the outputs. For crossentropies y are the logits, never probabilities: the
curvature 1 / (p (1 − p)) of probabilities grows without bound where they saturate, and what is gained by the slope of
the activation in front is lost in rounding.

The metric of the logits goes to 0 there, and so does the set of gradients that its rows can represent: an example that
is wrong with p = 1e-40 has a gradient of size 1, but coefficients c (L c = ∂ℓ/∂y) of size 1/√p, beside which all others
are lost. M is therefore taken at probabilities of at least ε, the rounding unit of the dtype: that changes F by at most
about ε JᵀJ and bounds ‖c‖ by about 1/√ε. Loss and gradient are those of the true probabilities.
"""

import abc
import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from ngrl.curvature import Bernoulli, Categorical, OutputMetric, SquaredError
from ngrl.losses import kl_categorical


class OutputLoss(abc.ABC):
    """A loss ℓ_i of each example and what is known of it."""

    #: M, without the factor h_i.
    metric: OutputMetric
    #: The activation that Keras expects behind y where the loss is given probabilities; None: it takes y itself.
    activation: str | None = None

    def targets(self, targets: tf.Tensor, num_outputs: int, dtype: tf.DType) -> tf.Tensor:
        """Keras' targets, of shape [B, K] or, if K = 1, [B], as t [B, K] of the outputs' dtype.

        Raises:
          ValueError: They are known to be of another shape.
        """
        targets = tf.convert_to_tensor(targets)
        fits = targets.shape.rank is None or targets.shape.is_compatible_with([None, num_outputs])
        if not fits and not (targets.shape.rank == 1 and num_outputs == 1):
            raise ValueError(
                f"the targets must be of shape [B, {num_outputs}] like the model's outputs, got {targets.shape}"
                f"{self._hint(num_outputs)}"
            )
        return self._prepare(tf.reshape(tf.cast(targets, dtype), [-1, num_outputs]))

    def _hint(self, num_outputs: int) -> str:
        del num_outputs
        return ""

    def _prepare(self, targets: tf.Tensor) -> tf.Tensor:
        return targets

    @abc.abstractmethod
    def metric_outputs(self, outputs: tf.Tensor) -> tf.Tensor:
        """Where M is taken: y, or outputs near y whose probabilities are all at least ε; [B, K]."""

    @abc.abstractmethod
    def values(self, targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """ℓ_i [B]."""

    @abc.abstractmethod
    def gradient(self, targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """∂ℓ_i/∂y_i [B, K], in the range of M_i."""

    @abc.abstractmethod
    def curvature(self, targets: tf.Tensor, num_outputs: int) -> tf.Tensor:
        """h_i: [B], or a scalar where every example has the same."""

    @abc.abstractmethod
    def divergence(self, old: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
        """d_i [B] between outputs, float64: d_i = ½ (y_new − y_old)ᵀ M_i (y_new − y_old) to second order."""


@dataclasses.dataclass(frozen=True)
class MeanSquaredError(OutputLoss):
    """ℓ = (1/K) Σ_k (y_k − t_k)², M = I, h = 2/K."""

    metric = SquaredError()

    def metric_outputs(self, outputs: tf.Tensor) -> tf.Tensor:
        return outputs

    def values(self, targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.math.squared_difference(outputs, targets), axis=-1)

    def gradient(self, targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        return (outputs - targets) * tf.constant(2 / outputs.shape[-1], outputs.dtype)

    def curvature(self, targets: tf.Tensor, num_outputs: int) -> tf.Tensor:
        return tf.constant(2 / num_outputs, targets.dtype)

    def divergence(self, old: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
        return 0.5 * tf.reduce_sum(tf.math.squared_difference(*_double(old, new)), axis=-1)


@dataclasses.dataclass(frozen=True)
class BinaryCrossentropy(OutputLoss):
    """ℓ = −(1/K) Σ_k (t_k log p_k + (1 − t_k) log(1 − p_k)), p = σ(y), M = diag(p (1 − p)), h = 1/K.

    Attributes:
      label_smoothing: s in t ← (1 − s) t + s/2.
    """

    label_smoothing: float = 0.0
    metric = Bernoulli()
    activation = "sigmoid"

    def _prepare(self, targets: tf.Tensor) -> tf.Tensor:
        return targets * (1 - self.label_smoothing) + self.label_smoothing / 2

    def metric_outputs(self, outputs: tf.Tensor) -> tf.Tensor:
        limit = -_log_rounding(outputs.dtype)
        return tf.clip_by_value(outputs, -limit, limit)

    def values(self, targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(targets, outputs), axis=-1)

    def gradient(self, targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        # p − t without cancellation: the metric's small entries far out would magnify a lost digit.
        difference = (1 - targets) * tf.sigmoid(outputs) - targets * tf.sigmoid(-outputs)
        return difference * tf.constant(1 / outputs.shape[-1], outputs.dtype)

    def curvature(self, targets: tf.Tensor, num_outputs: int) -> tf.Tensor:
        return tf.constant(1 / num_outputs, targets.dtype)

    def divergence(self, old: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
        # A Bernoulli variable with logit y is a categorical one with logits (y, 0).
        pairs = [tf.stack([logits, tf.zeros_like(logits)], axis=-1) for logits in _double(old, new)]
        return tf.reduce_sum(kl_categorical(*pairs), axis=-1)


@dataclasses.dataclass(frozen=True)
class CategoricalCrossentropy(OutputLoss):
    """ℓ = −Σ_k t_k log p_k, p = softmax(y), M = diag(p) − p pᵀ, h = Σ_k t_k.

    Keras' value for every t ≥ 0. TensorFlow's kernel takes for granted that Σ_k t_k = 1 and gives the gradient p − t;
    for other targets (rows of zeros as padding, several classes) it is (Σ_k t_k) p − t, as here.

    Attributes:
      label_smoothing: s in t ← (1 − s) t + s/K.
    """

    label_smoothing: float = 0.0
    metric = Categorical()
    activation = "softmax"

    def _hint(self, num_outputs: int) -> str:
        return ": one-hot rows; for class indices use the loss 'sparse_categorical_crossentropy'"

    def _prepare(self, targets: tf.Tensor) -> tf.Tensor:
        return targets * (1 - self.label_smoothing) + self.label_smoothing / targets.shape[-1]

    def metric_outputs(self, outputs: tf.Tensor) -> tf.Tensor:
        return tf.maximum(tf.nn.log_softmax(outputs), _log_rounding(outputs.dtype))

    def values(self, targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        return -tf.reduce_sum(targets * tf.nn.log_softmax(outputs), axis=-1)

    def gradient(self, targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(targets, axis=-1, keepdims=True) * tf.nn.softmax(outputs) - targets

    def curvature(self, targets: tf.Tensor, num_outputs: int) -> tf.Tensor:
        return tf.reduce_sum(targets, axis=-1)

    def divergence(self, old: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
        return kl_categorical(*_double(old, new))


@dataclasses.dataclass(frozen=True)
class SparseCategoricalCrossentropy(CategoricalCrossentropy):
    """`CategoricalCrossentropy` for class indices [B] or [B, 1], which become one-hot rows t [B, K].

    An index outside of [0, K) makes the row, and so the loss, NaN.
    """

    def targets(self, targets: tf.Tensor, num_outputs: int, dtype: tf.DType) -> tf.Tensor:
        targets = tf.convert_to_tensor(targets)
        shape = targets.shape
        if not (shape.is_compatible_with([None]) or shape.is_compatible_with([None, 1])):
            raise ValueError(
                f"the targets must be class indices of shape [B], got {shape}: for one-hot rows use the loss "
                "'categorical_crossentropy'"
            )
        indices = tf.reshape(tf.cast(targets, tf.int64), [-1])
        known = (indices >= 0) & (indices < num_outputs)
        rows = tf.one_hot(indices, num_outputs, dtype=dtype)
        return tf.where(known[:, tf.newaxis], rows, tf.constant(float("nan"), dtype))


def _double(old: tf.Tensor, new: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Both in float64: a divergence of nearly equal outputs is a difference of nearly equal numbers."""
    return tf.cast(old, tf.float64), tf.cast(new, tf.float64)


def _log_rounding(dtype: tf.DType) -> float:
    """The logarithm of ε: 2⁻²³ for float32, 2⁻⁵² for float64."""
    return float(np.log(np.finfo(dtype.as_numpy_dtype).eps))


@dataclasses.dataclass(frozen=True, eq=False)
class Weighted(OutputMetric):
    """w_i M_i for weights w [B] or a scalar, at least 0."""

    loss: OutputLoss
    weights: tf.Tensor

    @property
    def _root(self) -> tf.Tensor:
        return tf.reshape(tf.sqrt(self.weights), [-1, 1])

    def check(self, outputs: tf.Tensor) -> None:
        self.loss.metric.check(outputs)

    def num_rows(self, num_outputs: int) -> int:
        return self.loss.metric.num_rows(num_outputs)

    def matvec(self, outputs: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
        outputs = self.loss.metric_outputs(outputs)
        return tf.reshape(self.weights, [-1, 1]) * self.loss.metric.matvec(outputs, vector)

    def factor_matvec(self, outputs: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        return self._root * self.loss.metric.factor_matvec(self.loss.metric_outputs(outputs), rows)

    def factor_rmatvec(self, outputs: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
        return self._root * self.loss.metric.factor_rmatvec(self.loss.metric_outputs(outputs), vector)

    def factor_solve(self, outputs: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
        # Where w = 0 the range holds u = 0 only, and c = 0 is its shortest preimage.
        solved = self.loss.metric.factor_solve(self.loss.metric_outputs(outputs), vector)
        return tf.math.divide_no_nan(solved, self._root * tf.ones_like(solved))

    def factor(self, outputs: tf.Tensor) -> tf.Tensor:
        return self._root[:, :, tf.newaxis] * self.loss.metric.factor(self.loss.metric_outputs(outputs))


@dataclasses.dataclass(frozen=True)
class Objective:
    """L = (1/B) Σ_i c_i ℓ_i: a loss as `compile` got it, with c_i from sample weights, reduction and loss weight.

    Attributes:
      loss: ℓ.
      from_logits: whether the model's own outputs are y; None where the loss knows no activation.
      sums: whether Keras sums over the batch (c_i = B w_i) instead of dividing by B (c_i = w_i).
      loss_weight: A factor of all c_i.
    """

    loss: OutputLoss
    from_logits: bool | None
    sums: bool = False
    loss_weight: float = 1.0

    def weights(self, sample_weight: tf.Tensor | None, targets: tf.Tensor) -> tf.Tensor:
        """c_i: [B], or a scalar without sample weights.

        A negative weight is an error under Python and in graphs. XLA knows no assertions: there the root of a negative
        curvature is NaN, and the optimizer skips the step.

        Args:
          sample_weight: None, [B] or [B, 1].
          targets: t [B, K].

        Raises:
          ValueError: `sample_weight` is known to be of another shape.
        """
        weights = tf.constant(self.loss_weight, targets.dtype)
        if self.sums:
            weights *= tf.cast(tf.shape(targets)[0], targets.dtype)
        if sample_weight is None:
            return weights
        sample_weight = tf.convert_to_tensor(sample_weight)
        shape, batch = sample_weight.shape, targets.shape[0]
        if not (shape.is_compatible_with([batch]) or shape.is_compatible_with([batch, 1])):
            raise ValueError(f"sample weights must be of shape [B], one for each example, got {shape}")
        sample_weight = tf.reshape(tf.cast(sample_weight, targets.dtype), [-1])
        # One that is not a number passes: it makes the loss NaN, and the optimizer skips the step.
        allowed = tf.reduce_all(tf.logical_not(sample_weight < 0))
        tf.debugging.Assert(allowed, ["a natural-gradient step needs sample weights of at least 0", sample_weight])
        return weights * sample_weight

    def metric(self, targets: tf.Tensor, weights: tf.Tensor) -> OutputMetric:
        """c_i h_i M_i."""
        return Weighted(self.loss, weights * self.loss.curvature(targets, targets.shape[-1]))

    def value(self, targets: tf.Tensor, weights: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """L, a scalar."""
        return tf.reduce_mean(weights * self.loss.values(targets, outputs))

    def gradient(self, targets: tf.Tensor, weights: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """∂L/∂y [B, K]."""
        batch = tf.cast(tf.shape(outputs)[0], outputs.dtype)
        return tf.reshape(weights / batch, [-1, 1]) * self.loss.gradient(targets, outputs)

    def divergence(self, targets: tf.Tensor, weights: tf.Tensor, old: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
        """(1/B) Σ_i c_i h_i d_i, float64: ½ Δθᵀ F Δθ to second order; KL(p_old ‖ p_new) for crossentropies."""
        factors = tf.cast(weights * self.loss.curvature(targets, targets.shape[-1]), tf.float64)
        return tf.reduce_mean(factors * self.loss.divergence(old, new))


#: By Keras' class, and by the function that its name and aliases stand for.
_CLASSES: dict[Any, type[OutputLoss]] = {
    tf.keras.losses.MeanSquaredError: MeanSquaredError,
    tf.keras.losses.BinaryCrossentropy: BinaryCrossentropy,
    tf.keras.losses.CategoricalCrossentropy: CategoricalCrossentropy,
    tf.keras.losses.SparseCategoricalCrossentropy: SparseCategoricalCrossentropy,
}
_FUNCTIONS: dict[Any, type] = {
    tf.keras.losses.mean_squared_error: tf.keras.losses.MeanSquaredError,
    tf.keras.losses.binary_crossentropy: tf.keras.losses.BinaryCrossentropy,
    tf.keras.losses.categorical_crossentropy: tf.keras.losses.CategoricalCrossentropy,
    tf.keras.losses.sparse_categorical_crossentropy: tf.keras.losses.SparseCategoricalCrossentropy,
}


def from_keras(loss: Any, loss_weights: Any = None) -> Objective:
    """The objective that `compile(loss=..., loss_weights=...)` describes for a model with one output.

    Args:
      loss: A Keras loss, its name or its function; also as a list or dictionary of one.
      loss_weights: None or a number; also as a list or dictionary of one.

    Raises:
      ValueError: The loss is missing or none that is known here, there are several, or one of its settings or the
        weight can't be used.
    """
    given = [item for item in tf.nest.flatten(loss) if item is not None]
    if len(given) != 1:
        raise ValueError(f"NaturalGradient needs exactly one loss in compile, got {loss!r}")
    found = tf.keras.losses.get(given[0])
    if found in _FUNCTIONS:
        found = _FUNCTIONS[found]()
    if type(found) not in _CLASSES:
        raise ValueError(
            f"NaturalGradient doesn't know the curvature of the loss {given[0]!r}: compile with 'mse', "
            "'binary_crossentropy', 'categorical_crossentropy' or 'sparse_categorical_crossentropy' (or the classes of "
            "tf.keras.losses with these names), or with one of Keras' own optimizers"
        )
    config = found.get_config()
    if config.get("axis", -1) not in (-1, 1):
        raise ValueError(f"the loss {found.name!r} must take classes along the last axis, got axis={config['axis']}")
    if config.get("ignore_class") is not None:
        raise ValueError(f"the loss {found.name!r} can't ignore a class here: give its examples the sample weight 0")
    reductions = tf.keras.losses.Reduction
    if found.reduction not in (reductions.AUTO, reductions.SUM_OVER_BATCH_SIZE, reductions.SUM):
        raise ValueError(
            f"the loss {found.name!r} has the reduction {found.reduction!r}: use the default, "
            "'sum_over_batch_size', or 'sum'"
        )
    smoothing = {"label_smoothing": float(config["label_smoothing"])} if config.get("label_smoothing") else {}
    return Objective(
        loss=_CLASSES[type(found)](**smoothing),
        from_logits=config.get("from_logits"),
        sums=found.reduction == reductions.SUM,
        loss_weight=_loss_weight(loss_weights),
    )


def _loss_weight(loss_weights: Any) -> float:
    weights = [item for item in tf.nest.flatten(loss_weights) if item is not None]
    if len(weights) > 1 or any(not weight >= 0 for weight in weights):
        raise ValueError(f"loss_weights must be None or one number of at least 0, got {loss_weights!r}")
    return float(weights[0]) if weights else 1.0
