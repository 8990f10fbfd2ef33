"""What a person sees while a run goes on."""

import math
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from tqdm import tqdm

from ngrl import tags
from ngrl.messages import counted, short


class Progress:
    """Receives what a run reports, and tells of warnings alone; a subclass answers what else it cares for.

    Args:
      stream: Where they go; standard error by default.

    Attributes:
      stop_training: Set it to true, and training ends after the loop's present step, as if it were to be no longer:
        with a checkpoint, the evaluation and the export. The same call goes on from there. False when training begins.
    """

    stop_training: bool = False

    def __init__(self, stream: TextIO | None = None):
        self._stream = stream if stream is not None else sys.stderr

    def start(self, num_env_steps: int | None, num_episodes: int | None, env_steps: int, episodes: int) -> None:
        """Training begins, at these counts, towards these limits."""

    def update(self, env_steps: int, episodes: int, scalars: Mapping[str, float]) -> None:
        """Training has come this far; the scalars carry TensorBoard's tags."""

    def scored(self, env_steps: int, scalars: Mapping[str, float]) -> None:
        """The greedy policy was played amid training (`Evaluation.every`); the scalars carry TensorBoard's tags."""

    def start_evaluation(self, episodes: int) -> None:
        """The evaluation of this many episodes begins."""

    def evaluated(self, episodes: int) -> None:
        """So many evaluation episodes have been played."""

    def stop(self) -> None:
        """Training or evaluation ends."""

    def note(self, line: str) -> None:
        """Something worth a line."""

    def warn(self, line: str) -> None:
        """Something to be concerned about, in a line."""
        print(f"warning: {short(line)}", file=self._stream)


class Terminal(Progress):
    """A progress bar on a terminal; elsewhere a line every `interval` seconds.

    Args:
      name: What runs.
      stream: Where to write.
      interval: Seconds between lines where `stream` is no terminal.
    """

    def __init__(self, name: str, stream: TextIO, interval: float = 10.0):
        super().__init__(stream)
        self._name = name
        self._interval = interval
        self._is_terminal = stream.isatty()
        self._bar: tqdm | None = None
        self._by_episodes = False
        self._last_line = 0.0

    def start(self, num_env_steps: int | None, num_episodes: int | None, env_steps: int, episodes: int) -> None:
        """Draw the bar, over environment steps where those are limited."""
        self._by_episodes = num_env_steps is None
        if self._by_episodes:
            self._open(self._name, num_episodes, episodes, "episodes")
        else:
            self._open(self._name, num_env_steps, env_steps, "steps")

    def _open(self, label: str, total: int | None, initial: int, unit: str) -> None:
        self._bar = tqdm(
            total=total,
            # tqdm drops a total that is exceeded, and environments stepped together overshoot it.
            initial=initial if total is None else min(initial, total),
            desc=label,
            unit=f" {unit}",
            file=self._stream,
            disable=not self._is_terminal,
            dynamic_ncols=True,
            bar_format="{desc} {percentage:3.0f}% |{bar:12}| {n:,}/{total:,}{unit} [{elapsed}<{remaining}]{postfix}",
        )

    def update(self, env_steps: int, episodes: int, scalars: Mapping[str, float]) -> None:
        """Move the bar and show the figures."""
        figures = describe(episodes, scalars)
        if self._bar is not None and self._is_terminal:
            self._bar.set_postfix_str(figures, refresh=False)
            self._bar.n = min(episodes if self._by_episodes else env_steps, int(self._bar.total))
            self._bar.refresh()
        elif time.monotonic() - self._last_line >= self._interval:
            self._last_line = time.monotonic()
            print(f"{self._name}: {counted(env_steps, 'step')}, {figures}", file=self._stream, flush=True)

    def start_evaluation(self, episodes: int) -> None:
        """Draw a bar over episodes."""
        self._open("evaluation", episodes, 0, "episodes")

    def evaluated(self, episodes: int) -> None:
        """Move the bar."""
        if self._bar is not None and self._is_terminal:
            self._bar.update(episodes - self._bar.n)

    def stop(self) -> None:
        """Leave the finished bar on the terminal."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def note(self, line: str) -> None:
        """Print the line above the bar."""
        tqdm.write(f"{self._name}: {short(line)}", file=self._stream)

    def warn(self, line: str) -> None:
        """Print the line above the bar."""
        tqdm.write(f"{self._name}: warning: {short(line)}", file=self._stream)


def describe(episodes: int, scalars: Mapping[str, float]) -> str:
    """The figures of one moment of a run on a line; those whose tags aren't among the scalars are left out."""
    rate = scalars.get(tags.STEPS_PER_SECOND)
    speed = f"{rate:,.0f}" if rate is not None and math.isfinite(rate) else "–"
    parts = [f"{speed} steps/s", counted(episodes, "episode")]
    for name, tag in tags.TAGS.items():
        if tag.label and name in scalars and (scalars[name] or name != tags.SKIPPED_UPDATES):
            value = scalars[name]
            parts.append(f"{tag.label} {value:{tag.form}}" if math.isfinite(value) else f"{tag.label} –")
    return ", ".join(parts)


def describe_evaluation(summary: Mapping[str, Any]) -> str:
    """What an evaluation reached, its `summary()`, on a line."""
    return (
        f"{summary['mean']:.1f} ± {summary['std']:.1f}"
        f"  (min {summary['min']:.1f}, max {summary['max']:.1f}, {counted(summary['episodes'], 'episode')})"
    )


def describe_bound(summary: Mapping[str, Any]) -> str | None:
    """How many episodes of an evaluation were broken off, on a line; None where all came to their ends."""
    if not summary.get("broken_off"):  # older runs don't say
        return None
    return (
        f"{summary['broken_off']} of {counted(summary['episodes'], 'episode')} "
        f"{'was' if summary['broken_off'] == 1 else 'were'} broken off after "
        f"{counted(summary['max_episode_steps'], 'step')}"
    )
