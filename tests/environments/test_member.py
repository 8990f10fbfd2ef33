"""Every episode's own seed."""

import itertools

import numpy as np
import pytest

from ngrl.environments import AsyncEnvironments, SyncEnvironments
from ngrl.environments.member import episode_seed


def rollout(env, num_steps=60):
    """Observations [num_steps, N, ...] under fixed actions."""
    rng = np.random.default_rng(1)
    env.reset_arrays()
    actions = rng.integers(2, size=(num_steps, env.batch_size))
    return np.stack([env.step_arrays(batch).observation for batch in actions])


@pytest.mark.parametrize("backend", ["sync", "async"])
def test_same_seed_twice_is_bit_equal_and_another_differs(load, backend):
    one, same, other = (rollout(load("CartPole-v1", 3, seed=seed, backend=backend)) for seed in (4, 4, 5))
    assert one.tobytes() == same.tobytes()
    assert not np.any(np.all(one == other, axis=(1, 2)))


def test_async_members_are_bit_equal_to_sync_members(load):
    backends = ("sync", "async", AsyncEnvironments(workers=2), AsyncEnvironments(workers=9), SyncEnvironments(cores=2))
    first, *others = (rollout(load("CartPole-v1", 3, seed=4, backend=backend)) for backend in backends)
    assert all(first.tobytes() == other.tobytes() for other in others)


def test_all_members_and_episodes_start_differently(load):
    env = load("CartPole-v1", 4)
    starts = np.concatenate([env.reset().observation for _ in range(5)])
    assert len(np.unique(starts, axis=0)) == 20


def test_neighbouring_runs_share_no_episode():
    seeds = [episode_seed(*place) for place in itertools.product(range(10), range(10), range(10))]
    assert len(set(seeds)) == 1000
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_member_has_the_same_episodes_whatever_the_number_of_members(load):
    few, many = load("CartPole-v1", 2, seed=9), load("CartPole-v1", 5, seed=9)
    np.testing.assert_array_equal(few.reset().observation, many.reset().observation[:2])


@pytest.mark.parametrize("backend", ["sync", "async", "envpool"])
def test_seed_starts_the_run_over(load, backend):
    if backend == "envpool":
        pytest.importorskip("envpool")
    env = load("CartPole-v1", 2, seed=1, backend=backend)
    first = rollout(env)
    assert rollout(env).tobytes() != first.tobytes()
    env.seed(1)
    assert rollout(env).tobytes() == first.tobytes()
    env.seed(2)
    assert rollout(env).tobytes() != first.tobytes()
