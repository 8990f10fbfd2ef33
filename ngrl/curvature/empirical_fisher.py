"""The empirical Fisher matrix: the second moment of per-example gradients."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from ngrl.curvature.gauss_newton import GaussNewton
from ngrl.curvature.metrics import SquaredError


class EmpiricalFisher(GaussNewton):
    """F = (1/Σw) Σ_i w_i g_i g_iᵀ, with g_i the gradient of the i-th example's loss.

    For losses -log p(y_i | x_i) with targets sampled from the model itself this estimates the Fisher matrix;
    with targets from data it doesn't (Kunstner, Hennig & Balles 2019, arXiv:1905.12558). It is the
    Gauss-Newton matrix of the losses as outputs [B, 1], and offers the same methods, but for `kronecker_layers`: of a
    function of losses no layers are known.
    """

    def __init__(
        self,
        per_example_loss_fn: Callable[[Any], tf.Tensor],
        variables: Sequence[tf.Variable],
        inputs: Any,
        weights: tf.Tensor | None = None,
        chunk_size: int | None = None,
        name: str = "EmpiricalFisher",
    ) -> None:
        """Linearise the losses per_example_loss_fn(inputs) [B].

        Args:
          per_example_loss_fn: gives one loss per example.
          variables: as in `GaussNewton`.
          inputs: any nest of tensors [B, ...]: observations, and whatever else the loss needs.
          weights: as in `GaussNewton`.
          chunk_size: as in `GaussNewton`.
          name: the operator's name.

        Raises:
          ValueError: the losses aren't [B], and as in `GaussNewton`.
        """

        def forward(inputs: Any) -> tf.Tensor:
            losses = per_example_loss_fn(inputs)
            if not tf.is_tensor(losses) or losses.shape.rank != 1:
                got = losses.shape if tf.is_tensor(losses) else type(losses).__name__
                raise ValueError(f"per_example_loss_fn must return losses of shape [B], got {got}")
            return losses[:, tf.newaxis]

        super().__init__(forward, variables, inputs, SquaredError(), weights, chunk_size, name)

    @property
    def losses(self) -> tf.Tensor:
        """The losses [B]."""
        return self.outputs[:, 0]
