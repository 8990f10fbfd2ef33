"""Natural policy gradients: NPG (Kakade 2002) and TRPO (Schulman et al. 2015)."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tf_agents.trajectories import time_step as ts
from tf_agents.typing import types

from ngrl.agents.advantage import GeneralisedAdvantage
from ngrl.agents.critic import Critic
from ngrl.agents.on_policy_agent import OnPolicyAgent, PolicyBatch
from ngrl.agents.schedules import Schedule
from ngrl.agents.steps import natural_step
from ngrl.checks import check_count
from ngrl.configurable import configurable
from ngrl.curvature import GaussNewton
from ngrl.networks import ActorNetwork
from ngrl.optimizers import NaturalGradient, NaturalGradientStats


@configurable
class NpgAgent(OnPolicyAgent):
    """`θ ← θ + s F⁻¹ Ê[∇ log π(a|s) Â]`, F the Hessian of the mean KL(π_old ‖ π) at θ_old.

    The optimizer says how long the step is: a fixed `learning_rate` (Kakade 2002), `max_kl` as well, or `max_kl` with
    `learning_rate=None` for the KL-sized step s = √(2δ / gᵀF⁻¹g) (van Heeswijk 2022, Algorithm 1).

    Args:
      time_step_spec: As in `OnPolicyAgent`.
      action_spec: As in `OnPolicyAgent`.
      actor_network: The policy.
      optimizer: A `NaturalGradient`.
      critic: As in `OnPolicyAgent`.
      advantage: As in `OnPolicyAgent`.
      fisher_every: n; the Fisher is taken over every n-th of the batch's states, the gradient over all of them
        (Schulman et al. 2015, appendix C.1, take every tenth).
      entropy_weight: As in `OnPolicyAgent`.
      seed: As in `OnPolicyAgent`.
      train_step_counter: As in `OnPolicyAgent`.
      name: Name of the agent.

    Raises:
      ValueError: As `OnPolicyAgent`; or the optimizer is no natural gradient, or `fisher_every` not a positive integer.
    """

    def __init__(
        self,
        time_step_spec: ts.TimeStep,
        action_spec: types.NestedTensorSpec,
        actor_network: ActorNetwork,
        optimizer: NaturalGradient,
        critic: Critic | None = None,
        advantage: GeneralisedAdvantage | None = None,
        fisher_every: int = 1,
        entropy_weight: float | Schedule = 0.0,
        seed: int = 0,
        train_step_counter: tf.Variable | None = None,
        name: str = "NpgAgent",
    ):
        super().__init__(
            time_step_spec,
            action_spec,
            actor_network,
            optimizer,
            critic,
            advantage,
            entropy_weight,
            seed,
            train_step_counter,
            name,
        )
        if not isinstance(self._optimizer, NaturalGradient):
            raise ValueError(f"{name} needs NaturalGradient as its optimizer, got {type(self._optimizer).__name__}")
        self._every = check_count(f"{name}: fisher_every", fisher_every)

    def _update_policy(self, batch: PolicyBatch) -> tuple[tf.Tensor, NaturalGradientStats]:
        variables = self._actor.trainable_weights
        measures = self._measures(batch)
        if self._every == 1:
            operator = self._operator(batch.inputs, batch.weights)
            loss, stats = natural_step(
                self._optimizer, operator, lambda outputs: self._surrogate_loss(batch, outputs), **measures
            )
            return loss, self._judged(stats, loss, measures["loss_fn"])
        with tf.GradientTape() as tape:
            loss = self._surrogate_loss(batch, self._forward(batch.inputs))
        gradients = tape.gradient(loss, variables)
        some = tf.nest.map_structure(lambda leaf: leaf[:: self._every], batch.inputs)
        stats = self._optimizer.apply_natural_gradient(
            list(zip(gradients, variables, strict=True)),
            self._operator(some, batch.weights[:: self._every]),
            loss=loss,
            **measures,
        )
        return loss, self._judged(stats, loss, measures["loss_fn"])

    def _operator(self, inputs: Any, weights: tf.Tensor) -> GaussNewton:
        """F over encoded observations [N, ...] with weights [N]."""
        return GaussNewton(self._forward, self._actor.trainable_weights, inputs, self._head.metric, weights=weights)

    def _measures(self, batch: PolicyBatch) -> dict[str, Callable[[], tf.Tensor]]:
        """What the optimizer evaluates at the present policy: the surrogate loss, and for a line search the mean KL."""
        measures = {"loss_fn": lambda: self._surrogate_loss(batch, self._parameters(batch.inputs))}
        if self._optimizer.line_search is not None:
            measures["divergence_fn"] = lambda: self._mean_kl(batch, self._parameters(batch.inputs))
        return measures

    def _judged(
        self, stats: NaturalGradientStats, loss: tf.Tensor, loss_fn: Callable[[], tf.Tensor]
    ) -> NaturalGradientStats:
        """The stats with ρ = (L(θ + Δθ) − L(θ)) / gᵀΔθ where the optimizer measured none; NaN where nothing moved.

        As with a line search: F is the curvature of the KL, not of the surrogate.
        """
        if self._optimizer.line_search is not None or self._optimizer.damping_rule.needs_reduction_ratio:
            return stats
        moved = tf.not_equal(stats.predicted_change, 0)
        ratio = tf.math.divide_no_nan(tf.cast(loss_fn() - loss, tf.float32), stats.predicted_change)
        return stats._replace(reduction_ratio=tf.where(moved, ratio, float("nan")))


@configurable
class TrpoAgent(NpgAgent):
    """NPG whose step must prove itself: a line search on the KL and on the surrogate's improvement.

    Vitay (2020), section 4.5.3; Schulman et al. (2015), appendix C. Where no length along the direction passes,
    the parameters stay exactly as they were.

    Args:
      time_step_spec: As in `OnPolicyAgent`.
      action_spec: As in `OnPolicyAgent`.
      actor_network: The policy.
      optimizer: A `NaturalGradient` with a `line_search`.
      critic: As in `OnPolicyAgent`.
      advantage: As in `OnPolicyAgent`.
      fisher_every: As in `NpgAgent`.
      entropy_weight: As in `OnPolicyAgent`.
      seed: As in `OnPolicyAgent`.
      train_step_counter: As in `OnPolicyAgent`.
      name: Name of the agent.

    Raises:
      ValueError: As `NpgAgent`; or the optimizer has no line search.
    """

    def __init__(
        self,
        time_step_spec: ts.TimeStep,
        action_spec: types.NestedTensorSpec,
        actor_network: ActorNetwork,
        optimizer: NaturalGradient,
        critic: Critic | None = None,
        advantage: GeneralisedAdvantage | None = None,
        fisher_every: int = 1,
        entropy_weight: float | Schedule = 0.0,
        seed: int = 0,
        train_step_counter: tf.Variable | None = None,
        name: str = "TrpoAgent",
    ):
        super().__init__(
            time_step_spec,
            action_spec,
            actor_network,
            optimizer,
            critic,
            advantage,
            fisher_every,
            entropy_weight,
            seed,
            train_step_counter,
            name,
        )
        if self._optimizer.line_search is None:
            raise ValueError("TrpoAgent needs an optimizer with a line search: line_search=BacktrackingLineSearch()")
