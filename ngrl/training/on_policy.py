"""The on-policy loop: vector environments, one policy call for all their actions, one compiled call for an update."""

from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from tf_agents.trajectories import policy_step

from ngrl import _tf_agents  # noqa: F401  (quiet import of tf_agents)
from ngrl.training.checkpoints import LoopState
from ngrl.training.compiled import Compiled
from ngrl.training.loop import Moved, TrainingLoop


class OnPolicyAgent(Protocol):
    """What the loop asks of an agent: TF-Agents' `train`, and sampling without hidden state."""

    collect_data_spec: Any

    def train(self, experience: Any) -> Any:
        """One update on a `Trajectory` [N, T + 1, ...]; returns a LossInfo."""

    def act(self, observation: Any, seed: Any) -> Any:
        """A `PolicyStep` for observations [N, ...]."""


class OnPolicyLoop(TrainingLoop):
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
      ValueError: An argument is out of its range, or the number of environments does not divide the batch.
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
        if batch_size < 1 or batch_size % num_envs:
            raise ValueError(f"batch_size ({batch_size}) must be a positive multiple of num_envs ({num_envs})")
        if not hasattr(agent, "act"):
            raise ValueError(f"OnPolicyLoop can't train {type(agent).__name__}: run.loop = @OffPolicyLoop is for it")
        super().__init__(environment, seed, max_skipped_updates)
        self._agent = agent
        self._steps = batch_size // num_envs
        self._act = Compiled(lambda *arguments: _flat_step(agent.act(*arguments)), jit_compile)
        self._train = Compiled(agent.train, jit_compile)
        self._last_info: Any = None
        self._row = 0
        # Arrays [N, T + 1, ...], filled up to self._row.
        self._rows = tf.nest.map_structure(
            lambda spec: np.zeros((num_envs, self._steps + 1, *spec.shape), spec.dtype.as_numpy_dtype),
            agent.collect_data_spec,
        )
        self._observation_buffers = tf.nest.flatten(self._rows.observation)
        self._info_buffers = tf.nest.flatten(self._rows.policy_info)

    def step(self) -> list[tuple[float, int]]:
        """Step every environment once; where that completes the batch, train on it.

        Returns:
          Return and length of each episode that ended.

        Raises:
          NonFiniteError: `max_skipped_updates` updates in a row were skipped.
        """
        action, *info = (leaf.numpy() for leaf in self._act(self._observation, self._draw()))
        step = self._advance(action)
        self._store(step, action, info)
        if self._row == self._steps:
            self._update()
        return step.finished

    def _store(self, step: Moved, action: np.ndarray, info: list[np.ndarray]) -> None:
        rows, row = self._rows, self._row
        rows.step_type[:, row] = step.from_step_type
        rows.action[:, row] = action
        rows.next_step_type[:, row] = step.step_type
        rows.reward[:, row] = step.reward
        rows.discount[:, row] = step.discount
        self._store_observation(row, step.from_observation)
        for buffer, leaf in zip(self._info_buffers, info, strict=True):
            buffer[:, row] = leaf
        self._row += 1

    def _store_observation(self, row: int, observation: Any) -> None:
        leaves = [observation] if isinstance(observation, np.ndarray) else tf.nest.flatten(observation)
        for buffer, leaf in zip(self._observation_buffers, leaves, strict=True):
            buffer[:, row] = leaf

    def _update(self) -> None:
        """Train on the batch. Its last row holds the observation reached and nothing else."""
        rows = self._rows
        rows.step_type[:, -1] = self._step_type
        self._store_observation(self._steps, self._observation)
        info = self._train(rows)
        self._row = 0
        self.train_steps += 1
        self._last_info = tf.nest.map_structure(float, info)
        stats = self._last_info.extra.optimizer
        skipped = stats.skipped + self._last_info.extra.critic_skipped
        self.skipped_updates += int(skipped)
        if skipped:
            # A critic's minibatch is skipped for its loss or gradient; one word will do for both.
            cause = stats.skip_cause if stats.skipped else 1.0
            self._streak = np.array([self._streak[0] + 1, self._streak[1] if self._streak[0] else cause], np.float32)
        else:
            self._streak = np.zeros(2, np.float32)
        self._check_streak()

    def scalars(self) -> dict[str, float]:
        """Tags and values of the latest update, for TensorBoard."""
        values = {"ngrl/skipped_updates": float(self.skipped_updates)}
        if self._last_info is None:
            return values
        loss, extra = self._last_info
        values |= {
            "Losses/policy_loss": loss,
            "Losses/critic_loss": extra.critic_loss,
            "ngrl/surrogate_before": extra.surrogate_before,
            "ngrl/surrogate_after": extra.surrogate_after,
            "ngrl/entropy": extra.entropy,
            "ngrl/explained_variance": extra.explained_variance,
            "ngrl/critic_gradient_norm": extra.critic_gradient_norm,
        }
        stats = extra.optimizer._asdict()
        values |= {f"ngrl/{_TAGS.get(tag, tag)}": value for tag, value in stats.items() if not tag.startswith("skip")}
        values["ngrl/kl"] = extra.kl
        return values

    def state(self) -> LoopState:
        """Everything beside the agent's variables that the loop's future depends on."""
        values, arrays = super().state()
        values["row"] = self._row
        leaves = tf.nest.flatten(self._rows)
        arrays.update({f"batch/{index}": leaf[:, : self._row].copy() for index, leaf in enumerate(leaves)})
        return LoopState(values, arrays)

    def restore(self, state: LoopState) -> None:
        """Set what `state` returned. Where environments can't be restored, the batch begins anew."""
        super().restore(state)
        self._row = state.values["row"] if self._environment.can_restore else 0
        for index, buffer in enumerate(tf.nest.flatten(self._rows)):
            buffer[:, : self._row] = state.arrays[f"batch/{index}"][:, : self._row]


def _flat_step(step: policy_step.PolicyStep) -> tuple[tf.Tensor, ...]:
    """The action, and what is said of it."""
    return step.action, *tf.nest.flatten(step.info)


# The predicted KL stands beside the measured one, which every agent has.
_TAGS = {"kl": "predicted_kl", "backtracks": "line_search_backtracks", "measured_kl": "line_search_kl"}
