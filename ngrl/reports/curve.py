"""Learning curves as reports need them: of `episodes.csv`, or thinned in `curve.csv`."""

import dataclasses
from pathlib import Path

import numpy as np

from ngrl.runs.episodes import WINDOW, Episodes, read_columns
from ngrl.runs.files import write_csv

_COLUMNS = ("episode", "env_steps", "wall_s", "mean_return_100")
_THINNED = 200


@dataclasses.dataclass(frozen=True)
class Curve:
    """Mean returns of 100 consecutive episodes, each with its last one's number, and what had been done then."""

    episodes: np.ndarray  # number of the last episode, from 1, [C]
    env_steps: np.ndarray  # environment steps of the whole run, [C]
    wall_s: np.ndarray  # seconds of training, [C]
    means: np.ndarray  # [C]

    def __len__(self) -> int:
        return len(self.means)

    @classmethod
    def read(cls, run: Path) -> "Curve":
        """The curve of a run directory: of its `episodes.csv`, or of `curve.csv` where that isn't there.

        Raises:
          ReadError: Neither is there, or it is damaged.
        """
        thinned = run / "curve.csv"
        if not (run / "episodes.csv").exists() and thinned.exists():
            return cls(*read_columns(thinned, _COLUMNS))
        all_episodes = Episodes.read(run / "episodes.csv")
        last = np.arange(WINDOW - 1, len(all_episodes))
        return cls(last + 1, all_episodes.env_steps[last], all_episodes.wall_s[last], all_episodes.means)

    def thinned(self) -> "Curve":
        """About 200 of its points, evenly spaced, and every point that is above all before it.

        The best mean and the first point that reaches any score stay what they are.
        """
        if not len(self):
            return self
        best_before = np.maximum.accumulate(np.insert(self.means, 0, -np.inf))[:-1]
        kept = self.means > best_before
        kept[np.linspace(0, len(self) - 1, _THINNED).astype(int)] = True
        return Curve(self.episodes[kept], self.env_steps[kept], self.wall_s[kept], self.means[kept])

    def write(self, path: Path) -> None:
        """Write `curve.csv`."""
        columns = (self.episodes.astype(int), self.env_steps.astype(int), self.wall_s, self.means)
        # repr of a float is exact: what is read equals what was written.
        write_csv(path, _COLUMNS, zip(*(column.tolist() for column in columns), strict=True))

    def first_at_least(self, score: float) -> tuple[int, float] | None:
        """Environment steps and seconds until the mean first was at least `score`; None if it never was."""
        reached = np.flatnonzero(self.means >= score)
        return (int(self.env_steps[reached[0]]), float(self.wall_s[reached[0]])) if reached.size else None
