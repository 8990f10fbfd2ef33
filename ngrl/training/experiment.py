"""One training run, from an empty (or half-finished) directory to an evaluated and exported policy."""

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tf_agents.specs import tensor_spec

from ngrl import seeding, tags
from ngrl.checks import check_optional_count
from ngrl.configurable import configurable
from ngrl.environments import Environment, GymnasiumEnvironment
from ngrl.loops.loop import NonFiniteError, TrainingLoop
from ngrl.loops.statistics import EpisodeStatistics, FinishedEpisode, episode_scalars
from ngrl.messages import counted, reason
from ngrl.runs.directory import RunDirectory
from ngrl.runs.episodes import Episode, EpisodeLog
from ngrl.runs.events import EventFile
from ngrl.runs.files import CheckpointError, WriteError
from ngrl.runs.record import Status
from ngrl.signals import Interrupted, StopRequest
from ngrl.training.checkpoints import CheckpointStore
from ngrl.training.context import RunContext
from ngrl.training.evaluation import check_video
from ngrl.training.final_evaluation import Evaluation, FinalEvaluation
from ngrl.training.interim_evaluation import InterimEvaluation, best_of
from ngrl.training.progress import Progress


class RunResult(dict[str, Any]):
    """What a run reached: the JSON object under `final` in `run.json`."""


@configurable
def run(
    context: RunContext,
    /,
    environment: Environment,
    agent: Callable[..., Any],
    loop: Callable[..., TrainingLoop],
    num_env_steps: int | None = None,
    num_episodes: int | None = None,
    seed: int = 0,
    log_every: int = 1_000,
    checkpoint_every: int = 20_000,
    keep_checkpoints: int = 2,
    evaluation: Evaluation = Evaluation(),  # noqa: B008  (frozen)
) -> RunResult:
    """Train, evaluate the greedy policy, export it.

    Continues by itself where an earlier call with the same directory stopped; `Progress.stop_training` ends it early.
    It is refused where environment, seed or the optimizer's `get_config()` are others; of what else `agent` and `loop`
    were built with (networks, loss, discount, batch size) only that the checkpoint fits is checked. A gin file's run is
    known by all its settings; in Python `RunContext.config` may give more.

    Args:
      context: The run's directory, and where to report.
      environment: Which environment is learned, and how many of it are stepped together.
      agent: Builds the agent from `time_step_spec`, `action_spec` and `seed`.
      loop: Builds the training loop from `agent`, `environment` and `seed`.
      num_env_steps: Stop after this many environment steps.
      num_episodes: Stop after this many episodes; with both, whichever comes first.
      seed: Seed of everything random, in [0, 2^31).
      log_every: Environment steps between points in TensorBoard.
      checkpoint_every: Environment steps between checkpoints.
      keep_checkpoints: How many checkpoints to keep.
      evaluation: What is played with the greedy policy, when training is over and amid it.

    Returns:
      What was reached, as in `run.json`.

    Raises:
      ValueError: Neither `num_env_steps` nor `num_episodes` is given, one is not positive, or the seed is out of range.
      RunDirectoryError: The directory can't be used, or holds another run.
      CheckpointError: A checkpoint can't be written or read.
      WriteError: Another file can't be written, e.g. because the disk is full.
      NonFiniteError: Too many updates in a row were skipped.
      EnvironmentFault: The environment failed.
      Interrupted: SIGINT or SIGTERM asked the run to stop; a checkpoint was written.
      DryRunOver: The context is of a dry run, and everything could be built.
    """
    _check_numbers(
        num_env_steps=num_env_steps,
        num_episodes=num_episodes,
        log_every=log_every,
        checkpoint_every=checkpoint_every,
        keep_checkpoints=keep_checkpoints,
    )
    seed = seeding.check_seed(seed)
    tf.keras.utils.set_random_seed(seeding.integer(seed, seeding.Stream.LIBRARIES))
    with contextlib.closing(environment.load(seed)) as played:
        played.on_warning(context.progress.warn)
        specs = [tensor_spec.from_spec(spec()) for spec in (played.time_step_spec, played.action_spec)]
        built = agent(*specs, seed=seed)
        built_loop = loop(built, played, seed=seed)
        if evaluation.capture_video:
            check_video(environment)
        environment.describe()  # which the exported policy will need
        final = FinalEvaluation(evaluation, environment, seed)

        def identity() -> dict[str, Any]:
            return {**environment.identity(), "run.seed": seed, "run.optimizer": built.optimizer.get_config()}

        # Only now, when the experiment is known to be possible, is anything written.
        with context.open(identity, environment) as directory, StopRequest() as stop:
            training = Training(directory, built, built_loop, context.progress, keep_checkpoints, stop)
            directory.write(seed=seed)
            for line in final.warnings(played):
                context.progress.warn(line)
            interim = InterimEvaluation(
                final, played, built.policy, directory.path, context.progress, training.check_stop
            )
            training.train(num_env_steps, num_episodes, log_every, checkpoint_every, interim)
            return RunResult(training.finish(final, played))


def _check_numbers(**positive: int | None) -> None:
    if positive["num_env_steps"] is None and positive["num_episodes"] is None:
        raise ValueError("a run needs num_env_steps or num_episodes")
    for name, value in positive.items():
        check_optional_count(name, value)


class Training:
    """A loop with its metrics, logs and checkpoints; those hold the agent's variables too."""

    def __init__(
        self,
        directory: RunDirectory,
        agent: Any,
        loop: TrainingLoop,
        progress: Progress,
        keep_checkpoints: int,
        stop: StopRequest,
    ):
        self._stop = stop
        self._directory = directory
        self._agent = agent
        self._loop = loop
        self._progress = progress
        self._store = CheckpointStore(directory.path / "checkpoints", agent, keep_checkpoints, progress.warn)
        self._wall_before = 0.0
        self._saving_s = 0.0
        self._logged_at = -1
        self._owes_evaluation = False
        csv_size = self._resume()
        self._started = time.monotonic()
        self._has_stepped = False
        self._episode_log = EpisodeLog(directory.path / "episodes.csv", csv_size)
        self._events = EventFile(directory.path / "train")
        self._rate = _Rate(loop)
        directory.write(status=Status.TRAINING, failure=None)  # of an earlier end

    @property
    def _wall(self) -> float:
        """Seconds of training, those before an interruption included; a run that makes no step takes none."""
        return self._wall_before + (time.monotonic() - self._started if self._has_stepped else 0.0)

    def _resume(self) -> int:
        """Restore the newest checkpoint; the size of `episodes.csv` then, 0 at a fresh start."""
        state = self._store.restore_latest()
        if state is None:
            if self._directory.checkpointed:
                raise CheckpointError(
                    f"{self._directory.path} had checkpoints, but none is left: restore them, or use --noresume"
                )
            return 0
        run_values = state.values.pop("run")
        try:
            self._loop.restore(state)
        except (KeyError, ValueError) as error:
            what = f"it lacks {error}" if isinstance(error, KeyError) else reason(error)
            raise CheckpointError(f"{self._directory.path}: the checkpoint is of another loop: {what}") from error
        self._wall_before = run_values["wall_s"]
        self._saving_s = run_values["saving_s"]
        self._owes_evaluation = run_values.get("owes_evaluation", False)
        self._progress.note(f"resuming at {counted(self._loop.statistics.env_steps, 'environment step')}")
        return run_values["csv_size"]

    def train(
        self,
        num_env_steps: int | None,
        num_episodes: int | None,
        log_every: int,
        checkpoint_every: int,
        interim: InterimEvaluation,
    ) -> None:
        """Run the loop until a limit is reached, or `Progress` ends it. Interrupted, it leaves a checkpoint."""
        loop, statistics = self._loop, self._loop.statistics
        self._progress.stop_training = False
        self._progress.start(num_env_steps, num_episodes, statistics.env_steps, statistics.episodes)
        next_log = (statistics.env_steps // log_every + 1) * log_every
        next_checkpoint = (statistics.env_steps // checkpoint_every + 1) * checkpoint_every
        next_evaluation = interim.next_after(statistics.env_steps)
        if _reached(statistics, num_env_steps, num_episodes):
            self._progress.note("no step is made: the run is as long as was asked for")
        try:
            if self._owes_evaluation and next_evaluation is not None:
                self._evaluate(interim)
            while not (_reached(statistics, num_env_steps, num_episodes) or self._is_to_stop()):
                self._has_stepped = True
                self._record(loop.step())
                loop.check_streak()
                if statistics.env_steps >= next_log:
                    self._log()
                    next_log += log_every
                if next_evaluation is not None and statistics.env_steps >= next_evaluation:
                    self._evaluate(interim)
                    next_evaluation = interim.next_after(statistics.env_steps)
                if statistics.env_steps >= next_checkpoint:
                    self._save()
                    next_checkpoint += checkpoint_every
            if self._has_stepped:  # a rate of no step would be the curve's last point
                self._log()
            self._save()
            self.check_stop()
            if self._progress.stop_training and not _reached(statistics, num_env_steps, num_episodes):
                self._progress.note(f"stopped at {counted(statistics.env_steps, 'environment step')}, as was asked for")
        except BaseException as error:
            with contextlib.suppress(WriteError):  # what went wrong first is what to tell
                self._close()
            if isinstance(error, NonFiniteError):
                # The same seed gets here again: whoever runs many runs needn't repeat this one.
                self._directory.write(status=Status.DIVERGED, failure=str(error), final=self._reached())
            raise
        self._close()

    def _close(self) -> None:
        with contextlib.ExitStack() as stack:
            for close in (self._events.close, self._episode_log.close, self._progress.stop):
                stack.callback(close)

    def _is_to_stop(self) -> bool:
        return self._stop.requested or self._progress.stop_training

    def check_stop(self) -> None:
        """Raise Interrupted where a signal asked the run to stop."""
        if self._stop.requested:
            raise Interrupted(self._stop.signal, self._directory.path)

    def _record(self, finished: list[FinishedEpisode]) -> None:
        wall = self._wall
        for number, episode in enumerate(finished, start=self._loop.statistics.episodes - len(finished) + 1):
            episode_return, length, env_steps = episode
            train_steps = self._loop.train_steps_at(env_steps)
            self._episode_log.write(Episode(number, env_steps, train_steps, episode_return, length, wall))

    def _log(self) -> None:
        if self._loop.statistics.env_steps == self._logged_at:
            return
        self._logged_at = self._loop.statistics.env_steps
        scalars = episode_scalars(self._loop.statistics)
        scalars.update(self._loop.scalars())
        scalars.update(self._rate.measure(self._loop))
        self._events.scalars(scalars, self._loop.statistics.env_steps)
        if (picture := self._loop.picture()) is not None:
            self._events.image(tags.OBSERVATION, picture, self._loop.statistics.env_steps)
        self._episode_log.flush()  # for who watches the file
        self._progress.update(self._loop.statistics.env_steps, self._loop.statistics.episodes, scalars)

    def _save(self) -> None:
        started = time.monotonic()
        state = self._loop.state()
        self._loop.check_streak()  # of a critic, too, that was being fitted until now
        state.values["run"] = {
            "wall_s": self._wall,
            "saving_s": self._saving_s,
            "owes_evaluation": self._owes_evaluation,
            "csv_size": self._episode_log.sync(),
        }
        self._store.save(self._loop.statistics.env_steps, state)
        self._saving_s += time.monotonic() - started
        if not self._directory.checkpointed:
            self._directory.write(checkpointed=True)

    def _evaluate(self, interim: InterimEvaluation) -> None:
        """Play with the policy as it is. That is no training: it takes none of its time."""
        started = time.monotonic()
        self._owes_evaluation = True
        with contextlib.suppress(Interrupted):  # training ends at once, and plays this when it goes on
            interim.play(self._loop.statistics.env_steps)
            self._owes_evaluation = False
        seconds = time.monotonic() - started
        self._started += seconds
        self._rate.pause(seconds)

    def finish(self, evaluation: FinalEvaluation, environment: GymnasiumEnvironment) -> dict[str, Any]:
        """Export the policies and play with the greedy one, as it was exported; what the run reached."""
        path = self._directory.path
        self._loop.before_export()
        evaluation.export(self._agent, environment, path)
        final, earlier = self._reached(), self._directory.read().get("final", {})
        # What was reached with this policy before.
        known = earlier.get("evaluation") if earlier.get("env_steps") == final["env_steps"] else None
        if evaluation.settings.episodes:
            final["evaluation"] = evaluation.play(path, final["env_steps"], self._progress, self.check_stop, known)
        elif known:
            final["evaluation"] = known
        else:
            evaluation.forget(path)
        self._directory.write(status=Status.FINISHED, final=final)
        if evaluation.settings.capture_video:
            evaluation.film(path, self._progress, self.check_stop)
        return final

    def _reached(self) -> dict[str, Any]:
        """What training has reached, as JSON values."""
        statistics, best = self._loop.statistics, best_of(self._directory.path)
        return {
            "env_steps": statistics.env_steps,
            "train_steps": self._loop.train_steps,
            "episodes": statistics.episodes,
            "skipped_updates": self._loop.skipped_updates,
            "best_100_episode_mean": _json_number(statistics.best_average),
            "best_at_env_steps": statistics.best_at_env_steps,
            "final_100_episode_mean": _json_number(statistics.average_return),
            "wall_s": round(self._wall, 1),
            "saving_s": round(self._saving_s, 3),  # the part of wall_s that went into checkpoints
            **({"best_evaluation": best} if best else {}),
        }


class _Rate:
    """Environment steps and updates per second since the last measurement."""

    def __init__(self, loop: TrainingLoop):
        self._last = (time.monotonic(), loop.statistics.env_steps, loop.train_steps)

    def pause(self, seconds: float) -> None:
        """Leave out so many seconds that have just passed."""
        started, env_steps, train_steps = self._last
        self._last = (started + seconds, env_steps, train_steps)

    def measure(self, loop: TrainingLoop) -> dict[str, float]:
        now = (time.monotonic(), loop.statistics.env_steps, loop.train_steps)
        seconds, env_steps, train_steps = (new - old for new, old in zip(now, self._last, strict=True))
        self._last = now
        if seconds <= 0:
            return {}
        return {
            tags.STEPS_PER_SECOND: env_steps / seconds,
            "perf/updates_per_second": train_steps / seconds,
        }


def _reached(statistics: EpisodeStatistics, num_env_steps: int | None, num_episodes: int | None) -> bool:
    return (num_env_steps is not None and statistics.env_steps >= num_env_steps) or (
        num_episodes is not None and statistics.episodes >= num_episodes
    )


def _json_number(value: float) -> float | None:
    """None for NaN, which JSON lacks."""
    return value if math.isfinite(value) else None
