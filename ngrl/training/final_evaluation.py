"""What is left when training is over: the exported policies, the greedy one's episodes, and a video of the first."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ngrl.checks import check_count, check_optional_count
from ngrl.configurable import configurable
from ngrl.environments import Environment, EnvironmentFault, GymnasiumEnvironment
from ngrl.environments.spaces import describe_converter
from ngrl.messages import counted
from ngrl.runs.events import EventFile
from ngrl.runs.files import WriteError, write_json, writing
from ngrl.seeding import Stream
from ngrl.training.evaluation import UNLIMITED_STEPS, Actor, describe_specs, evaluate, record_video, stoppable
from ngrl.training.export import export_policy, load_policy
from ngrl.training.progress import Progress, describe_evaluation

_EVALUATION = "evaluation.json"


@configurable
@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What is played with the greedy policy, when training is over and amid it.

    Args:
      episodes: How many episodes when training is over; 0 leaves that evaluation out.
      max_episode_steps: Steps after which evaluation and video break an episode off; by default 10,000 and 1,000
        where the environment declares no time limit, and its own limit elsewhere.
      capture_video: Save the first episode as `video.gif`; with `@CompiledEnvironments()` and `@EnvpoolEnvironments()`
        another one, since pictures are gymnasium's.
      every: Environment steps between evaluations amid training, of whose policies the best is kept as `policy_best/`;
        None leaves them out. Training's numbers don't depend on it.
      interim_episodes: How many episodes each of those has, the same in all, none of them one of the final evaluation.
        Where a run goes on with another number, its means are compared with those of before as they are.

    Raises:
      ValueError: A number is out of its range.
    """

    episodes: int = 100
    max_episode_steps: int | None = None
    capture_video: bool = False
    every: int | None = None
    interim_episodes: int = 10

    def __post_init__(self) -> None:
        check_count("episodes", self.episodes, 0)
        check_optional_count("max_episode_steps", self.max_episode_steps)
        check_optional_count("every", self.every)
        check_count("interim_episodes", self.interim_episodes)


class FinalEvaluation(NamedTuple):
    """A run's policies after training."""

    settings: Evaluation
    environment: Environment
    seed: int

    def warnings(self, training: GymnasiumEnvironment) -> list[str]:
        """What to say before training, with these environments, where episodes may never end."""
        env_id, limit, own = self.environment.env_id, self.environment.training_time_limit, training.time_limit
        if limit is not None:  # which only training has
            whole = self.environment.for_evaluation()
            with contextlib.closing(whole.load(self.seed, Stream.EVALUATION_EPISODES)) as playing:
                own = playing.time_limit
        if own is not None:
            return []
        lines = []
        if limit is None:
            lines.append(
                f"{env_id} declares no time limit: a training episode that never ends has no return to report "
                "(Environment.training_time_limit sets a limit)"
            )
        if self.settings.max_episode_steps is None and (self.settings.episodes or self.settings.capture_video):
            lines.append(
                f"{env_id} declares no time limit: evaluation breaks episodes off after {UNLIMITED_STEPS:,} steps "
                "(Evaluation.max_episode_steps sets another bound)"
            )
        return lines

    def describe(self, training: GymnasiumEnvironment) -> dict[str, Any]:
        """What stands beside an exported policy that was trained on these environments."""
        described = {
            "seed": self.seed,
            "specs": describe_specs(training),
            "actions": describe_converter(training.action_space),
        }
        return {**self.environment.describe(), **described}

    def export(self, agent: Any, training: GymnasiumEnvironment, folder: Path) -> None:
        """Save the greedy policy as `folder/policy` and the exploring one as `folder/policy_collect`.

        Raises:
          WriteError: One can't be written.
        """
        description = self.describe(training)
        export_policy(agent.policy, folder / "policy", description)
        export_policy(agent.collect_policy, folder / "policy_collect", description)

    def play(
        self,
        folder: Path,
        env_steps: int,
        progress: Progress,
        check_stop: Callable[[], None],
        shown: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Play the episodes with `folder/policy`, and write down what they reached.

        Args:
          folder: The run's directory.
          env_steps: Of training, where the point goes in TensorBoard.
          progress: Where to report.
          check_stop: Called before each action; what it raises ends the evaluation.
          shown: The summary that TensorBoard shows at this step already.

        Returns:
          The evaluation's summary.

        Raises:
          WriteError: It can't be written down; a warning has told it then.
        """
        progress.start_evaluation(self.settings.episodes)
        result = evaluate(
            _exported(folder, check_stop),
            self.environment,
            self.settings.episodes,
            self.seed,
            max_episode_steps=self.settings.max_episode_steps,
            progress=progress.evaluated,
            warn=progress.warn,
        )
        progress.stop()
        summary = result.summary()
        try:
            write_json(folder / _EVALUATION, summary)
            tagged = {"eval/mean_reward": "mean", "eval/mean_ep_length": "mean_length"}
            if shown is None or any(shown[name] != summary[name] for name in tagged.values()):
                with EventFile(folder / "eval") as events:
                    events.scalars({tag: summary[name] for tag, name in tagged.items()}, env_steps)
        except WriteError:
            progress.warn(f"not written down: greedy evaluation {describe_evaluation(summary)}")
            raise
        return summary

    def forget(self, folder: Path) -> None:
        """Remove what an earlier policy of the run has reached.

        Raises:
          WriteError: It can't be removed.
        """
        path = folder / _EVALUATION
        with writing(path):
            path.unlink(missing_ok=True)

    def film(self, folder: Path, progress: Progress, check_stop: Callable[[], None]) -> None:
        """Save the first episode as `folder/video.gif`; a warning says what is wrong with it."""
        path = folder / "video.gif"
        actor = _exported(folder, check_stop)
        try:
            bound = record_video(actor, self.environment, path, self.seed, self.settings.max_episode_steps)
        except (WriteError, EnvironmentFault) as error:
            progress.warn(f"no {path}: {error}" if isinstance(error, EnvironmentFault) else str(error))
            return
        if bound is not None:
            progress.warn(f"{path}: the episode is broken off after {counted(bound, 'step')}")


def _exported(folder: Path, check_stop: Callable[[], None]) -> Actor:
    """The policy as others will load it, between two of whose actions a signal stops what is played."""
    return stoppable(load_policy(folder / "policy")[0], check_stop)
