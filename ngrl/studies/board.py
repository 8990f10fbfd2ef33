"""What a person sees while a sweep goes on: every running trial on one screen."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from ngrl import tags
from ngrl.messages import counted
from ngrl.runs.record import Status, read_record
from ngrl.studies.study import PlannedTrial
from ngrl.training.progress import describe

# What the tail of `episodes.csv` gives of each tag.
_TAGS = {tags.AVERAGE_RETURN: "mean", tags.BEST_AVERAGE_RETURN: "best", tags.STEPS_PER_SECOND: "rate"}


class Board:
    """A bar for the sweep and one for each trial that runs; elsewhere than on a terminal a line now and then.

    Args:
      name: The study's name.
      total: How many trials are to be run.
      folder: Where their run directories are.
      stream: Where to write.
      on_over: Called with each trial that is over, and its outcome.
      quiet: Tell of nothing but failures.
      interval: Seconds between lines where `stream` is no terminal.
    """

    def __init__(
        self,
        name: str,
        total: int,
        folder: Path,
        stream: TextIO,
        on_over: Callable[[PlannedTrial, Status], None] = lambda planned, outcome: None,
        quiet: bool = False,
        interval: float = 30.0,
    ):
        self._name = name
        self._total = total
        self._folder = folder
        self._stream = stream
        self._on_over = on_over
        self._quiet = quiet
        self._interval = interval
        self._is_screen = stream.isatty() and not quiet
        self._last_line = time.monotonic()
        self._running: dict[str, tqdm | None] = {}
        self.outcomes: Counter[Status] = Counter()
        self._bar = self._open(name, total, 0, "{desc} {percentage:3.0f}% |{bar:12}| {elapsed}{postfix}")
        self._count()

    def started(self, planned: PlannedTrial) -> None:
        """Open its bar."""
        name = planned.trial.name
        if name in self._running:
            return
        taken = {bar.pos for bar in self._running.values() if bar is not None}
        position = next(free for free in range(1, len(taken) + 2) if -free not in taken and free not in taken)
        form = "  {desc} {percentage:3.0f}% |{bar:12}| {elapsed}<{remaining}{postfix}"
        self._running[name] = self._open(name, _limit(planned)[1], position, form)
        self._count()

    def moved(self, planned: PlannedTrial, figures: dict[str, float]) -> None:
        """Move its bar and show the figures, which `EpisodeTail.figures` names."""
        bar = self._running.get(planned.trial.name)
        if bar is not None and "env_steps" in figures:
            unit, limit = _limit(planned)
            scalars = {tag: float(figures[name]) for tag, name in _TAGS.items()}
            steps, episodes = int(figures["env_steps"]), int(figures["episodes"])
            bar.set_postfix_str(describe(episodes, scalars), refresh=False)
            bar.n = min(episodes if unit == "episodes" else steps, limit or 0)
            bar.refresh()
            self._count()
        elif not self._is_screen and time.monotonic() - self._last_line >= self._interval:
            self._count()
            self._say(self._counts(), only_where_asked=True)

    def recovered(self, planned: PlannedTrial, reason: str) -> None:
        """Say that a trial goes on."""
        self._close(planned)
        self._say(f"{planned.trial.name}: {reason}; it goes on from its last checkpoint")

    def over(self, planned: PlannedTrial, outcome: Status, complaint: str) -> None:
        """Close its bar and say what it reached, or complained of where it diverged or failed."""
        self._close(planned)
        self.outcomes[outcome] += 1
        self._on_over(planned, outcome)
        name = planned.trial.name
        if outcome == Status.FINISHED:
            final = (read_record(self._folder / name) or {}).get("final", {})
            self._say(f"{name}: {describe_final(final)}", only_where_asked=True)
        else:
            self._say(f"{name} {outcome}: {complaint}")
        self._count()

    def close(self) -> None:
        """Leave the terminal as it is."""
        for bar in [*self._running.values(), self._bar]:
            if bar is not None:
                bar.close()
        self._running.clear()
        self._bar = None

    def _close(self, planned: PlannedTrial) -> None:
        bar = self._running.pop(planned.trial.name, None)
        if bar is not None:
            bar.close()

    def _open(self, label: str, total: int | None, position: int, form: str) -> tqdm | None:
        if not self._is_screen:
            return None
        return tqdm(
            total=total,
            desc=label,
            position=position,
            leave=False,
            file=self._stream,
            dynamic_ncols=True,
            bar_format=form,
        )

    def _counts(self) -> str:
        waiting = self._total - self.outcomes.total() - len(self._running)
        parts = [f"{count} {outcome}" for outcome, count in self.outcomes.items()]
        return ", ".join([*parts, f"{len(self._running)} running", f"{waiting} waiting"])

    def _count(self) -> None:
        if self._bar is not None:
            self._bar.n = self.outcomes.total()
            self._bar.set_postfix_str(self._counts(), refresh=False)
            self._bar.refresh()

    def _say(self, line: str, only_where_asked: bool = False) -> None:
        if self._quiet and only_where_asked:
            return
        self._last_line = time.monotonic()
        tqdm.write(f"{self._name}: {line}", file=self._stream)
        self._stream.flush()


def describe_final(final: dict[str, Any]) -> str:
    """What a run reached, on a line."""
    if "best_100_episode_mean" not in final:  # no training run
        return Status.FINISHED
    parts = [
        f"{label} {value:.1f}"
        for label, value in (
            ("best 100-episode mean", final["best_100_episode_mean"]),
            ("final", final.get("final_100_episode_mean")),
            ("greedy", final.get("evaluation", {}).get("mean")),
        )
        if value is not None
    ]
    return ", ".join([*parts, counted(final["env_steps"], "step"), f"{final['wall_s'] / 60:.1f} minutes"])


def _limit(planned: PlannedTrial) -> tuple[str, int | None]:
    """What ends the trial: a number of steps or of episodes."""
    for unit in ("env_steps", "episodes"):
        limit = planned.config.get(f"run.num_{unit}", "None")
        if limit.isdigit():
            return unit, int(limit)
    return "env_steps", None
