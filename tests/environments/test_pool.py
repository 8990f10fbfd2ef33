"""The optional envpool backend."""

import numpy as np
import pytest

pytest.importorskip("envpool")

from tf_agents.environments import utils


@pytest.mark.parametrize(("terminated", "limit", "discount"), [(True, 500, 0.0), (False, 5, 1.0)])
def test_boundaries_are_those_of_the_other_backends(load, terminated, limit, discount):
    env = load("CartPole-v1", 2, backend="envpool", max_episode_steps=limit)
    steps = [env.reset_arrays()] + [env.step_arrays(np.ones(2, int)) for _ in range(30)]
    ends = 0
    for before, last, after in zip(steps, steps[1:], steps[2:], strict=False):
        for member in np.flatnonzero(last.step_type == 2):
            ends += 1
            assert last.discount[member] == discount
            assert last.reward[member] == 1.0
            # Always pushed to the right, the cart moves on in the last step and is back at the middle after
            # it.
            assert last.observation[member, 0] > before.observation[member, 0] or before.step_type[member] == 0
            assert (after.step_type[member], after.reward[member], after.discount[member]) == (0, 0.0, 1.0)
            assert abs(after.observation[member, 0]) <= 0.05
            assert last.observation[member, 1] > 0.5
    assert ends >= 4


def test_tf_agents_validates_it(load):
    for env_id in ("CartPole-v1", "Pendulum-v1"):
        utils.validate_py_environment(load(env_id, 3, backend="envpool", max_episode_steps=30), episodes=4)


def test_same_seed_twice_is_bit_equal_and_members_differ(load):
    one, same, other = (load("CartPole-v1", 3, seed=seed, backend="envpool") for seed in (1, 1, 2))
    starts = [env.reset().observation for env in (one, same, other)]
    np.testing.assert_array_equal(starts[0], starts[1])
    assert len(np.unique(np.concatenate([starts[0], starts[2]]), axis=0)) == 6
    actions = np.array([0, 1, 0])
    for _ in range(40):
        np.testing.assert_array_equal(one.step(actions).observation, same.step(actions).observation)


def test_a_restore_starts_new_episodes_and_says_so(load):
    env, other = (load("CartPole-v1", 2, seed=1, backend="envpool") for _ in range(2))
    assert not env.can_restore
    first = env.reset().observation
    env.step(np.array([0, 1]))
    other.set_state(env.get_state())
    step = other.current_time_step()
    assert step.step_type.tolist() == [0, 0]
    assert not np.any(step.observation == first)
    # A second interruption doesn't repeat the first one's episodes.
    env.set_state(other.get_state())
    assert not np.any(env.current_time_step().observation == step.observation)


def test_an_unknown_environment_is_named_with_its_nearest(load):
    with pytest.raises(ValueError, match=r"unknown environment 'ngrl/LunarLander-v2'.*did you mean LunarLander-v2"):
        load("ngrl/LunarLander-v2", backend="envpool")


def test_wrong_settings_are_named(load):
    with pytest.raises(ValueError, match=r"CartPole-v1 can't be made by envpool with {'colour': 'red'}: "):
        load("CartPole-v1", backend="envpool", colour="red")
    with pytest.raises(ValueError, match="CartPole-v1: envpool's batch_size is num_envs here: leave it out"):
        load("CartPole-v1", 2, backend="envpool", batch_size=1)


def test_rendering_is_refused(load):
    with pytest.raises(ValueError, match="the envpool backend doesn't render"):
        load("CartPole-v1", backend="envpool").render()


def test_time_limit_is_envpools_own_or_the_one_that_is_set(load):
    assert load("CartPole-v1", 2, backend="envpool").time_limit == 500
    assert load("CartPole-v1", 2, backend="envpool", max_episode_steps=7).time_limit == 7
    assert load("CartPole-v1", 2, backend="envpool", max_episode_steps=2**31 - 1).time_limit is None
