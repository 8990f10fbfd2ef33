"""How on-policy agents improve their policy with a batch; a new way is a class like these, in ngrl or elsewhere."""

import abc
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ngrl import losses
from ngrl.agents.compatible import CompatibleCritic, LstdQ
from ngrl.agents.minibatches import add_stats, for_each_minibatch
from ngrl.agents.policy import Policy, PolicyBatch
from ngrl.agents.steps import check_optimizer, check_plain, is_natural, natural_step, plain_step
from ngrl.checks import check_count, check_number, check_optional_number
from ngrl.configurable import configurable
from ngrl.curvature import num_parameters
from ngrl.optimizers import GradientStats, NaturalGradient, NaturalGradientStats, check_damped_outside_rows


class PolicyUpdate(tf.Module, abc.ABC):
    """From a batch to a better policy.

    Whatever an update remembers from one batch to the next, such as running averages, it keeps in variables that it
    makes in `build`: checkpoints hold them, exported policies don't.

    Args:
      optimizer: Keras optimizer of the policy.

    Raises:
      ValueError: It is none.
    """

    def __init__(self, optimizer: tf.keras.optimizers.Optimizer):
        super().__init__(name=type(self).__name__)
        check_optimizer(self.name, optimizer)
        self.optimizer = optimizer

    @property
    def is_natural(self) -> bool:
        """Whether the network must be one that curvature operators can linearise."""
        return is_natural(self.optimizer)

    def build(self, policy: Policy, has_critic: bool) -> None:
        """Make the variables for a policy; called once, by the agent.

        Args:
          policy: What will be updated.
          has_critic: Whether the agent has a critic network.

        Raises:
          ValueError: The update can't serve this policy.
        """
        del has_critic
        self.optimizer.build(policy.variables)

    def num_steps(self, policy: Policy, batch: PolicyBatch) -> int:
        """How many steps an update takes, each of which may be skipped."""
        del policy, batch
        return 1

    @abc.abstractmethod
    def __call__(self, policy: Policy, batch: PolicyBatch) -> tuple[tf.Tensor, Any]:
        """Update the policy once, in a graph.

        Returns:
          The policy's loss before the update, a scalar, and what the update did: a named tuple of float32 scalars with
          `skipped`, `skip_cause` (a `SkipCause`) and `scalars()`, which gives by name what is worth a curve, such as
          `NaturalGradientStats` and `GradientStats`. Where something is not finite nothing may be assigned.
        """


@configurable
class PlainUpdate(PolicyUpdate):
    """REINFORCE: `θ ← θ + α Ê[∇ log π(a|s) Â]` (van Heeswijk 2022; Williams 1992).

    Without a critic Â is the discounted return to the end of the episode or the batch; with one, GAE(λ).

    Args:
      optimizer: Any Keras optimizer but `NaturalGradient`.
      max_gradient_norm: Clip the norm of the gradients, all variables together.

    Raises:
      ValueError: The optimizer is a natural gradient, or an argument out of its range.
    """

    def __init__(self, optimizer: tf.keras.optimizers.Optimizer, max_gradient_norm: float | None = None):
        super().__init__(optimizer)
        check_plain(self.name, optimizer, "NaturalUpdate takes it")
        self._max_norm = check_optional_number(f"{self.name}: max_gradient_norm", max_gradient_norm, "(0, inf)")

    def __call__(self, policy: Policy, batch: PolicyBatch) -> tuple[tf.Tensor, GradientStats]:
        """A step along the policy gradient."""

        def loss_fn() -> tf.Tensor:
            parameters = policy.parameters(batch.inputs)
            log_prob = policy.head.log_prob(parameters, batch.action)
            loss = losses.policy_gradient_loss(log_prob, batch.advantage, batch.weights)
            return loss - policy.entropy_bonus(batch, parameters)

        return plain_step(self.optimizer, policy.variables, loss_fn, self._max_norm)


@configurable
class NaturalUpdate(PolicyUpdate):
    """NPG: `θ ← θ + s F⁻¹ Ê[∇ log π(a|s) Â]`, F the Hessian of the mean KL(π_old ‖ π) at θ_old.

    The optimizer says how long the step is: a fixed `learning_rate` (Kakade 2002), `max_kl` as well, or `max_kl` with
    `learning_rate=None` for the KL-sized step s = √(2δ / gᵀF⁻¹g) (van Heeswijk 2022, Algorithm 1).

    Args:
      optimizer: A `NaturalGradient`.
      fisher_every: n; the Fisher is taken over every n-th of the batch's states, the gradient over all of them
        (Schulman et al. 2015, appendix C.1, take every tenth).

    Raises:
      ValueError: The optimizer is no natural gradient, `fisher_every` not a positive integer, or above 1 with a solver
        that works on rows alone and has no damping.
    """

    optimizer: NaturalGradient

    def __init__(self, optimizer: NaturalGradient, fisher_every: int = 1):
        super().__init__(optimizer)
        if not self.is_natural:
            raise ValueError(f"{self.name} needs NaturalGradient as its optimizer, got {type(optimizer).__name__}")
        self._every = check_count(f"{self.name}: fisher_every", fisher_every)
        if self._every == 1:
            return
        if optimizer.solver.needs_output_gradient:
            raise ValueError(
                f'{self.name}: Kfac(kind="empirical") takes the gradient\'s own states: set fisher_every=1'
            )
        try:
            check_damped_outside_rows(optimizer, f"{self.name}: with fisher_every, states count whose rows F lacks")
        except ValueError as error:
            raise ValueError(f"{error}; or set fisher_every=1") from None

    def __call__(self, policy: Policy, batch: PolicyBatch) -> tuple[tf.Tensor, NaturalGradientStats]:
        """A natural step on the surrogate loss."""
        measures = self._measures(policy, batch)
        if self._every == 1:

            def loss_of(outputs: tf.Tensor) -> tf.Tensor:
                return policy.surrogate_loss(batch, policy.by_step(outputs))

            operator = policy.fisher(batch.inputs, batch.weights)
            loss, stats = natural_step(self.optimizer, operator, loss_of, **measures)
            return loss, self._judged(stats, loss, measures["loss_fn"])
        with tf.GradientTape() as tape:
            loss = policy.surrogate_loss(batch, policy.outputs(batch.inputs))
        gradients = tape.gradient(loss, policy.variables)
        stats = self.optimizer.apply_natural_gradient(
            list(zip(gradients, policy.variables, strict=True)),
            policy.fisher(batch.inputs, batch.weights, self._every),
            loss=loss,
            **measures,
        )
        return loss, self._judged(stats, loss, measures["loss_fn"])

    def _measures(self, policy: Policy, batch: PolicyBatch) -> dict[str, Callable[[], tf.Tensor]]:
        """What the optimizer evaluates at the present policy: the surrogate loss, and for a line search the mean KL."""
        measures = {"loss_fn": lambda: policy.surrogate_loss(batch, policy.parameters(batch.inputs))}
        if self.optimizer.line_search is not None:
            measures["divergence_fn"] = lambda: policy.mean_kl(batch, policy.parameters(batch.inputs))
        return measures

    def _judged(
        self, stats: NaturalGradientStats, loss: tf.Tensor, loss_fn: Callable[[], tf.Tensor]
    ) -> NaturalGradientStats:
        """The stats with ρ = (L(θ + Δθ) − L(θ)) / gᵀΔθ where the optimizer measured none; NaN where nothing moved.

        As with a line search: F is the curvature of the KL, not of the surrogate.
        """
        if self.optimizer.line_search is not None or self.optimizer.damping_rule.needs_reduction_ratio:
            return stats
        moved = tf.not_equal(stats.predicted_change, 0)
        ratio = tf.math.divide_no_nan(tf.cast(loss_fn() - loss, tf.float32), stats.predicted_change)
        return stats._replace(reduction_ratio=tf.where(moved, ratio, float("nan")))


@configurable
class LineSearchedUpdate(NaturalUpdate):
    """TRPO: a natural step that must prove itself, by a line search on the KL and on the surrogate's improvement.

    Vitay (2020), section 4.5.3; Schulman et al. (2015), appendix C. Where no length along the direction passes,
    the parameters stay exactly as they were.

    Args:
      optimizer: A `NaturalGradient` with a `line_search`.
      fisher_every: As in `NaturalUpdate`.

    Raises:
      ValueError: As `NaturalUpdate`; or the optimizer has no line search.
    """

    def __init__(self, optimizer: NaturalGradient, fisher_every: int = 1):
        super().__init__(optimizer, fisher_every)
        if optimizer.line_search is None:
            raise ValueError(f"{self.name} needs an optimizer with line_search=BacktrackingLineSearch()")


@configurable
class ClippedUpdate(PolicyUpdate):
    """PPO: `max Ê[min(ρ Â, clip(ρ, 1 − ε, 1 + ε) Â)]` by epochs of minibatches (Vitay 2020, section 4.5.4).

    Policy and critic share no weights, so that it is all the same whether they are fitted in turn or together.

    Args:
      optimizer: Any Keras optimizer but `NaturalGradient`.
      clip_ratio: ε.
      epochs: How often each update goes through the batch.
      batch_size: Steps in a minibatch.
      max_gradient_norm: Clip the norm of the gradients, all variables together.

    Raises:
      ValueError: The optimizer is a natural gradient, or an argument out of its range.
    """

    def __init__(
        self,
        optimizer: tf.keras.optimizers.Optimizer,
        clip_ratio: float = 0.2,
        epochs: int = 10,
        batch_size: int = 64,
        max_gradient_norm: float | None = 0.5,
    ):
        super().__init__(optimizer)
        check_plain(self.name, optimizer, "NaturalUpdate takes it")
        self._clip_ratio = check_number(f"{self.name}: clip_ratio", clip_ratio, "(0, inf]")
        self._epochs = check_count(f"{self.name}: epochs", epochs)
        self._batch_size = check_count(f"{self.name}: batch_size", batch_size)
        self._max_norm = check_optional_number(f"{self.name}: max_gradient_norm", max_gradient_norm, "(0, inf)")

    def build(self, policy: Policy, has_critic: bool) -> None:
        """Make the optimizer's variables.

        Raises:
          ValueError: A minibatch holds no whole number of the policy's sequences.
        """
        if self._batch_size % policy.sequence_length:
            raise ValueError(
                f"{self.name}: batch_size ({self._batch_size}) must be a multiple of OnPolicyAgent.sequence_length "
                f"({policy.sequence_length})"
            )
        super().build(policy, has_critic)

    def num_steps(self, policy: Policy, batch: PolicyBatch) -> int:
        """The number of minibatches."""
        return policy.num_minibatches(batch.advantage.shape[0], self._batch_size, self._epochs)

    def __call__(self, policy: Policy, batch: PolicyBatch) -> tuple[tf.Tensor, GradientStats]:
        """A step for each minibatch; the loss and the gradient's norm are means, without skipped minibatches."""
        minibatches = policy.minibatches(batch.advantage.shape[0], self._batch_size, self._epochs)

        def update(rows: tf.Tensor) -> tuple[tf.Tensor, GradientStats]:
            part = batch.minibatch(rows)
            loss, stats = plain_step(self.optimizer, policy.variables, lambda: self._loss(policy, part), self._max_norm)
            # A skipped one holds a number that is not finite: it counts in `skipped`, not in the sums.
            kept = 1 - stats.skipped
            norm = tf.math.multiply_no_nan(stats.gradient_norm, kept)
            return tf.math.multiply_no_nan(loss, kept), stats._replace(gradient_norm=norm)

        def together(total: Any, more: Any) -> tuple[tf.Tensor, GradientStats]:
            return total[0] + more[0], add_stats(total[1], more[1])

        zero = tf.zeros([])
        loss, total = for_each_minibatch(minibatches, update, (zero, GradientStats(zero, zero, zero)), together)
        done = minibatches.shape[0] - total.skipped
        norm = tf.math.divide_no_nan(total.gradient_norm, done)
        return tf.math.divide_no_nan(loss, done), total._replace(gradient_norm=norm)

    def _loss(self, policy: Policy, batch: PolicyBatch) -> tf.Tensor:
        """The clipped surrogate less the entropy bonus, a scalar."""
        parameters = policy.parameters(batch.inputs)
        log_prob = policy.head.log_prob(parameters, batch.action)
        loss = losses.clipped_surrogate_loss(
            log_prob, batch.old_log_prob, batch.advantage, self._clip_ratio, batch.weights
        )
        return loss - policy.entropy_bonus(batch, parameters)


@configurable
class CompatibleUpdate(NaturalUpdate):
    """NAC: `θ ← θ + s w`, w the compatible critic's weights, which are the natural gradient.

    Peters & Schaal (2008); Vitay (2020), section 4.5.2. A critic that fits `Q(s, a) = V(s) + ∇_θ log π(a|s)ᵀ w` by
    least squares has found the natural gradient in w, and the policy gradient in F w (Kakade 2002, theorem 1), with F
    the Hessian of the mean KL(π_old ‖ π) at θ_old. The optimizer takes its natural step for that gradient,
    `(F + λI)⁻¹ F w`, as long as it says (see `NaturalUpdate`): w itself without damping, and with damping w less what
    directions add in which the policy hardly changes.

    The compatible critic sees observations as the policy does, normalised or not, and rewards as they come (but for
    `CompatibleRegression`, which takes what the agent's `advantage` makes of them). The agent's critic network is
    optional: it serves `LstdQ` with `basis="critic"`, `CompatibleRegression`, and what is reported of advantages.
    `ActorNetwork(hidden_layers=())` are the linear policies of the paper.

    Args:
      optimizer: A `NaturalGradient`.
      compatible_critic: `LstdQ(...)` (the default), `EpisodicCritic(...)` or `CompatibleRegression(...)`.

    Raises:
      ValueError: The optimizer is no natural gradient, or the compatible critic none.
    """

    def __init__(self, optimizer: NaturalGradient, compatible_critic: CompatibleCritic | None = None):
        super().__init__(optimizer)
        if optimizer.solver.needs_output_gradient:
            raise ValueError(
                f'{self.name}: Kfac(kind="empirical") takes the derivatives of a loss, w has none: take another kind'
            )
        self.compatible_critic = LstdQ() if compatible_critic is None else compatible_critic
        if not isinstance(self.compatible_critic, CompatibleCritic):
            raise ValueError(f"{self.name}: compatible_critic must be a CompatibleCritic, got {compatible_critic!r}")

    def build(self, policy: Policy, has_critic: bool) -> None:
        """Make the optimizer's variables.

        Raises:
          ValueError: The compatible critic can't serve this policy, it has a memory, or there is an entropy bonus.
        """
        if policy.network.cell is not None:
            raise ValueError(
                f"{self.name} (NAC) has no compatible critic for a policy that remembers: set ActorNetwork.recurrent "
                "to None, or take NaturalUpdate"
            )
        if policy.entropy_weight != 0:
            raise ValueError(f"{self.name}: entropy_weight must be 0, a compatible critic's gradient holds no entropy")
        self.compatible_critic.check(num_parameters(policy.variables), has_critic, policy.network.encoder is not None)
        super().build(policy, has_critic)

    def __call__(self, policy: Policy, batch: PolicyBatch) -> tuple[tf.Tensor, NaturalGradientStats]:
        """A natural step for the gradient F w."""
        assert batch.steps  # the trajectories: a minibatch has none
        solution = self.compatible_critic(batch.steps, policy.scores(batch))
        operator = policy.fisher(batch.inputs, batch.weights)
        loss = policy.surrogate_loss(batch, operator.outputs)
        # The loss falls along −F w = −Jᵀ M (J w), the weights w_i/Σw included.
        along = operator.output_metric.matvec(operator.outputs, operator.jvp(solution.value))
        output_gradient = -operator.example_weights[:, tf.newaxis] * along
        measures = self._measures(policy, batch)
        stats = self.optimizer.apply_output_gradient(output_gradient, operator, loss=loss, **measures)
        stats = stats._replace(
            solver_iterations=stats.solver_iterations + tf.cast(solution.stats.iterations, tf.float32),
            solver_residual=tf.maximum(stats.solver_residual, tf.cast(solution.stats.residual, tf.float32)),
        )
        return loss, self._judged(stats, loss, measures["loss_fn"])
