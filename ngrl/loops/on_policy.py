"""The on-policy loop: vector environments, one policy call for all their actions, one compiled call for an update."""

from concurrent import futures
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from ngrl.checks import check_count
from ngrl.configurable import configurable
from ngrl.loops.collecting import CollectingLoop
from ngrl.loops.compiled import Compiled
from ngrl.loops.loop import check_agent
from ngrl.loops.state import LoopState
from ngrl.messages import counted
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
      act_on_host: Choose actions with NumPy, from a copy of the weights: cheaper steps for small policies. The draws
        are the same, and the distributions agree to float32's rounding. For Dense layers (tanh, ReLU) on one array of
        floats.
      overlap_critic: Fit the critic on a second core while the next batch is collected, on which nothing of it depends.
        Every number is the same but for XLA's rounding, since the update is two programs then; what a skipped minibatch
        of the critic's brings about comes one batch later.

    Raises:
      ValueError: An argument is out of its range, the number of environments does not divide the batch, the agent's
        sequences don't divide T, its policy can't act on the host, or it has no critic to fit meanwhile.
    """

    def __init__(
        self,
        agent: OnPolicyAgent,
        environment: Any,
        seed: int = 0,
        batch_size: int = 2_048,
        max_skipped_updates: int = 10,
        jit_compile: bool = True,
        act_on_host: bool = False,
        overlap_critic: bool = False,
    ):
        num_envs = environment.batch_size
        batch_size = check_count("batch_size", batch_size)
        if batch_size % num_envs:
            raise ValueError(f"batch_size ({batch_size}) must be a multiple of num_envs ({num_envs})")
        check_agent(Experience.TRAJECTORIES, agent)
        length = getattr(agent, "sequence_length", 1)
        if batch_size // num_envs % length:
            raise ValueError(
                f"batch_size ({batch_size}) gives each of {num_envs} environments "
                f"{counted(batch_size // num_envs, 'step')}, no multiple of OnPolicyAgent.sequence_length ({length})"
            )
        super().__init__(
            agent, environment, seed, batch_size // num_envs, max_skipped_updates, jit_compile, act_on_host
        )
        train = agent.train
        self._fit: Compiled | None = None
        if overlap_critic:
            if getattr(agent, "critic", None) is None:
                raise ValueError("overlap_critic: there is no critic to fit: set it to False")
            train = agent.train_policy  # type: ignore[attr-defined]
            self._fit = Compiled(agent.fit_critic, jit_compile, self._used)  # type: ignore[attr-defined]
            self._worker = futures.ThreadPoolExecutor(1, "critic")
        self._train = Compiled(train, jit_compile, self._used)
        self._fitting: tuple[Any, futures.Future[Any]] | None = None  # the policy's LossInfo, and the critic's fit

    def _update(self, rows: Any) -> None:
        self._wait_for_critic()
        self.train_steps += 1
        if self._fit is None:
            self._count(self._train(rows))
            return
        info, arguments = self._train(rows)
        if self._host is not None:
            self._host.prepare(self._calls + 1)  # now: with one thread, TensorFlow does nothing beside the fit
        self._fitting = info, self._worker.submit(self._fit, *arguments)
        if self.train_steps == 1:  # it is traced by then: two at once would get in each other's way
            self._wait_for_critic()

    def _wait_for_critic(self) -> None:
        """Finish the latest update, where the critic is still being fitted."""
        if self._fitting is not None:
            info, fit = self._fitting
            self._fitting = None
            self._count(info._replace(extra=info.extra.with_critic(fit.result())))

    @property
    def _counted(self) -> int:
        return self.train_steps - (self._fitting is not None)

    def scalars(self) -> dict[str, float]:
        """Tags and values for TensorBoard."""
        self._wait_for_critic()
        return super().scalars()

    def state(self) -> LoopState:
        """Everything beside the agent's variables that the loop's future depends on; they are complete then."""
        self._wait_for_critic()
        return super().state()

    def before_export(self) -> None:
        """Finish the latest update."""
        self._wait_for_critic()

    def _count(self, info: Any) -> None:
        self._last_info = _, extra = tf.nest.map_structure(float, info)
        stats = extra.optimizer
        skipped = stats.skipped + getattr(extra, "critic_skipped", 0.0)
        self.skipped_updates += int(skipped)
        if skipped:
            cause = stats.skip_cause if stats.skipped else extra.critic_skip_cause
            self._streak = np.array([self._streak[0] + 1, self._streak[1] if self._streak[0] else cause], np.float32)
        else:
            self._streak = np.zeros(2, np.float32)
