"""The greedy policy's returns amid training, and the best of those policies."""

import contextlib
import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tf_agents.policies import tf_policy

from ngrl import tags
from ngrl.environments import GymnasiumEnvironment
from ngrl.messages import counted
from ngrl.runs.events import EventFile
from ngrl.seeding import Stream
from ngrl.training.evaluation import evaluate, stoppable
from ngrl.training.export import SIDECAR, as_actor, export_policy, restore_policy
from ngrl.training.final_evaluation import FinalEvaluation
from ngrl.training.progress import Progress, describe_evaluation

#: Where the best policy is kept, in the run's directory.
BEST = "policy_best"


class InterimEvaluation:
    """Plays the same episodes with the policy of every so many steps, and exports the one whose mean was the highest.

    What the best has reached is written beside it and read from there: a run that was killed goes on with the same one.

    Args:
      evaluation: What is played, and where.
      training: The environments of training.
      policy: The greedy policy, which goes on learning.
      folder: The run's directory.
      progress: Where to report.
      check_stop: Called before each action; what it raises ends the evaluation.
    """

    def __init__(
        self,
        evaluation: FinalEvaluation,
        training: GymnasiumEnvironment,
        policy: tf_policy.TFPolicy,
        folder: Path,
        progress: Progress,
        check_stop: Callable[[], None],
    ):
        self._evaluation = evaluation
        self._description = evaluation.describe(training)
        self._policy = policy
        self._actor = stoppable(as_actor(policy), check_stop)
        self._folder = folder
        self._progress = progress
        restore_policy(folder / BEST)

    def next_after(self, env_steps: int) -> int | None:
        """At which environment step the next evaluation is due; None where there is none."""
        every = self._evaluation.settings.every
        return None if every is None else (env_steps // every + 1) * every

    def play(self, env_steps: int) -> None:
        """Play with the policy as it is after so many environment steps.

        Raises:
          WriteError: TensorBoard's point or the policy can't be written.
        """
        settings, environment, seed = self._evaluation
        with _global_generators_kept():
            summary = evaluate(
                self._actor,
                environment,
                settings.interim_episodes,
                seed,
                max_episode_steps=settings.max_episode_steps,
                warn=self._progress.warn,
                stream=Stream.INTERIM_EPISODES,
            ).summary()
        with EventFile(self._folder / "eval") as events:
            scores = {tags.INTERIM_RETURN: summary["mean"], tags.INTERIM_LENGTH: summary["mean_length"]}
            events.scalars(scores, env_steps)
        earlier = best_of(self._folder)
        is_best = math.isfinite(summary["mean"]) and (earlier is None or summary["mean"] > earlier["mean"])
        if is_best:
            reached = {"env_steps": env_steps, "mean": summary["mean"], "episodes": summary["episodes"]}
            export_policy(self._policy, self._folder / BEST, {**self._description, "evaluation": reached})
        best = ", the best so far" if is_best else ""
        self._progress.scored(env_steps, scores)
        self._progress.note(f"greedy policy at {counted(env_steps, 'step')}: {describe_evaluation(summary)}{best}")


@contextlib.contextmanager
def _global_generators_kept() -> Iterator[None]:
    """For environments of training, in this process, that draw from the global generators of Python and NumPy."""
    kept = random.getstate(), np.random.get_state()  # noqa: NPY002  (those are the ones)
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002


def best_of(folder: Path) -> dict[str, Any] | None:
    """What the best policy amid a run had reached: `env_steps`, `mean`, `episodes`; None where none is kept."""
    try:
        return json.loads((folder / BEST / SIDECAR).read_text(encoding="utf-8"))["evaluation"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
