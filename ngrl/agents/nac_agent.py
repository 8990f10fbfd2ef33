"""The natural actor-critic (Peters & Schaal 2008)."""

import tensorflow as tf
from tf_agents.trajectories import time_step as ts
from tf_agents.typing import types

from ngrl import losses
from ngrl.agents.advantage import GeneralisedAdvantage
from ngrl.agents.compatible import CompatibleCritic, LstdQ, Steps
from ngrl.agents.critic import Critic
from ngrl.agents.npg_agent import NpgAgent
from ngrl.agents.on_policy_agent import PolicyBatch
from ngrl.configurable import configurable
from ngrl.curvature import EmpiricalFisher, num_parameters
from ngrl.networks import ActorNetwork
from ngrl.optimizers import NaturalGradient, NaturalGradientStats


@configurable
class NacAgent(NpgAgent):
    """`θ ← θ + s w`, w the compatible critic's weights, which are the natural gradient.

    Peters & Schaal (2008); Vitay (2020), section 4.5.2. A critic that fits `Q(s, a) = V(s) + ∇_θ log π(a|s)ᵀ w` by
    least squares has found the natural gradient in w, and the policy gradient in F w (Kakade 2002, theorem 1), with F
    the Hessian of the mean KL(π_old ‖ π) at θ_old. The optimizer takes its natural step for that gradient,
    `(F + λI)⁻¹ F w`, as long as it says (see `NpgAgent`): w itself without damping, and with damping w less what
    directions add in which the policy hardly changes.

    The compatible critic sees observations as the policy does, normalised or not, and rewards as they come (but for
    `CompatibleRegression`, which takes what `advantage` makes of them). The critic network is optional: it serves
    `LstdQ` with `basis="critic"`, `CompatibleRegression`, and what is reported of advantages.

    Args:
      time_step_spec: As in `OnPolicyAgent`.
      action_spec: As in `OnPolicyAgent`.
      actor_network: The policy; `ActorNetwork(hidden_layers=())` for the linear policies of the paper.
      optimizer: A `NaturalGradient`.
      critic: As in `OnPolicyAgent`.
      advantage: As in `OnPolicyAgent`.
      compatible_critic: `LstdQ(...)` (the default), `EpisodicCritic(...)` or `CompatibleRegression(...)`.
      seed: As in `OnPolicyAgent`.
      train_step_counter: As in `OnPolicyAgent`.
      name: Name of the agent.

    Raises:
      ValueError: As `NpgAgent`; or the compatible critic can't serve this policy.
    """

    def __init__(
        self,
        time_step_spec: ts.TimeStep,
        action_spec: types.NestedTensorSpec,
        actor_network: ActorNetwork,
        optimizer: NaturalGradient,
        critic: Critic | None = None,
        advantage: GeneralisedAdvantage | None = None,
        compatible_critic: CompatibleCritic | None = None,
        seed: int = 0,
        train_step_counter: tf.Variable | None = None,
        name: str = "NacAgent",
    ):
        super().__init__(
            time_step_spec,
            action_spec,
            actor_network,
            optimizer,
            critic,
            advantage,
            seed=seed,
            train_step_counter=train_step_counter,
            name=name,
        )
        self._compatible_critic = LstdQ() if compatible_critic is None else compatible_critic
        if not isinstance(self._compatible_critic, CompatibleCritic):
            raise ValueError(f"{name}: compatible_critic must be a CompatibleCritic, got {compatible_critic!r}")
        self._compatible_critic.check(num_parameters(actor_network.trainable_weights), critic is not None)

    def _update_policy(self, batch: PolicyBatch) -> tuple[tf.Tensor, NaturalGradientStats]:
        scores = EmpiricalFisher(
            lambda arguments: self._head.log_prob(self._parameters(arguments[0]), arguments[1]),
            self._actor.trainable_weights,
            (batch.inputs, batch.action),
            weights=batch.weights,
        )
        solution = self._compatible_critic(self._steps(batch), scores)
        operator = self._operator(batch.inputs, batch.weights)
        loss = self._surrogate_loss(batch, operator.outputs)
        # The loss falls along −F w = −Jᵀ M (J w), the weights w_i/Σw included.
        along = operator.output_metric.matvec(operator.outputs, operator.jvp(solution.value))
        output_gradient = -operator.example_weights[:, tf.newaxis] * along
        measures = self._measures(batch)
        stats = self._optimizer.apply_output_gradient(output_gradient, operator, loss=loss, **measures)
        stats = stats._replace(
            solver_iterations=stats.solver_iterations + tf.cast(solution.stats.iterations, tf.float32),
            solver_residual=tf.maximum(stats.solver_residual, tf.cast(solution.stats.residual, tf.float32)),
        )
        return loss, self._judged(stats, loss, measures["loss_fn"])

    def _steps(self, batch: PolicyBatch) -> Steps:
        """The batch's trajectories, time-major."""
        steps = tf.nest.map_structure(lambda leaf: leaf[:, :-1], batch.experience)
        masks = losses.boundary_masks(
            tf.transpose(tf.equal(steps.step_type, ts.StepType.LAST)),
            tf.transpose(tf.equal(steps.next_step_type, ts.StepType.LAST)),
        )
        num_trajectories, num_rows = batch.experience.step_type.shape
        observation = tf.nest.map_structure(
            lambda leaf: tf.reshape(leaf, [-1, *leaf.shape[2:]]), batch.experience.observation
        )

        def time_major(values: tf.Tensor, rows: int) -> tf.Tensor:
            """[B·rows, ...] as [rows, B, ...]."""
            values = tf.reshape(values, [num_trajectories, rows, *values.shape[1:]])
            return tf.transpose(values, [1, 0, *range(2, values.shape.rank)])

        return Steps(
            r_t=tf.transpose(steps.reward),
            discount_t=tf.transpose(steps.discount),
            continues_t=masks.continues_t,
            weights=time_major(batch.weights, num_rows - 1),
            is_first_tm1=tf.transpose(tf.equal(steps.step_type, ts.StepType.FIRST)),
            encoded=time_major(self._actor.encode(observation), num_rows),
            values=None if self._critic is None else time_major(self._critic.values(observation), num_rows),
            advantage=time_major(batch.advantage, num_rows - 1),
        )
