"""The on-policy loop: vector environments, one policy call for all their actions, one compiled call for an update."""

from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from ngrl.checks import check_count
from ngrl.configurable import configurable
from ngrl.loops.collecting import CollectingLoop
from ngrl.loops.compiled import Compiled
from ngrl.loops.loop import check_agent
from ngrl.replay import Experience


class OnPolicyAgent(Protocol):
    """What the loop asks of an agent: TF-Agents' `train`, and sampling without hidden state.

    What a policy remembers is no hidden state: the loop carries it, if `collect_data_spec.policy_info` holds `MEMORY`.
    """

    experience: Experience
    collect_data_spec: Any

    def train(self, experience: Any) -> Any:
        """One update on a `Trajectory` [N, T + 1, ...]; its LossInfo's `extra.scalars(loss)` says tags and values."""

    def act(self, observation: Any, seed: Any, *memory: Any) -> Any:
        """A `PolicyStep` for observations [N, ...]; `memory` is step types [N] and it [N, H], `state` the next one."""


@configurable
class OnPolicyLoop(CollectingLoop):
    """Collects a batch with N environments, trains on it once, throws it away.

    Each environment contributes T = `batch_size` / N steps in a row, which may end in the middle of an episode and
    hold several; the resets between them take a step of a batch each, which trains nothing. The batch is gathered in
    the host's memory and goes to the device in one piece; returns, the policy's update and the critic's epochs are
    one compiled call.

    Args:
      agent: The agent.
      environment: A batched environment of `ngrl.environments`.
      seed: Seed of the actions.
      batch_size: Steps in a batch, those of all environments together.
      max_skipped_updates: Updates in a row that may be skipped because of a number that is not finite.
      jit_compile: Compile with XLA.

    Raises:
      ValueError: An argument is out of its range, the number of environments does not divide the batch, or the agent's
        sequences don't divide T.
    """

    def __init__(
        self,
        agent: OnPolicyAgent,
        environment: Any,
        seed: int = 0,
        batch_size: int = 2_048,
        max_skipped_updates: int = 10,
        jit_compile: bool = True,
    ):
        num_envs = environment.batch_size
        if check_count("batch_size", batch_size) % num_envs:
            raise ValueError(f"batch_size ({batch_size}) must be a multiple of num_envs ({num_envs})")
        check_agent(Experience.TRAJECTORIES, agent)
        length = getattr(agent, "sequence_length", 1)
        if batch_size // num_envs % length:
            raise ValueError(
                f"batch_size ({batch_size}) gives each of {num_envs} environments {batch_size // num_envs} steps, no "
                f"multiple of OnPolicyAgent.sequence_length ({length})"
            )
        super().__init__(agent, environment, seed, batch_size // num_envs, max_skipped_updates, jit_compile)
        self._train = Compiled(agent.train, jit_compile, self._used)

    def _update(self, rows: Any) -> None:
        info = self._train(rows)
        self.train_steps += 1
        self._last_info = _, extra = tf.nest.map_structure(float, info)
        stats = extra.optimizer
        skipped = stats.skipped + getattr(extra, "critic_skipped", 0.0)
        self.skipped_updates += int(skipped)
        if skipped:
            # A critic's minibatch is skipped for its loss or gradient; one word will do for both.
            cause = stats.skip_cause if stats.skipped else 1.0
            self._streak = np.array([self._streak[0] + 1, self._streak[1] if self._streak[0] else cause], np.float32)
        else:
            self._streak = np.zeros(2, np.float32)
