"""What is played when training is over: whole episodes of the policy as it was exported, and a video of the first."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ngrl import environments
from ngrl.environments.loading import Backend
from ngrl.runs.files import WriteError, write_json
from ngrl.training.evaluation import UNLIMITED_STEPS, Actor, check_video, describe_specs, evaluate, record_video
from ngrl.training.export import load_policy
from ngrl.training.progress import Progress, describe_evaluation
from ngrl.training.summaries import Summaries


class FinalEvaluation(NamedTuple):
    """The greedy policy's episodes after training."""

    env_id: str
    env_kwargs: dict[str, Any] | None
    backend: Backend
    seed: int
    episodes: int  # 0 leaves the evaluation out
    max_episode_steps: int | None  # as `evaluate` takes it
    video: bool

    def check(self) -> None:
        """Refuse a video that can't be made.

        Raises:
          ValueError: The environment can't draw itself.
        """
        if self.video:
            check_video(self.env_id, self.env_kwargs)

    def warnings(self, training: environments.GymnasiumEnvironment, training_time_limit: int | None) -> list[str]:
        """What to say before training where episodes may never end.

        Args:
          training: The environments of training.
          training_time_limit: The bound that only those have.
        """
        own = training.time_limit
        if training_time_limit is not None:
            backend: Backend = "envpool" if self.backend == "envpool" else "sync"
            with contextlib.closing(
                environments.load(self.env_id, backend=backend, env_kwargs=self.env_kwargs)
            ) as playing:
                own = playing.time_limit
        if own is not None:
            return []
        lines = []
        if training_time_limit is None:
            lines.append(
                f"{self.env_id} declares no time limit: a training episode that never ends has no return to report "
                "(run.training_time_limit sets a limit)"
            )
        if self.max_episode_steps is None and (self.episodes or self.video):
            lines.append(
                f"{self.env_id} declares no time limit: evaluation breaks episodes off after {UNLIMITED_STEPS:,} steps "
                "(run.eval_max_episode_steps sets another bound)"
            )
        return lines

    def description(self, training: environments.GymnasiumEnvironment) -> dict[str, Any]:
        """What stands beside an exported policy."""
        return {
            "env_id": self.env_id,
            "env_kwargs": self.env_kwargs or {},
            "env_backend": self.backend,
            "seed": self.seed,
            "specs": describe_specs(training),
        }

    def play(self, folder: Path, env_steps: int, progress: Progress, check_stop: Callable[[], None]) -> dict[str, Any]:
        """Play the episodes with `folder/policy`, and write down what they reached.

        Args:
          folder: The run's directory.
          env_steps: Of training, where the point goes in TensorBoard.
          progress: Where to report.
          check_stop: Called before each action; what it raises ends the evaluation.

        Returns:
          The evaluation's summary.

        Raises:
          WriteError: It can't be written down; a warning has told it then.
        """
        progress.start_evaluation(self.episodes)
        result = evaluate(
            _exported(folder, check_stop),
            self.env_id,
            self.episodes,
            self.seed,
            backend=self.backend,
            env_kwargs=self.env_kwargs,
            max_episode_steps=self.max_episode_steps,
            progress=progress.evaluated,
        )
        progress.stop()
        summary = result.summary()
        try:
            write_json(folder / "evaluation.json", summary)
            with contextlib.closing(Summaries(folder / "eval")) as summaries:
                summaries.write(
                    {"eval/mean_reward": summary["mean"], "eval/mean_ep_length": summary["mean_length"]}, env_steps
                )
        except WriteError:
            progress.warn(f"not written down: greedy evaluation {describe_evaluation(summary)}")
            raise
        return summary

    def film(self, folder: Path, progress: Progress, check_stop: Callable[[], None]) -> None:
        """Save the first episode as `folder/video.gif`; a warning says what is wrong with it."""
        path = folder / "video.gif"
        actor = _exported(folder, check_stop)
        try:
            bound = record_video(actor, self.env_id, path, self.seed, self.env_kwargs, self.max_episode_steps)
        except WriteError as error:
            progress.warn(str(error))
            return
        if bound is not None:
            progress.warn(f"{path}: the episode is broken off after {bound:,} steps")


def _exported(folder: Path, check_stop: Callable[[], None]) -> Actor:
    """The policy as others will load it, between two of whose actions a signal stops what is played."""
    actor, _ = load_policy(folder / "policy")

    def act(step: Any) -> Any:
        check_stop()
        return actor(step)

    return act
