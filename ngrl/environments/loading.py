"""`load`: an environment by name."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from ngrl import seeding
from ngrl.checks import check_count, check_optional_number
from ngrl.environments import spaces
from ngrl.environments.bridge import GymnasiumEnvironment
from ngrl.environments.making import MemberMaker
from ngrl.environments.vector import SyncVector, VectorEnvironment
from ngrl.seeding import Stream

#: How the members of an environment are stepped.
Backend = Literal["sync", "async", "envpool"]


def load(
    env_id: str,
    num_envs: int = 1,
    seed: int = 0,
    backend: Backend = "sync",
    *,
    truncation_is_terminal: bool = False,
    check_finite: bool = True,
    timeout: float | None = 120.0,
    env_kwargs: Mapping[str, Any] | None = None,
    stream: Stream = Stream.TRAINING_EPISODES,
    **kwargs: Any,
) -> GymnasiumEnvironment:
    """A batched TF-Agents environment of `num_envs` members.

    Args:
      env_id: A name registered with gymnasium (or known to envpool).
      num_envs: The number of members N, at least 1.
      seed: The run's seed, in [0, 2^31). Each episode of each member has a seed of its own that follows from it.
      backend: "sync": members in this process, fastest for quick environments; "async":
        one process a member, for slow ones; "envpool": C++ members, if that package is installed.
      truncation_is_terminal: Whether a time limit ends the return too (discount 0 instead of 1).
      check_finite: Whether NaN or infinity in an observation or reward raises an EnvironmentFault.
      timeout: Seconds that a step or reset may take in worker processes ("async") before they are ended and
        an EnvironmentFault is raised; None waits for ever.
      env_kwargs: Given to the environment, e.g. `{"render_mode": "rgb_array", "max_episode_steps": 200}`.
      stream: `Stream.EVALUATION_EPISODES` for episodes that no training plays, whatever its seed.
      **kwargs: As `env_kwargs`, as keywords.

    Raises:
      ValueError: An argument is wrong, the environment unknown, or a space not supported; the message is one
        line.
      ImportError: The environment needs a package that is not installed; the message says what to install.
    """
    num_envs = check_count("num_envs", num_envs)
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {', '.join(get_args(Backend))}, got {backend!r}")
    check_optional_number("timeout", timeout, "(0, inf]")
    seed = seeding.check_seed(seed)
    vector = _make_vector(env_id, num_envs, seed, backend, timeout, {**(env_kwargs or {}), **kwargs}, stream)
    try:
        return GymnasiumEnvironment(vector, seed, truncation_is_terminal, check_finite)
    except BaseException:
        vector.close()
        raise


def _make_vector(
    env_id: str,
    num_envs: int,
    seed: int,
    backend: Backend,
    timeout: float | None,
    kwargs: Mapping[str, Any],
    stream: Stream,
) -> VectorEnvironment:
    if backend == "envpool":
        from ngrl.environments.pool import EnvpoolVector

        return EnvpoolVector(env_id, num_envs, seed, kwargs, stream)
    maker = MemberMaker(env_id, seed, kwargs, stream)
    observation_space, action_space = maker.check()
    # Refused here, before any worker process is started.
    spaces.observation_spec(observation_space, env_id)
    spaces.action_spec(action_space, env_id)
    if backend == "async":
        from ngrl.environments.workers import WorkerVector

        return WorkerVector(maker, num_envs, timeout)
    return SyncVector(maker, num_envs)
