"""Playing whole episodes with a policy, and what is reported of them."""

import contextlib
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tf_agents.trajectories import time_step as ts

from ngrl.checks import check_count, check_optional_count
from ngrl.environments import Environment, EnvironmentFault, GymnasiumEnvironment
from ngrl.messages import RAISED, reason
from ngrl.runs.files import unfinished, writing
from ngrl.seeding import Stream
from ngrl.specs import holds_quantities

# Steps of an episode after which evaluation, and a video, break it off where the environment declares no time limit:
# a policy that walks into a wall would do so for ever.
UNLIMITED_STEPS = 10_000
UNLIMITED_VIDEO_STEPS = 1_000

Actor = Callable[[ts.TimeStep], np.ndarray]


class EvaluationResult(NamedTuple):
    """Undiscounted returns of episodes."""

    returns: list[float]
    lengths: list[int]
    max_episode_steps: int | None = None  # the bound at which episodes were broken off; None: the environment's own
    broken_off: int = 0  # how many of them

    def summary(self) -> dict[str, Any]:
        """JSON values: `mean`, `std` (of the episodes), `min`, `max`, `mean_length`, `episodes`, `returns`.

        Besides `max_episode_steps` and `broken_off`: the bound set on episodes from outside, and how many it ended.
        """
        returns = np.asarray(self.returns)
        return {
            "mean": float(returns.mean()),
            "std": float(returns.std()),
            "min": float(np.min(returns)),
            "max": float(np.max(returns)),
            "mean_length": float(np.mean(self.lengths)),
            "episodes": len(self.returns),
            "max_episode_steps": self.max_episode_steps,
            "broken_off": self.broken_off,
            "returns": [float(value) for value in self.returns],
        }


def evaluate(
    actor: Actor,
    environment: Environment,
    episodes: int = 100,
    seed: int = 0,
    num_envs: int = 10,
    specs: dict[str, Any] | None = None,
    max_episode_steps: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
    warn: Callable[[str], None] | None = None,
    stream: Stream = Stream.EVALUATION_EPISODES,
) -> EvaluationResult:
    """Play `episodes` episodes, each under its own seed, none of them one of training's, whatever the seed of that.

    Every environment plays a fixed share of the episodes, so that short episodes are not preferred to long ones.

    Args:
      actor: Time step with [N, ...] arrays to actions [N, ...].
      environment: The environment; what concerns training alone counts for nothing.
      episodes: How many episodes.
      seed: Seed of the episodes.
      num_envs: How many run side by side.
      specs: What the policy was built for, as `describe_specs` tells it; None leaves the check out.
      max_episode_steps: Steps after which an episode is broken off; None takes `UNLIMITED_STEPS` where the environment
        declares no time limit, and leaves it to that limit elsewhere.
      progress: Called with the number of episodes finished.
      warn: Called with a line about what was lost and played anew; it goes to standard error otherwise.
      stream: Which episodes: two streams have none in common.

    Raises:
      ValueError: `episodes` or `max_episode_steps` is not positive, or the environment has other
        observations or actions than `specs`.
    """
    episodes = check_count("episodes", episodes)
    num_envs = min(num_envs, episodes)
    share = np.full(num_envs, episodes // num_envs) + (np.arange(num_envs) < episodes % num_envs)
    playing, bound = _load_bounded(
        environment.for_evaluation(num_envs), seed, max_episode_steps, UNLIMITED_STEPS, stream
    )
    broken_off = 0
    returns: list[list[float]] = [[] for _ in range(num_envs)]
    lengths: list[list[int]] = [[] for _ in range(num_envs)]
    total, length = np.zeros(num_envs), np.zeros(num_envs, np.int64)
    with contextlib.closing(playing):
        if warn is not None:
            playing.on_warning(warn)
        _check_specs(playing, specs)
        step = playing.reset()
        while any(len(done) < count for done, count in zip(returns, share, strict=True)):
            step = playing.step(actor(step))
            first, last = step.step_type == ts.StepType.FIRST, step.step_type == ts.StepType.LAST
            total = np.where(first, 0.0, total + step.reward)
            length = np.where(first, 0, length + 1)
            for member in np.flatnonzero(last):
                if len(returns[member]) < share[member]:
                    returns[member].append(float(total[member]))
                    lengths[member].append(int(length[member]))
                    broken_off += _broken_off(bound, lengths[member][-1], step.discount[member])
                    progress(sum(map(len, returns)))
    played = [r for part in returns for r in part], [n for part in lengths for n in part]
    return EvaluationResult(*played, bound, broken_off)


def _load_bounded(
    settings: Environment,
    seed: int,
    bound: int | None,
    default: int,
    stream: Stream = Stream.EVALUATION_EPISODES,
) -> tuple[GymnasiumEnvironment, int | None]:
    """The environment, and the bound on its episodes where that had to be set because no earlier one holds."""
    bound = check_optional_count("max_episode_steps", bound)
    environment = settings.load(seed, stream)
    own = environment.time_limit
    if bound is None and own is None:
        bound = default
    if bound is None or (own is not None and own <= bound):
        return environment, None
    environment.close()
    bounded = settings.for_evaluation(settings.num_envs, max_episode_steps=bound)
    return bounded.load(seed, stream), bound


def _broken_off(bound: int | None, length: int, discount: float) -> bool:
    """Whether the bound, and not the environment, ended an episode of this length and last discount."""
    return bound is not None and bool(length >= bound and discount > 0)


def describe_specs(environment: GymnasiumEnvironment) -> dict[str, Any]:
    """Observations and actions of one member as JSON values, to compare a policy's with an environment's."""

    def describe(spec: Any) -> Any:
        if isinstance(spec, dict):
            return {key: describe(part) for key, part in spec.items()}
        described = {"shape": list(spec.shape), "dtype": np.dtype(spec.dtype).name}
        if np.issubdtype(spec.dtype, np.integer):
            described["range"] = [int(np.min(spec.minimum)), int(np.max(spec.maximum))]
        return described

    spec = environment.action_spec()
    action = describe(spec)
    if spec.shape and "range" in action and not holds_quantities(spec):
        action["last"] = np.broadcast_to(spec.maximum, spec.shape).tolist()
    return {"observation": describe(environment.observation_spec()), "action": action}


def _check_specs(environment: GymnasiumEnvironment, expected: dict[str, Any] | None) -> None:
    present = describe_specs(environment)
    for part in ("observation", "action"):
        if expected is not None and expected[part] != present[part]:
            built, here = f"the policy was built for {part}s {expected[part]}", environment.env_id
            raise ValueError(f"{built}, {here} has {present[part]}")


def _load_for_video(environment: Environment, seed: int, bound: int | None) -> tuple[GymnasiumEnvironment, int | None]:
    filmed = dataclasses.replace(environment, backend=environment.backend.for_video())
    return _load_bounded(filmed.for_evaluation(render_mode="rgb_array"), seed, bound, UNLIMITED_VIDEO_STEPS)


def stoppable(actor: Actor, check_stop: Callable[[], None]) -> Actor:
    """The actor, before each of whose actions `check_stop` is called; what that raises ends what is played."""

    def act(step: ts.TimeStep) -> np.ndarray:
        check_stop()
        return actor(step)

    return act


def check_video(environment: Environment) -> None:
    """Draw one frame, to know before a long run whether its video can be made.

    Raises:
      ValueError: The environment can't draw itself, or draws what is no picture.
    """
    try:
        with contextlib.closing(_load_for_video(environment, 0, None)[0]) as drawn:
            drawn.reset()
            _picture(drawn.render()[0])
    except RAISED as error:  # whatever the environment raises
        raise ValueError(f"no video: {environment.env_id} can't be drawn: {reason(error)}") from error


def _picture(frame: Any) -> Any:
    """A frame as a picture of a GIF.

    Raises:
      TypeError: It is none.
    """
    from PIL import Image

    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        found = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise TypeError(f"its frames must be uint8 [H, W, 3], got {found}")
    return Image.fromarray(frame).quantize(64)


def _drawn(playing: GymnasiumEnvironment, number: int) -> Any:
    """The first member's picture after so many steps of its episode.

    Raises:
      EnvironmentFault: It can't be drawn then.
    """
    try:
        return _picture(playing.render()[0])
    except RAISED as error:  # whatever the environment raises
        raise EnvironmentFault(playing.env_id, 0, number, f"it can't be drawn: {reason(error)}") from error


def record_video(
    actor: Actor, environment: Environment, path: Path, seed: int = 0, max_episode_steps: int | None = None
) -> int | None:
    """Play one episode and save it as an animated GIF.

    Args:
      actor: Time step with [1, ...] arrays to actions [1, ...].
      environment: The environment.
      path: The file to write.
      seed: As in `evaluate`: with the same seed this is the first of its episodes.
      max_episode_steps: As in `evaluate`, with `UNLIMITED_VIDEO_STEPS`.

    Returns:
      The number of steps after which the episode was broken off; None where it came to its end.

    Raises:
      EnvironmentFault: The environment failed, or can't draw itself any more.
      WriteError: The file can't be written.
    """
    images, path = [], path.absolute()  # the environment may leave the working folder
    playing, bound = _load_for_video(environment, seed, max_episode_steps)
    with contextlib.closing(playing):
        step, number = playing.reset(), 0
        while step.step_type[0] != ts.StepType.LAST:
            if number % 2 == 0:  # smooth enough to judge a policy by, at half the size
                images.append(_drawn(playing, number))
            step, number = playing.step(actor(step)), number + 1
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = unfinished(path)
        images[0].save(temporary, "GIF", save_all=True, append_images=images[1:], duration=40, loop=0)
        os.replace(temporary, path)
    return bound if _broken_off(bound, number, step.discount[0]) else None
