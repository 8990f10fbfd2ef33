"""Policies that act with an actor network, as TF-Agents drivers use them."""

from typing import Any

import tensorflow as tf
from tf_agents.policies import actor_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import policy_step
from tf_agents.trajectories import time_step as ts

from ngrl.agents.heads import ActionHead
from ngrl.networks import ActorNetwork, action_size
from ngrl.replay import BEHAVIOUR, MEMORY

#: Where the collect policy of continuous actions keeps what it drew, before clipping to the environment's bounds.
DRAWN = "drawn_action"


def sampled_step(
    actor_network: ActorNetwork, head: ActionHead, parameters: tf.Tensor, action_spec: Any, seed: tf.Tensor
) -> policy_step.PolicyStep:
    """What `CollectPolicy` says, but drawn statelessly: it depends on the arguments only, so a run resumes exactly.

    `parameters` [N, K] are the distribution's as `head` has them, `seed` is two integers [2].
    """
    drawn = head.sample(parameters, seed)
    spec = tf.nest.flatten(action_spec)[0]
    if actor_network.is_discrete:
        return policy_step.PolicyStep(tf.cast(drawn, spec.dtype), (), ())
    return policy_step.PolicyStep(tf.clip_by_value(drawn, spec.minimum, spec.maximum), (), {DRAWN: drawn})


def info_spec(actor_network: ActorNetwork, action_spec: Any) -> Any:
    """Spec of what a collect policy says beside its action.

    The action as drawn, where it is continuous, and what the policy remembered before, where it has a memory.
    """
    spec, info = tf.nest.flatten(action_spec)[0], {}
    if not actor_network.is_discrete:
        info[DRAWN] = tensor_spec.TensorSpec(spec.shape, spec.dtype, name=DRAWN)
    if actor_network.cell is not None:
        info[MEMORY] = actor_network.state_spec
    return info or ()


class CollectPolicy(actor_policy.ActorPolicy):
    """Samples actions.

    A continuous action is clipped to the environment's bounds; the info keeps it as it was drawn, since that is what
    the policy's log-probabilities belong to.

    Args:
      time_step_spec: Spec of the environment's time steps.
      action_spec: Spec of its actions.
      actor_network: The policy.
    """

    def __init__(self, time_step_spec: ts.TimeStep, action_spec: Any, actor_network: ActorNetwork):
        self._is_discrete, self._actor = actor_network.is_discrete, actor_network
        super().__init__(
            time_step_spec,
            action_spec,
            actor_network,
            info_spec=self._info_spec_of(actor_network, action_spec),
            clip=True,
            name="CollectPolicy",
        )

    def _info_spec_of(self, actor_network: ActorNetwork, action_spec: Any) -> Any:
        return info_spec(actor_network, action_spec)

    def _action(self, time_step: ts.TimeStep, policy_state: Any, seed: Any = None) -> policy_step.PolicyStep:
        step = super()._distribution(time_step, policy_state)
        action = step.action.sample(seed=seed)
        return policy_step.PolicyStep(action, step.state, self._info(action, policy_state))

    def _distribution(self, time_step: ts.TimeStep, policy_state: Any) -> policy_step.PolicyStep:
        step = super()._distribution(time_step, policy_state)
        return step._replace(info=self._info(None if self._is_discrete else step.action.mean(), policy_state))

    def _info(self, drawn: tf.Tensor, policy_state: Any) -> Any:
        info = {} if self._is_discrete else {DRAWN: drawn}
        return info | ({} if self._actor.cell is None else {MEMORY: policy_state}) or ()


class BehaviourPolicy(CollectPolicy):
    """Samples actions, and says in its info which distribution they were drawn from.

    `BEHAVIOUR` in the info holds the distribution's parameters, logits or μ and log σ [N, 2D]: what an
    off-policy correction needs when the trajectory is replayed.
    """

    def _info_spec_of(self, actor_network: ActorNetwork, action_spec: Any) -> Any:
        return behaviour_info_spec(actor_network, action_spec)

    def _action(self, time_step: ts.TimeStep, policy_state: Any, seed: Any = None) -> policy_step.PolicyStep:
        return self._with_behaviour(super()._action(time_step, policy_state, seed), time_step)

    def _distribution(self, time_step: ts.TimeStep, policy_state: Any) -> policy_step.PolicyStep:
        return self._with_behaviour(super()._distribution(time_step, policy_state), time_step)

    def _with_behaviour(self, step: policy_step.PolicyStep, time_step: ts.TimeStep) -> policy_step.PolicyStep:
        parameters = self._actor.distribution_parameters(time_step.observation)
        return step._replace(info={**(step.info or {}), BEHAVIOUR: parameters})


def behaviour_info_spec(actor_network: ActorNetwork, action_spec: Any) -> dict[str, tensor_spec.TensorSpec]:
    """Spec of what `BehaviourPolicy` says beside its action."""
    size = action_size(action_spec) * (1 if actor_network.is_discrete else 2)
    info = {BEHAVIOUR: tensor_spec.TensorSpec([size], tf.float32, name=BEHAVIOUR)}
    return info | (info_spec(actor_network, action_spec) or {})
