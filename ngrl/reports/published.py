"""The published scores that reports put beside their own, from `published.json`, which tells the source of each."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

_FILE = Path(__file__).with_name("published.json")


@dataclasses.dataclass(frozen=True)
class Published:
    """What Knight & Lerner (2018) report of an environment; scores are best means of 100 consecutive episodes."""

    environment: str  # its name there
    solved: float  # the mean return of 100 episodes from which on it counts as solved
    ngdqn: Sequence[float]  # scores of the trials
    dqn: Sequence[float]  # those of DQN without a target network
    dqn_target_network: tuple[float, float, float]  # with one: median, lower and upper quartile, read off a figure
    hours: Mapping[str, float] = dataclasses.field(hash=False)  # that a trial took, of "NGDQN" and of "DQN"
    episodes: str  # how many a trial had, in words where it isn't the same number for all

    @property
    def score(self) -> float:
        """The mean over the trials of NGDQN."""
        return float(np.mean(self.ngdqn))

    def normalise(self, scores: np.ndarray) -> np.ndarray:
        """Scores on a scale on which the published mean of DQN without target network is 0 and that of NGDQN is 1."""
        low = float(np.mean(self.dqn))
        return (scores - low) / (self.score - low)


@functools.cache
def by_environment() -> dict[str, Published]:
    """What was published, by gymnasium's id; in the paper's order. Ids of one environment share it."""
    found = {}
    for name, values in json.loads(_FILE.read_text(encoding="utf-8"))["environments"].items():
        target = values["dqn_target_network"]
        published = Published(
            name,
            values["solved"],
            tuple(values["ngdqn"]),
            tuple(values["dqn"]),
            (target["median"], target["lower_quartile"], target["upper_quartile"]),
            {"NGDQN": values["hours"]["ngdqn"], "DQN": values["hours"]["dqn"]},
            f"{values['episodes']}",
        )
        found.update(dict.fromkeys(values["ids"], published))
    return found


def source() -> str:
    """Where the scores come from."""
    return json.loads(_FILE.read_text(encoding="utf-8"))["source"]
