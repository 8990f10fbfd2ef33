"""A backtracking line search on the measured loss and the measured divergence (Schulman et al. 2015, appendix C)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from ngrl.checks import check_count, check_number
from ngrl.configurable import configurable
from ngrl.curvature import unflatten
from ngrl.optimizers.step import Proposal, ScalarFn, scalar


class SearchResult(NamedTuple):
    """What a line search found: scalars."""

    accepted: tf.Tensor  # bool
    backtracks: tf.Tensor  # int32: lengths rejected, max_backtracks + 1 if all were
    scale: tf.Tensor  # the accepted length as a part of the full step's; 0 if none was
    loss: tf.Tensor  # float64, of the length tried last
    kl: tf.Tensor  # float64, of the length tried last


@configurable
@tf.keras.utils.register_keras_serializable(package="ngrl")
class BacktrackingLineSearch:
    """Shortens a step until the loss has improved and the divergence keeps within the trust region.

    Tries θ + shrink^j Δ for j = 0, 1, ..., `max_backtracks` and accepts the first with finite loss and divergence,
    KL ≤ max_kl, L < L(θ), and L(θ) − L ≥ −`min_reduction_ratio` · shrink^j · gᵀΔ.

    Args:
      shrink: Factor from one length to the next.
      max_backtracks: How many times the step may be shortened.
      min_reduction_ratio: The least part of the decrease predicted to first order that must come true (Armijo's
        condition); 0 asks for any decrease.

    Raises:
      ValueError: An argument is out of its range.
    """

    def __init__(self, shrink: float = 0.5, max_backtracks: int = 10, min_reduction_ratio: float = 0.0):
        self.shrink = check_number("shrink", shrink, "(0, 1)")
        self.max_backtracks = check_count("max_backtracks", max_backtracks, 0)
        self.min_reduction_ratio = check_number("min_reduction_ratio", min_reduction_ratio, "[0, 1)")

    def search(
        self,
        variables: Sequence[tf.Variable],
        proposal: Proposal,
        loss_fn: ScalarFn,
        divergence_fn: ScalarFn,
        max_kl: tf.Tensor,
        enabled: tf.Tensor,
    ) -> SearchResult:
        """Assign the longest step that is accepted, or leave the variables byte for byte as they were.

        Args:
          variables: θ.
          proposal: The full step Δ, gᵀΔ and L(θ).
          loss_fn: Evaluates L at the variables' present values.
          divergence_fn: Evaluates the mean KL(π_old ‖ π) at the variables' present values.
          max_kl: Bound of the divergence, in nats; a scalar.
          enabled: Whether to search at all, a boolean scalar; else no variable changes and nothing is evaluated.

        Returns:
          What was found.

        Raises:
          ValueError: A function does not return a scalar.
        """
        # Rounded once from Python's numbers, so that every way of running takes the same lengths.
        lengths = tf.constant([self.shrink**j for j in range(self.max_backtracks + 1)] + [0.0], tf.float64)
        scales = tf.cast(lengths, proposal.delta.dtype)
        old = [tf.identity(variable) for variable in variables]
        changes = unflatten(proposal.delta, variables)
        # Compared in float64, which holds every float32 number: neither bound gives way by rounding.
        old_loss = tf.cast(proposal.loss, tf.float64)
        predicted_decrease = -tf.cast(proposal.linear_change, tf.float64)

        def goes_on(tried: tf.Tensor, accepted: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
            return enabled & tf.logical_not(accepted) & (tried <= self.max_backtracks)

        def try_present(tried: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
            # What is measured are the variables as they entered this turn of the loop, and they stay if accepted. Were
            # they assigned and measured in one turn, XLA could round the two uses of the sum differently.
            new_loss = tf.cast(scalar(loss_fn(), "loss_fn's value"), tf.float64)
            kl = tf.cast(scalar(divergence_fn(), "divergence_fn's value"), tf.float64)
            decrease = old_loss - new_loss
            accepted = (
                tf.math.is_finite(new_loss)
                & tf.math.is_finite(kl)
                & (kl <= max_kl)
                & (decrease > 0)
                & (decrease >= self.min_reduction_ratio * lengths[tried] * predicted_decrease)
            )
            following = tried + 1
            exhausted = following > self.max_backtracks
            for variable, start, change in zip(variables, old, changes, strict=True):
                shorter = tf.where(exhausted, start, start + scales[following] * change)
                variable.assign(tf.where(accepted, variable, shorter))
            return tf.where(accepted, tried, following), accepted, new_loss, kl

        for variable, start, change in zip(variables, old, changes, strict=True):
            variable.assign(tf.where(enabled, start + change, start))
        nothing = tf.constant(float("nan"), tf.float64)
        backtracks, accepted, new_loss, kl = tf.while_loop(
            goes_on, try_present, (tf.constant(0), tf.constant(False), nothing, nothing), parallel_iterations=1
        )
        scale = tf.where(accepted, scales[backtracks], tf.zeros_like(scales[0]))
        return SearchResult(accepted, backtracks, scale, new_loss, kl)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` takes, as Keras serialises it."""
        return {
            "shrink": self.shrink,
            "max_backtracks": self.max_backtracks,
            "min_reduction_ratio": self.min_reduction_ratio,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "BacktrackingLineSearch":
        """Inverse of `get_config`."""
        return cls(**config)


def get(line_search: "BacktrackingLineSearch | dict[str, Any] | None") -> BacktrackingLineSearch | None:
    """A line search from itself or from its serialised form; None stays None.

    Raises:
      ValueError: It is none of these.
    """
    if isinstance(line_search, dict):
        line_search = tf.keras.utils.deserialize_keras_object(line_search)
    if line_search is not None and not isinstance(line_search, BacktrackingLineSearch):
        raise ValueError(f"line_search must be a BacktrackingLineSearch or None, got {line_search!r}")
    return line_search
