"""What a recurrent policy remembered at each step of trajectories, from what they say of it."""

from typing import Any

import tensorflow as tf
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory

from ngrl.agents.network_check import check_normaliser
from ngrl.agents.trajectories import by_trajectory, flat_rows, sizes
from ngrl.networks import ActorNetwork, MemoryInputs
from ngrl.replay import MEMORY


def recalled(
    network: ActorNetwork, encoded: tf.Tensor, experience: trajectory.Trajectory
) -> tuple[MemoryInputs, tf.Tensor]:
    """The policy's inputs, and what a critic is to see, at every row of B trajectories.

    The last row of a trajectory gives its observation only; what was remembered before it follows from the row before.

    Args:
      network: The policy that acted.
      encoded: Encoded observations [B·T, D].
      experience: The trajectories [B, T, ...], whose `policy_info` holds `MEMORY`.

    Returns:
      Inputs [B·T, ...], and the encoded observations and h after each step side by side [B·T, D + H].
    """
    num_trajectories, _ = sizes(experience)
    memory = experience.policy_info[MEMORY]
    rows = MemoryInputs(
        by_trajectory(encoded, num_trajectories), tf.equal(experience.step_type, ts.StepType.FIRST), memory
    )
    after = by_trajectory(network.remember(flat_rows(_cut(rows, slice(None, -1)))), num_trajectories)
    rows = rows._replace(memory=tf.concat([memory[:, :-1], after[:, -1:]], axis=1))
    last = network.remember(_cut(rows, -1))
    after = tf.concat([after, last[:, tf.newaxis]], axis=1)
    return flat_rows(rows), tf.concat([encoded, flat_rows(after)], axis=-1)


def _cut(rows: MemoryInputs, which: Any) -> MemoryInputs:
    """The rows [B, ...] with a number, or those [B, t, ...] of a slice."""
    return MemoryInputs(*[leaf[:, which] for leaf in rows])


def check_critic(owner: str, network: ActorNetwork, critic_network: Any) -> None:
    """Refuse a critic that doesn't see what a policy remembers, or by a normaliser that does nothing.

    Raises:
      ValueError: The policy has a memory, and the critic isn't for its `critic_spec`; or as `check_normaliser`.
    """
    if critic_network.normaliser is not network.normaliser:
        check_normaliser(owner, "the critic", critic_network.normaliser)
    if network.cell is not None and critic_network.input_tensor_spec != network.critic_spec:
        raise ValueError(
            f"{owner}: the critic of a policy that remembers is to be a ValueNetwork for the policy's critic_spec "
            f"{tuple(network.critic_spec.shape)} (encoded observation and memory), without a normaliser of its own"
        )
