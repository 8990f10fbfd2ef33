"""ACER's critics: what they say of states and actions under the present policy, and how their loss is made."""

import abc
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from ngrl import losses
from ngrl.agents.heads import ActionHead
from ngrl.agents.network_check import check_action_values
from ngrl.networks import (
    QNetwork,
    StochasticDuelingNetwork,
    action_size,
    describe_actions,
    is_discrete_action,
    num_discrete_actions,
)


class Judgement(NamedTuple):
    """A critic's view of N states under a policy; all but `taken` and `value` are constants.

    Beside the action taken there are J others, over which the bias correction's expectation E_{a ~ π} is formed.
    """

    taken: tf.Tensor  # Q(x, a) of the action taken [N]
    value: tf.Tensor  # V(x) [N]
    others: tf.Tensor  # J actions: int32 [N, J] or float32 [N, J, D]
    other_values: tf.Tensor  # Q(x, a_j) [N, J]
    other_weights: tf.Tensor  # w_j of Σ_j w_j … ≈ E_{a ~ π} [N, J]


class ActionValueCritic(abc.ABC):
    """Estimates V(x) and Q(x, a) under the present policy."""

    #: d of ρ^(1/d) in Retrace's coefficient.
    num_dimensions: int

    @property
    @abc.abstractmethod
    def variables(self) -> Sequence[tf.Variable]:
        """What is trained."""

    @abc.abstractmethod
    def check(self, owner: str, action_spec: Any) -> None:
        """Raise a ValueError where the environment's actions are others than those that it judges."""

    @abc.abstractmethod
    def judge(
        self, observation: Any, actions: tf.Tensor, parameters: tf.Tensor, head: ActionHead, seed: tf.Tensor
    ) -> Judgement:
        """Judge N states and the actions taken there.

        Args:
          observation: Observations [N, ...].
          actions: Actions taken [N] or [N, D].
          parameters: The present policy's distribution parameters [N, K], constants.
          head: What they mean.
          seed: Two integers [2], from which draws follow.
        """

    @abc.abstractmethod
    def errors(self, judgement: Judgement, target: tf.Tensor, log_ratio: tf.Tensor) -> tf.Tensor:
        """The loss of each step [N].

        Args:
          judgement: From `judge`.
          target: Q^ret [N].
          log_ratio: log ρ of the actions taken [N].
        """


class DiscreteCritic(tf.Module, ActionValueCritic):
    """One value an action; V(x) = Σ_a π(a|x) Q(x, a), and the bias correction is the sum over all actions.

    Args:
      network: Gives Q(x, ·).
    """

    num_dimensions = 1

    def __init__(self, network: QNetwork):
        super().__init__(name="DiscreteCritic")
        network.create_variables()
        self.network = network

    @property
    def variables(self) -> Sequence[tf.Variable]:
        """What is trained."""
        return self.network.trainable_weights

    def check(self, owner: str, action_spec: Any) -> None:
        """Refuse actions of which it doesn't give a value each.

        Raises:
          ValueError: They are continuous, several at once, or more or fewer.
        """
        size = num_discrete_actions(action_spec)
        if size is None:
            raise ValueError(f"{owner}: DiscreteCritic does not fit {describe_actions(action_spec)}")
        check_action_values(owner, self.network, self.network.input_tensor_spec, size)

    def judge(
        self, observation: Any, actions: tf.Tensor, parameters: tf.Tensor, head: ActionHead, seed: tf.Tensor
    ) -> Judgement:
        """Judge N states; J = A."""
        del head, seed
        q = self.network(observation)[0]
        constant_q = tf.stop_gradient(q)
        policy = tf.nn.softmax(parameters)
        return Judgement(
            taken=losses.gather_actions(q, tf.cast(actions, tf.int32)),
            value=tf.reduce_sum(policy * constant_q, axis=-1),
            others=tf.broadcast_to(tf.range(q.shape[1]), tf.shape(q)),
            other_values=constant_q,
            other_weights=policy,
        )

    def errors(self, judgement: Judgement, target: tf.Tensor, log_ratio: tf.Tensor) -> tf.Tensor:
        """`½ (Q^ret − Q(x, a))²` [N] (Wang et al. 2017, section 3.1)."""
        del log_ratio
        return losses.half_squared_error(target, judgement.taken)


class DuelingCritic(tf.Module, ActionValueCritic):
    """Q̃(x, a) and V(x) of a stochastic dueling network; the bias correction has one draw from the policy.

    Args:
      network: Gives V(x) and A(x, a).
    """

    def __init__(self, network: StochasticDuelingNetwork):
        super().__init__(name="DuelingCritic")
        self.network = network
        self.num_dimensions = network.num_dimensions

    @property
    def variables(self) -> Sequence[tf.Variable]:
        """What is trained."""
        return self.network.trainable_variables

    def check(self, owner: str, action_spec: Any) -> None:
        """Refuse actions that are no vectors of the network's length.

        Raises:
          ValueError: They are discrete, or longer or shorter.
        """
        if is_discrete_action(action_spec):
            raise ValueError(f"{owner}: DuelingCritic does not fit discrete actions")
        size = action_size(action_spec)
        if size != self.num_dimensions:
            raise ValueError(f"{owner}: the critic is for {self.num_dimensions} actions, the environment has {size}")

    def judge(
        self, observation: Any, actions: tf.Tensor, parameters: tf.Tensor, head: ActionHead, seed: tf.Tensor
    ) -> Judgement:
        """Judge N states; J = 1."""
        draws = self.network.num_samples + 1
        repeated = tf.repeat(parameters, draws, axis=0)
        drawn = tf.reshape(head.sample(repeated, seed), [-1, draws, actions.shape[-1]])
        value = self.network.value(observation)
        advantages = self.network.advantages(observation, tf.concat([actions[:, tf.newaxis], drawn], axis=1))
        # Row 0 is the action taken, row 1 the bias correction's a' ~ π, the rest are the u_i.
        taken, other, samples = advantages[:, 0], advantages[:, 1], advantages[:, 2:]
        other_value = losses.stochastic_dueling(value, other, samples)
        return Judgement(
            taken=losses.stochastic_dueling(value, taken, samples),
            value=value,
            others=drawn[:, :1],
            other_values=tf.stop_gradient(other_value)[:, tf.newaxis],
            other_weights=tf.ones_like(value)[:, tf.newaxis],
        )

    def errors(self, judgement: Judgement, target: tf.Tensor, log_ratio: tf.Tensor) -> tf.Tensor:
        """`½ (Q^ret − Q̃)² + ½ (V^target − V)²` [N] with `V^target = min(1, ρ)(Q^ret − Q̃) + V`.

        Wang et al. 2017, section 5.1: with the second term V keeps learning though A can explain what is left of Q̃.
        """
        error = tf.stop_gradient(target - judgement.taken)
        value_target = losses.truncated_ratio(log_ratio, 1.0) * error + tf.stop_gradient(judgement.value)
        of_value = losses.half_squared_error(value_target, judgement.value)
        return losses.half_squared_error(target, judgement.taken) + of_value
