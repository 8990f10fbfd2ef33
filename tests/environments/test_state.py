"""Saving and restoring episodes in progress."""

import numpy as np
import pytest
from gymnasium import spaces
from scripted_environments import Forgetful

from ngrl.environments import AsyncEnvironments, EnvironmentFault, SyncEnvironments

DICT_SPACE = spaces.Dict({"a": spaces.Box(-1.0, 1.0, (2,)), "b": spaces.Dict({"c": spaces.Discrete(7)})})


def random_actions(env, num_steps, seed=0):
    rng = np.random.default_rng(seed)
    if isinstance(env.action_space, spaces.Discrete):
        return rng.integers(env.action_space.n, size=(num_steps, env.batch_size))
    return rng.uniform(-1.0, 1.0, size=(num_steps, env.batch_size, *env.action_space.shape)).astype(np.float32)


def flat(step):
    observation = step.observation
    if isinstance(observation, dict):
        observation = np.column_stack([observation["a"], observation["b"]["c"]])
    return np.column_stack([observation, step.reward, step.discount, step.step_type])


def through_a_file(state, path):
    """The state after np.savez and np.load, which refuses pickled objects."""
    np.savez(path, **state)
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


@pytest.mark.parametrize(
    ("env_id", "kwargs", "backend", "num_steps"),
    [
        ("CartPole-v1", {}, "sync", (1, 37, 64)),
        ("CartPole-v1", {}, "async", (37,)),
        ("CartPole-v1", {}, AsyncEnvironments(workers=2), (37,)),
        ("CartPole-v1", {}, SyncEnvironments(cores=2), (37,)),
        ("Acrobot-v1", {"max_episode_steps": 50}, "sync", (60,)),
        ("LunarLander-v3", {}, "sync", (45, 150)),
        ("LunarLander-v3", {"continuous": True, "enable_wind": True}, "sync", (130,)),
        ("Pendulum-v1", {}, "async", (30,)),
        ("test/OfSpaces-v0", {"observation_space": DICT_SPACE, "max_episode_steps": 6}, "sync", (9,)),
        ("test/OfSpaces-v0", {"observation_space": DICT_SPACE, "max_episode_steps": 6}, "async", (9,)),
        ("ngrl/Identity-v0", {}, "sync", (25,)),
    ],
)
def test_restored_environment_continues_bit_equal(load, tmp_path, env_id, kwargs, backend, num_steps):
    for count in num_steps:
        original = load(env_id, 3, seed=2, backend=backend, env_kwargs=kwargs)
        actions = random_actions(original, count + 250)
        original.reset_arrays()
        for batch in actions[:count]:
            original.step_arrays(batch)
        state = through_a_file(original.get_state(), tmp_path / "state.npz")

        # Another run seed, and in the middle of other episodes: the state must replace it all.
        restored = load(env_id, 3, seed=77, backend=backend, env_kwargs=kwargs)
        restored.reset_arrays()
        for batch in actions[:13]:
            restored.step_arrays(batch)
        restored.set_state(state)
        np.testing.assert_array_equal(flat(restored.current_time_step()), flat(original.current_time_step()))
        for batch in actions[count:]:
            expected, found = original.step_arrays(batch), restored.step_arrays(batch)
            assert flat(found).tobytes() == flat(expected).tobytes()
        # And what it saves next is what the original would save.
        for name, array in original.get_state().items():
            np.testing.assert_array_equal(restored.get_state()[name], array)


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize("terminated", [True, False])
def test_a_state_saved_at_an_episodes_end_continues_with_its_reset(load, backend, terminated):
    script = [(1.0, False, False), (5.0, terminated, not terminated)]
    kwargs = {"scripts": [script], "count_resets": False}
    env = load("test/Scripted-v0", backend=backend, env_kwargs=kwargs)
    env.reset()
    env.step(np.array([1]))
    last = env.step(np.array([2]))
    state = env.get_state()
    # While this one has a reset pending too, and the other is in the middle of an episode.
    other = load("test/Scripted-v0", backend=backend, env_kwargs=kwargs)
    other.reset()
    other.step(np.array([0]))
    for restored in (env, other):
        restored.set_state(state)
        found = restored.current_time_step()
        assert (found.step_type, found.reward, found.discount) == (2, 5.0, last.discount)
        steps = [restored.step(np.array([3])) for _ in range(4)]
        assert [int(step.step_type[0]) for step in steps] == [0, 1, 2, 0]
        assert [float(step.reward[0]) for step in steps] == [0.0, 1.0, 5.0, 0.0]


def test_a_state_saved_in_mid_episode_is_not_reset_by_a_pending_reset(load):
    env = load("test/Scripted-v0", scripts=[[(1.0, False, False), (5.0, True, False)]], count_resets=False)
    env.reset()
    env.step(np.array([1]))
    state = env.get_state()
    env.step(np.array([2]))  # LAST: its next step would have been a reset
    env.set_state(state)
    step = env.step(np.array([2]))
    assert (step.step_type, step.reward) == (2, 5.0)


def test_a_state_saved_before_the_first_reset_starts_the_run(load):
    env, other = load("CartPole-v1", 2, seed=3), load("CartPole-v1", 2, seed=8)
    state = env.get_state()
    other.reset()
    other.step(np.array([0, 1]))
    other.set_state(state)
    np.testing.assert_array_equal(other.step(np.array([0, 1])).observation, env.reset().observation)


def test_a_saved_state_does_not_change_while_the_environment_goes_on(load):
    env = load("Pendulum-v1", 2)
    env.reset()
    action = np.ones((2, 1), np.float32)
    env.step(action)
    action[:] = -1.0  # the caller's array, which the record must not hold on to
    state = env.get_state()
    assert state["actions"].tolist() == [[1.0], [1.0]]
    kept = {name: array.copy() for name, array in state.items()}
    env.step(action)
    env.reset()
    for name, array in state.items():
        np.testing.assert_array_equal(array, kept[name])


def test_a_state_of_another_number_of_members_is_refused(load):
    three, two = load("CartPole-v1", 3), load("CartPole-v1", 2)
    three.reset()
    with pytest.raises(ValueError, match="CartPole-v1: the state has 3 members, this has 2"):
        two.set_state(three.get_state())


def test_an_environment_that_writes_into_its_actions_is_restored(load):
    env, other = load("test/Scaling-v0", 2), load("test/Scaling-v0", 2)
    env.reset()
    for _ in range(3):
        env.step(np.ones((2, 1), np.float32))
    other.set_state(env.get_state())
    assert other.current_time_step().observation.tolist() == [[6.0], [6.0]]
    other.set_state(other.get_state())
    assert other.get_state()["actions"].tolist() == [[1.0]] * 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": None, "observation": None}, "CartPole-v1: the state has no reward, observation"),
        ({"actions": np.zeros(2)}, r"the state's actions are float64 \(2,\), not int64 \(2,\)"),
        ({"actions": np.zeros(5, int)}, r"the state's actions are int64 \(5,\), not int64 \(2,\)"),
    ],
)
def test_a_damaged_state_is_refused_by_name(load, change, message):
    env = load("CartPole-v1", 2)
    env.reset()
    env.step(np.array([0, 1]))
    state = {name: array for name, array in {**env.get_state(), **change}.items() if array is not None}
    with pytest.raises(ValueError, match=message):
        env.set_state(state)


def test_a_state_saved_after_a_fault_restores_to_the_reset_that_is_due(load):
    env, other = (load("test/Misbehaving-v0", 1, fault="raise") for _ in range(2))
    env.reset()
    env.step(np.array([0]))
    env.step(np.array([0]))
    with pytest.raises(EnvironmentFault):
        env.step(np.array([0]))
    other.set_state(env.get_state())
    assert other.step(np.array([0])).step_type.tolist() == [0]
    assert other.get_state()["episode"].tolist() == [1]


def test_an_observation_that_is_not_a_number_is_the_one_that_was_saved(load):
    poison = {"fault": "nan observation", "at": 1}
    env, other = (load("test/Misbehaving-v0", 2, check_finite=False, env_kwargs=poison) for _ in range(2))
    env.reset()
    observation = env.step(np.array([0, 1])).observation
    assert np.isnan(observation[0]).any()
    other.set_state(env.get_state())
    np.testing.assert_array_equal(other.current_time_step().observation, observation)


def test_an_environment_that_does_not_follow_from_its_seed_is_caught(load):
    env = load("test/Forgetful-v0", 2)
    env.reset()
    env.step(np.array([0, 0]))
    Forgetful.count = 40
    state = env.get_state()
    with pytest.raises(EnvironmentFault, match=r"test/Forgetful-v0, member 0, step 1 of its episode: replaying"):
        env.set_state(state)


def test_a_restore_in_another_version_of_the_environment_is_caught(load):
    env, other = (
        load("CartPole-v1", 2),
        load("test/OfSpaces-v0", 2, observation_space=spaces.Box(-1, 1, (4,))),
    )
    env.reset()
    with pytest.raises(EnvironmentFault, match="gave another observation than was saved"):
        other.set_state(env.get_state())
