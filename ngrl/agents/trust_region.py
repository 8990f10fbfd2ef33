"""ACER's trust region: the way up for the policy at each state, bent towards the average policy (Wang et al. 2017)."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import tensorflow as tf

from ngrl import losses
from ngrl.agents.heads import ActionHead, CategoricalHead
from ngrl.agents.minibatches import masked_rows
from ngrl.agents.target_update import SoftUpdate, TargetUpdate, check_follower
from ngrl.checks import check_choice, check_optional_number
from ngrl.configurable import configurable

# The objective [N] under distribution parameters [N, K], and what these mean.
Objective = Callable[[ActionHead, tf.Tensor], tf.Tensor]


class Ascent(NamedTuple):
    """The way up for the policy at N rows."""

    objective: tf.Tensor  # [N]
    projected: tf.Tensor  # z* as a gradient with respect to the distribution's parameters [N, K], 0 at masked rows
    kl: tf.Tensor  # KL(average policy ‖ policy) [N]
    active: tf.Tensor  # 1 where the trust region bent the gradient [N]


class _FreeCategorical(CategoricalHead):
    """Parameters are log p [N, A], taken as they are: slopes are p_i ∂/∂p_i of a p whose sum is free."""

    def log_prob(self, parameters: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
        """Log p_a [N]."""
        return tf.gather(parameters, tf.cast(actions, tf.int32), axis=-1, batch_dims=1)

    def entropy(self, parameters: tf.Tensor) -> tf.Tensor:
        """−Σ p log p [N]."""
        return -tf.reduce_sum(tf.exp(parameters) * parameters, axis=-1)


@configurable
class TrustRegion:
    """How far the policy may go from the average policy, and how that follows.

    Args:
      delta: δ; None sets no bound.
      statistics: Φ of discrete actions: the probability vector, as in the paper, or the logits, by which the region is
        far wider. That of continuous actions is (μ, log σ); the paper's σ is fixed, and so its Φ is μ.
      average_update: How the average policy follows; `SoftUpdate(0.01)` by default, which is α = 0.99.

    Raises:
      ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        delta: float | None = 1.0,
        statistics: Literal["probabilities", "logits"] = "probabilities",
        average_update: TargetUpdate | None = None,
    ):
        self._delta = check_optional_number("TrustRegion: delta", delta, "[0, inf)")
        self._statistics = check_choice("TrustRegion: statistics", statistics, ("probabilities", "logits"))
        self.average_update = SoftUpdate(0.01) if average_update is None else average_update
        check_follower("TrustRegion", self.average_update)

    def check(self, is_discrete: bool) -> None:
        """Refuse statistics that the policy doesn't have.

        Raises:
          ValueError: They are of the other kind of actions.
        """
        if self._statistics == "logits" and not is_discrete:
            raise ValueError("TrustRegion: statistics='logits' is for discrete actions, the environment's are not")

    def ascend(
        self, objective: Objective, head: ActionHead, parameters: tf.Tensor, average: tf.Tensor, weights: tf.Tensor
    ) -> Ascent:
        """The objective's gradient, projected onto the trust region around the average policy.

        Args:
          objective: What to climb.
          head: What `parameters` mean.
          parameters: The policy's, constants [N, K].
          average: The average policy's, constants [N, K].
          weights: [N]; 0 masks a row.
        """
        delta, used, kl = self._delta, weights > 0, head.kl(average, parameters)
        if delta is not None and isinstance(head, CategoricalHead) and self._statistics == "probabilities":
            log_p, log_q = (losses.bounded_log_softmax(logits) for logits in (parameters, average))
            value, slopes = _value_and_gradient(lambda x: objective(_FreeCategorical(), x), log_p)
            slopes = masked_rows(slopes, used)
            gradient = losses.through_softmax(slopes, log_p)
            projected = losses.probability_trust_region_projection(slopes, log_p, log_q, delta)
        else:
            value, gradient = _value_and_gradient(lambda x: objective(head, x), parameters)
            projected = gradient = masked_rows(gradient, used)
            if delta is not None:
                _, kl_gradient = _value_and_gradient(lambda x: head.kl(average, x), parameters)
                projected = losses.trust_region_projection(gradient, masked_rows(kl_gradient, used), delta)
        active = tf.reduce_any(tf.not_equal(projected, gradient), axis=-1)
        return Ascent(value, projected, kl, tf.cast(active, tf.float32))


def _value_and_gradient(function: Callable[[tf.Tensor], tf.Tensor], at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    with tf.GradientTape() as tape:
        tape.watch(at)
        value = function(at)
    return value, tape.gradient(value, at)
