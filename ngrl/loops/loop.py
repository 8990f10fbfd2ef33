"""What every training loop does: step the environments, count, notice failing updates, save and restore."""

import abc
from typing import Any, NamedTuple

import numpy as np
from tf_agents.trajectories import time_step

from ngrl import seeding, tags
from ngrl.checks import check_count
from ngrl.loops.compiled import tracked_variables
from ngrl.loops.pictures import observation_picture
from ngrl.loops.state import LoopState
from ngrl.loops.statistics import EpisodeStatistics, FinishedEpisode
from ngrl.messages import counted
from ngrl.optimizers import SkipCause
from ngrl.replay import Experience

_FIRST, _MID, _LAST = (
    int(kind) for kind in (time_step.StepType.FIRST, time_step.StepType.MID, time_step.StepType.LAST)
)


class NonFiniteError(RuntimeError):
    """Too many updates in a row met a number that is not finite."""


class Moved(NamedTuple):
    """One step of N environments."""

    from_observation: Any  # [N, ...]
    from_step_type: np.ndarray  # [N], LAST where the episode was lost in this step
    observation: Any  # the observation reached [N, ...]
    reward: np.ndarray  # [N]
    discount: np.ndarray  # [N]
    step_type: np.ndarray  # the step type reached [N]
    moved: np.ndarray  # [N] bool, False where the step was a reset
    finished: list[FinishedEpisode]


class TrainingLoop(abc.ABC):
    """Base of the loops.

    Everything random depends on the seed and on counters, so that a restored loop goes on bit for bit.

    Args:
      environment: A batched environment of `ngrl.environments`.
      seed: Seed of everything random in the loop.
      max_skipped_updates: Updates in a row that may be skipped because of a number that is not finite.

    Raises:
      ValueError: `max_skipped_updates` is not positive.
    """

    _agent: Any  # each loop's own

    def __init__(self, environment: Any, seed: int, max_skipped_updates: int):
        check_count("max_skipped_updates", max_skipped_updates)
        self._environment = environment
        self._seed = seed
        self._actions_key = seeding.key(seed, seeding.Stream.ACTIONS)
        self._max_skipped = max_skipped_updates
        self.statistics = EpisodeStatistics(environment.batch_size)
        self._all = np.ones(environment.batch_size, bool)
        self.train_steps = 0
        self.skipped_updates = 0
        self._calls = 0
        self._streak = np.zeros(2, np.float32)  # skipped updates in a row, and the cause of the first of them
        self._last_info: tuple[Any, Any] | None = None  # loss and extra of the latest updates
        self._observation, _, _, self._step_type = environment.reset_arrays()

    @abc.abstractmethod
    def step(self) -> list[FinishedEpisode]:
        """Step every environment, once or more often, and train as is due; the episodes that ended.

        No update follows the one that was one skipped too many: `check_streak`, once the episodes are recorded.
        """

    def train_steps_at(self, env_steps: int) -> int:
        """Train steps finished when the latest `step` reached so many environment steps."""
        del env_steps
        return self.train_steps

    def _draw(self) -> np.ndarray:
        """A seed [2] for the next random actions."""
        self._calls += 1
        return seeding.at(self._actions_key, self._calls)

    def _advance(self, actions: np.ndarray) -> Moved:
        """Step every environment once, and count it."""
        before, step_type_before = self._observation, self._step_type
        observation, reward, discount, step_type = self._environment.step_arrays(actions)
        kinds = step_type.tolist()  # Python's numbers: of few environments, quicker to look through than an array
        if kinds.count(_MID) == len(kinds) and _LAST not in step_type_before.tolist():
            self._observation, self._step_type = observation, step_type
            self.statistics.add_amid(reward)
            return Moved(before, step_type_before, observation, reward, discount, step_type, self._all, [])
        moved = step_type_before != _LAST
        lost = moved & (step_type == _FIRST)
        if lost.any():
            # The episode was cut where it was left, as by a time limit; this step is the reset that follows.
            step_type_before = np.where(lost, np.int32(_LAST), step_type_before)
            moved = moved & ~lost
            self.statistics.forget_episodes_in_progress(lost)
        ended = moved & (step_type == _LAST)
        self._observation, self._step_type = observation, step_type
        finished = self.statistics.add(reward, moved, ended)
        return Moved(before, step_type_before, observation, reward, discount, step_type, moved, finished)

    def _count_updates(self, count: int, loss: Any, extra: Any, skipped: Any, streak: Any) -> None:
        """Count so many updates, of which `many_updates` returned the rest."""
        self.train_steps += count
        self._streak = streak.numpy()
        self._last_info = (loss, extra)
        self.skipped_updates += int(skipped)

    def _used(self) -> list[Any]:
        """The agent's variables, for `Compiled`."""
        return variables_of(self._agent)

    def check_streak(self) -> None:
        """Stop where too many updates in a row were skipped.

        Raises:
          NonFiniteError: As many as `max_skipped_updates`.
        """
        if self._gives_up:
            in_a_row, cause = int(self._streak[0]), SkipCause(int(self._streak[1]))
            what = cause.name.lower().replace("_", " ")
            problem = "not finite, or not positive definite" if cause == SkipCause.CURVATURE_PRODUCT else "not finite"
            updates = counted(in_a_row, "update in a row was", "updates in a row were")
            raise NonFiniteError(
                f"{updates} skipped; the first because its {what} was {problem} "
                f"(train step {self._counted - in_a_row + 1})"
            )

    @property
    def _counted(self) -> int:
        """The train steps of which it is known whether they were skipped."""
        return self.train_steps

    @property
    def _gives_up(self) -> bool:
        """Whether too many updates in a row were skipped."""
        return bool(self._streak[0] >= self._max_skipped)

    def before_export(self) -> None:  # noqa: B027  (most have nothing to do)
        """Bring the agent's policies to the state of the loop (ε)."""

    def scalars(self) -> dict[str, float]:
        """Tags and values for TensorBoard: what the latest updates' `LossInfo.extra` says of itself."""
        values = {tags.SKIPPED_UPDATES: float(self.skipped_updates)}
        if self._last_info is not None:
            loss, extra = self._last_info
            values |= {tag: float(value) for tag, value in extra.scalars(loss).items()}
        return values

    def picture(self) -> np.ndarray | None:
        """The first environment's observation as a picture [height, width, 3] uint8, if it is an image."""
        first = self._observation[0] if isinstance(self._observation, np.ndarray) else None
        return observation_picture(first, self._environment.observation_spec())

    def state(self) -> LoopState:
        """Everything beside the agent's variables that the loop's future depends on."""
        values = {
            "statistics": self.statistics.state(),
            "train_steps": self.train_steps,
            "calls": self._calls,
            "streak": self._streak.tolist(),
            "skipped_updates": self.skipped_updates,
        }
        environment = self._environment.get_state()
        return LoopState(values, {f"environment/{name}": array for name, array in environment.items()})

    def restore(self, state: LoopState) -> None:
        """Set what `state` returned."""
        values, arrays, _ = state
        self.statistics.restore(values["statistics"])
        self.train_steps = values["train_steps"]
        self._calls = values["calls"]
        self._streak = np.array(values["streak"], np.float32)
        self.skipped_updates = values["skipped_updates"]
        self._environment.set_state(part(arrays, "environment/"))
        current = self._environment.current_time_step()
        self._observation, self._step_type = current.observation, current.step_type
        if not self._environment.can_restore:
            # New episodes have begun: what the broken ones had collected must not count for them.
            self.statistics.forget_episodes_in_progress()


# The loop that gives each kind of experience.
_LOOPS = {
    Experience.TRAJECTORIES: "OnPolicyLoop",
    Experience.TRANSITIONS: "OffPolicyLoop",
    Experience.REPLAYED_TRAJECTORIES: "TrajectoryReplayLoop",
}


def check_agent(given: Experience, agent: Any) -> None:
    """Refuse an agent that another loop is for.

    Args:
      given: What the loop gives its agent.
      agent: The agent, whose `experience` says what it learns from.

    Raises:
      ValueError: That is something else, or not said.
    """
    wanted = getattr(agent, "experience", None)
    if wanted is not given:
        fitting = f"run.loop = @{_LOOPS[wanted]} is for it" if wanted in _LOOPS else f"it must say experience = {given}"
        raise ValueError(f"{_LOOPS[given]} can't train {type(agent).__name__}: {fitting}")


def variables_of(agent: Any) -> list[Any]:
    """All variables of an agent, the keys of its streams of random numbers included: what `Compiled` asks for."""
    return [*tracked_variables(agent), *getattr(agent, "stream_keys", ())]


def part(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
