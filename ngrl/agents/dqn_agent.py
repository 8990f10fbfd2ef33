"""Deep Q-learning, with a natural-gradient or a plain optimizer (Knight & Lerner 2018; Mnih et al. 2013, 2015)."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import tensorflow as tf
from tf_agents.agents import data_converter, tf_agent
from tf_agents.networks import network
from tf_agents.policies import epsilon_greedy_policy, greedy_policy, q_policy
from tf_agents.trajectories import policy_step, trajectory
from tf_agents.trajectories import time_step as ts
from tf_agents.typing import types

from ngrl import losses
from ngrl.agents.average import Average
from ngrl.agents.linearisable import linearisable
from ngrl.agents.minibatches import masked_rows
from ngrl.agents.network_check import (
    check_action_values,
    check_kind,
    check_separate,
    check_trainable,
    freeze_alike,
    penalty_of,
)
from ngrl.agents.q_lambda import QLambda
from ngrl.agents.schedules import counter
from ngrl.agents.steps import Stepper, differentiated, is_natural
from ngrl.agents.target_update import FunctionalRegularisation, TargetUpdate, follow_update
from ngrl.agents.trajectories import boundaries, by_trajectory, flat_rows, one_each, sizes, time_major
from ngrl.checks import check_choice, check_number
from ngrl.configurable import configurable
from ngrl.curvature import GaussNewton, SquaredError
from ngrl.networks import describe_actions, num_discrete_actions
from ngrl.optimizers import GradientStats, NaturalGradientStats
from ngrl.replay import Experience
from ngrl.seeding import GENERATOR

TdLoss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class DqnExtra(NamedTuple):
    """`LossInfo.extra` of `DqnAgent`: float32 scalars."""

    q_mean: tf.Tensor  # mean action value of the actions taken
    td_error: tf.Tensor  # mean |y − Q(s, a)|
    optimizer: NaturalGradientStats | GradientStats

    def scalars(self, loss: Any) -> dict[str, Any]:
        """Tags and values for TensorBoard, `LossInfo.loss` among them."""
        return {
            "Losses/td_loss": loss,
            "Losses/td_error": self.td_error,
            "ngrl/q_mean": self.q_mean,
            **{f"ngrl/{name}": value for name, value in self.optimizer.scalars().items()},
        }


class _Batch(NamedTuple):
    """One minibatch of transitions; `weights` are 0 at episode boundaries, which are no transitions."""

    observation: Any
    action: tf.Tensor  # [B] int32
    target: tf.Tensor  # y [B]
    weights: tf.Tensor  # [B]
    lagging: Any  # with functional regularisation what the network that follows says [B, A], else ()


@configurable
class DqnAgent(tf_agent.TFAgent):
    """A DQN agent for one discrete action, usable in any TF-Agents driver or Learner.

    With `NaturalGradient` as its optimizer and no target network this is Knight & Lerner's NGDQN (Algorithm 1): the
    Fisher of eq. 14 on the minibatch's states, the TD target a constant for both loss and Fisher. The network's
    regularisers count in the loss, as in TF-Agents, and not in the Fisher.

    Args:
      time_step_spec: Spec of the environment's time steps.
      action_spec: A scalar, integer, bounded spec with minimum 0.
      q_network: A TF-Agents network from observations to action values [B, A], without a state, and without layers
        that draw random numbers or normalise over the batch.
      optimizer: `NaturalGradient` or any other Keras optimizer.
      epsilon_greedy: ε of the collect policy: a number, a variable, or a callable.
      gamma: Discount factor γ.
      target_update: How a target network follows; None bootstraps from the online network, and so does
        `FunctionalRegularisation(...)`, which holds the online network to the one that follows.
      double_q: Let the online network choose and the target network value the next action. Needs `target_update`.
      td_loss: Elementwise loss of target [B] and prediction [B], differentiable in the prediction; gives [B].
      fisher_outputs: "chosen" takes the Fisher over the outputs of the actions taken, which alone carry a residual
        (B rows); "all" over every output (B·A rows, the paper's eq. 7).
      max_gradient_norm: Clip the norm of a plain optimizer's gradients, all variables together.
      multi_step: Looks several steps ahead for targets, `QLambda(...)`: `train` then takes trajectories [B, n + 1, ...]
        and trains on the first step of each. None for one step.
      reward_scale: Factor on rewards.
      train_step_counter: Counts train steps; a counter of this agent's own by default.
      name: Name of the agent.

    Raises:
      ValueError: The action spec is not one discrete action from 0, the network's output does not fit it, the network
        is one that would be trained wrongly, or options contradict each other.
    """

    experience = Experience.TRANSITIONS

    def __init__(
        self,
        time_step_spec: ts.TimeStep,
        action_spec: types.NestedTensorSpec,
        q_network: network.Network,
        optimizer: tf.keras.optimizers.Optimizer,
        epsilon_greedy: float | tf.Variable | Callable[[], Any] = 0.1,
        gamma: float = 0.99,
        target_update: TargetUpdate | None = None,
        double_q: bool = False,
        td_loss: TdLoss = losses.half_squared_error,
        fisher_outputs: Literal["chosen", "all"] = "chosen",
        max_gradient_norm: float | None = None,
        multi_step: QLambda | None = None,
        reward_scale: float = 1.0,
        train_step_counter: tf.Variable | None = None,
        name: str = "DqnAgent",
    ):
        tf.Module.__init__(self, name=name)
        self._num_actions = check_discrete_action(action_spec)
        self._stepper = Stepper(name, optimizer, max_gradient_norm)
        self._pull = target_update.weight if isinstance(target_update, FunctionalRegularisation) else 0.0
        _check_loss(name, td_loss, target_update, double_q)
        check_choice("fisher_outputs", fisher_outputs, ("chosen", "all"))
        if is_natural(optimizer) and optimizer.line_search is not None:
            raise ValueError("DqnAgent takes no line search, which measures the KL of a policy: set line_search=None")
        check_kind(name, q_network)
        q_network.create_variables(time_step_spec.observation)
        check_trainable(name, q_network, is_natural(optimizer))
        check_action_values(name, q_network, time_step_spec.observation, self._num_actions)
        self._penalty = penalty_of(name, q_network, optimizer)
        self._q_network = q_network
        self._optimizer = optimizer
        self._gamma = check_number("gamma", gamma, "[0, 1]")
        self._target_update = target_update
        self._double_q = double_q
        self._td_loss = td_loss
        self._fisher_outputs = fisher_outputs
        self._multi_step = multi_step
        self._reward_scale = check_number("reward_scale", reward_scale, "(0, inf)")
        self._average: Average | None = None
        self._average_acts = False
        self._target_network: Any = None
        if target_update is not None:
            self._target_network = q_network.copy(name="TargetQNetwork")
            self._target_network.create_variables(time_step_spec.observation)
            freeze_alike(q_network, self._target_network)
            check_separate(name, "the Q-network", q_network, "its copy, the target network,", self._target_network)
        self._encode, self._forward = linearisable(q_network)
        with tf.init_scope():
            optimizer.build(q_network.trainable_weights)

        self._epsilon = epsilon_greedy = _settable(name, epsilon_greedy)
        policy = q_policy.QPolicy(time_step_spec, action_spec, q_network=q_network)
        super().__init__(
            time_step_spec,
            action_spec,
            policy=greedy_policy.GreedyPolicy(policy),
            collect_policy=epsilon_greedy_policy.EpsilonGreedyPolicy(policy, epsilon=epsilon_greedy),
            train_sequence_length=2 if multi_step is None else multi_step.num_steps + 1,
            train_step_counter=counter(train_step_counter),
        )
        self._as_transition = data_converter.AsTransition(self.data_context, squeeze_time_dim=True)
        self._initialize()

    @property
    def q_network(self) -> network.Network:
        """The online network."""
        return self._q_network

    @property
    def optimizer(self) -> tf.keras.optimizers.Optimizer:
        """The optimizer."""
        return self._optimizer

    def zero_extra(self) -> DqnExtra:
        """An all-zero `LossInfo.extra`, the start of an accumulator in a compiled loop."""
        return DqnExtra(tf.zeros([]), tf.zeros([]), self._stepper.zero_stats())

    def set_epsilon(self, value: float) -> None:
        """Set ε of the collect policy, where it is a number or a variable."""
        if isinstance(self._epsilon, tf.Variable):
            self._epsilon.assign(value)

    def act(self, observation: Any, seed: tf.Tensor, epsilon: tf.Tensor) -> policy_step.PolicyStep:
        """ε-greedy actions [B] that depend on the arguments and the weights only (stateless, so it resumes exactly).

        Args:
          observation: Observations [B, ...].
          seed: Two integers [2].
          epsilon: Probability of a uniformly random action, a scalar.
        """
        acting = self._average.network if self._average is not None and self._average_acts else self._q_network
        q_values, _ = acting(observation)
        greedy = tf.argmax(q_values, axis=1, output_type=tf.int32)
        uniform = tf.random.stateless_uniform([2, tf.size(greedy)], seed, alg=GENERATOR)
        random = tf.cast(uniform[0] * self._num_actions, tf.int32)  # rounded down: uniform numbers are below 1
        explores = uniform[1] < epsilon
        return policy_step.PolicyStep(tf.cast(tf.where(explores, random, greedy), self.action_spec.dtype), (), ())

    def average_into(self, network: network.Network, update: TargetUpdate, acts: bool = False) -> None:
        """Make `policy` greedy in an `Average` of the action values; targets stay what they are.

        Args:
          network: Becomes the average: a network like the Q-network.
          update: How it follows the Q-network after each update that was not skipped.
          acts: The average collects experience too, ε-greedily; by default `collect_policy` stays what it is.

        Raises:
          ValueError: The network's weights are not of the Q-network's shapes, or are the Q-network's own.
        """
        observation_spec, natural = self.time_step_spec.observation, is_natural(self._optimizer)
        self._average = Average(self.name, "the Q-network", self._q_network, network, update, observation_spec, natural)
        policy = q_policy.QPolicy(self.time_step_spec, self.action_spec, q_network=network)
        self._policy = greedy_policy.GreedyPolicy(policy)
        self._average_acts = acts
        if acts:
            self._collect_policy = epsilon_greedy_policy.EpsilonGreedyPolicy(policy, epsilon=self._epsilon)

    def system(self, experience: Any) -> tuple[GaussNewton, tf.Tensor]:
        """The system `F x = g` of a natural step on a minibatch, which any optimizer may take.

        Args:
          experience: As in `train`.

        Returns:
          F, and the loss's gradient ∂L/∂y [B, A], so that g = Jᵀ ∂L/∂y; regularisers are left out.
        """
        batch = self._batch(experience, None)
        operator = self._curvature(batch)
        return operator, differentiated(lambda q_values: self._td(batch, q_values)[0], operator.outputs)[1]

    def _initialize(self) -> None:
        if self._target_network is not None:
            for source, target in zip(self._q_network.variables, self._target_network.variables, strict=True):
                target.assign(source)

    def _train(self, experience: Any, weights: tf.Tensor | None = None) -> tf_agent.LossInfo:
        info = self._step(self._batch(experience, weights))
        skipped = info.extra.optimizer.skipped
        if self._average is not None:
            self._average.follow(self.train_step_counter, skipped)
        if self._target_update is not None:
            online, target = self._q_network.variables, self._target_network.variables
            follow_update(self._target_update, online, target, self.train_step_counter, skipped)
        self.train_step_counter.assign_add(1)
        return info

    def _loss(self, experience: Any, weights: tf.Tensor | None = None, training: bool = False) -> tf_agent.LossInfo:
        del training
        batch = self._batch(experience, weights)
        loss, _ = self._td(batch, self._q_network(batch.observation)[0])
        return tf_agent.LossInfo(loss if self._penalty is None else loss + self._penalty(), extra=())

    def _batch(self, experience: Any, weights: tf.Tensor | None) -> _Batch:
        if self._multi_step is not None:
            return self._first_steps(experience, weights)
        time_steps, policy_steps, next_time_steps = self._as_transition(experience)
        q_t, selector = self._bootstrapped(next_time_steps.observation)
        r_t = self._reward_scale * next_time_steps.reward
        if self._double_q:
            target = losses.double_q_target(r_t, next_time_steps.discount, q_t, selector, self._gamma)
        else:
            target = losses.q_learning_target(r_t, next_time_steps.discount, q_t, self._gamma)
        # From the last step of an episode to the first of the next nothing was decided: no transition.
        mask = tf.cast(tf.logical_not(time_steps.is_last()), target.dtype)
        return self._masked(time_steps.observation, policy_steps.action, target, mask, weights)

    def _masked(
        self, observation: Any, action: tf.Tensor, target: tf.Tensor, mask: tf.Tensor, weights: tf.Tensor | None
    ) -> _Batch:
        """B steps of which those count whose mask is 1, each with its weight where there are weights."""
        # Masked entries have no gradient then, whatever they hold: a slope of 0 times NaN would be NaN.
        kept = (observation, tf.cast(action, tf.int32), target)
        observation, action, target = tf.nest.map_structure(lambda leaf: masked_rows(leaf, mask > 0), kept)
        return _Batch(
            observation=observation,
            action=action,
            target=target,
            weights=mask if weights is None else mask * one_each(self.name, weights, mask.shape[0]),
            lagging=self._target_network(observation)[0] if self._pull else (),
        )

    def _bootstrapped(self, observation: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Action values [N, A] of states reached: those to bootstrap from, and those that choose the action."""
        from_online = self._target_network is None or self._pull
        network_t = self._q_network if from_online else self._target_network
        q_t, _ = network_t(observation)
        return q_t, self._q_network(observation)[0] if self._double_q else q_t

    def _first_steps(self, experience: trajectory.Trajectory, weights: tf.Tensor | None) -> _Batch:
        """The first step of each trajectory [B, n + 1, ...]."""
        assert self._multi_step is not None
        num_rows, num_steps = sizes(experience)[1], self._multi_step.num_steps
        if num_rows != num_steps + 1:
            raise ValueError(
                f"{self.name} looks {num_steps} steps ahead: trajectories need {num_steps + 1} rows, got {num_rows}"
            )
        targets, masks = self._returns(self._multi_step, experience)
        observation, action = tf.nest.map_structure(
            lambda leaf: leaf[:, 0], (experience.observation, experience.action)
        )
        return self._masked(observation, action, targets[0], masks.weights[0], weights)

    def _returns(
        self, multi_step: QLambda, experience: trajectory.Trajectory
    ) -> tuple[tf.Tensor, losses.BoundaryMasks]:
        """Targets of trajectories [B, T + 1, ...] and where they hold; both [T, B]."""
        num_trajectories, _ = sizes(experience)
        q_t, selector = self._bootstrapped(
            flat_rows(tf.nest.map_structure(lambda leaf: leaf[:, 1:], experience.observation))
        )
        v_t = losses.gather_actions(q_t, tf.argmax(selector, axis=1, output_type=tf.int32))
        v_t, selector = (time_major(by_trajectory(values, num_trajectories)) for values in (v_t, selector))
        a_t = time_major(tf.cast(experience.action[:, 1:], tf.int32))
        steps = tf.nest.map_structure(lambda leaf: leaf[:, :-1], experience._replace(observation=()))
        masks = boundaries(steps)
        r_t, discount_t = self._reward_scale * time_major(steps.reward), time_major(steps.discount)
        return multi_step(r_t, discount_t, masks.continues_t, v_t, selector, a_t, self._gamma), masks

    def _td(self, batch: _Batch, q_values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The weighted mean loss and the action values of the actions taken [B]."""
        chosen = losses.gather_actions(q_values, batch.action)
        loss = self._td_loss(batch.target, chosen)
        if self._pull:
            lagging = losses.gather_actions(tf.stop_gradient(batch.lagging), batch.action)
            loss += self._pull * losses.half_squared_error(lagging, chosen)
        return losses.weighted_mean(loss, batch.weights), chosen

    def _curvature(self, batch: _Batch) -> GaussNewton:
        """The Fisher F over the batch's states."""
        inputs, variables = self._encode(batch.observation), self._q_network.trainable_weights
        metric = SquaredError(chosen=batch.action if self._fisher_outputs == "chosen" else None)
        return GaussNewton(self._forward, variables, inputs, metric, weights=batch.weights)

    def _outputs(self, observation: Any) -> tf.Tensor:
        """Action values [B, A], by the function that the kind of step differentiates."""
        if is_natural(self._optimizer):
            return self._forward(self._encode(observation))
        return self._q_network(observation)[0]

    def _step(self, batch: _Batch) -> tf_agent.LossInfo:
        loss, outputs, stats = self._stepper.step(
            self._q_network.trainable_weights,
            lambda: self._outputs(batch.observation),
            lambda q_values: self._td(batch, q_values)[0],
            lambda: self._curvature(batch),
            self._penalty,
        )
        chosen = losses.gather_actions(outputs, batch.action)
        extra = DqnExtra(
            q_mean=losses.weighted_mean(chosen, batch.weights),
            td_error=losses.weighted_mean(tf.abs(batch.target - chosen), batch.weights),
            optimizer=stats,
        )
        return tf_agent.LossInfo(loss, extra)


def _check_loss(owner: str, td_loss: Any, target_update: Any, double_q: bool) -> None:
    """Refuse what makes no TD loss: no function, no rule by which a target network follows, or none for double Q."""
    if double_q and (target_update is None or isinstance(target_update, FunctionalRegularisation)):
        raise ValueError("double_q needs a target network: set target_update to HardUpdate or SoftUpdate")
    if not (target_update is None or isinstance(target_update, TargetUpdate)):
        raise ValueError(f"{owner}: target_update must be HardUpdate(), SoftUpdate() or None, got {target_update!r}")
    if not callable(td_loss):
        raise ValueError(f"{owner}: td_loss must be a function such as half_squared_error, got {td_loss!r}")
    shape = tf.convert_to_tensor(td_loss(tf.zeros([2]), tf.zeros([2]))).shape
    if shape != [2]:
        raise ValueError(
            f"{owner}: td_loss must give a number for each target and prediction [B]; of two it gives shape {shape}"
        )


def _settable(owner: str, epsilon: Any) -> Any:
    """A number ε as a variable; a variable, a tensor or a callable as it is."""
    if isinstance(epsilon, (tf.Variable, tf.Tensor)) or callable(epsilon):
        return epsilon
    value = check_number(f"{owner}: epsilon_greedy", epsilon, "[0, 1]")
    return tf.Variable(value, trainable=False, name="epsilon")


def check_discrete_action(action_spec: types.NestedTensorSpec) -> int:
    """The number of actions.

    Raises:
      ValueError: The spec is not that of one discrete action counted from 0.
    """
    number = num_discrete_actions(action_spec)
    if number is None:
        raise ValueError(
            f"DqnAgent needs one discrete action counted from 0, the environment has {describe_actions(action_spec)}"
        )
    return number
