"""Episode boundaries: terminated, truncated, the last observation, and what comes after it."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from tf_agents.environments import tf_py_environment, utils

from ngrl.environments import bridge  # noqa: F401  (quietens TF-Agents' import)

FIRST, MID, LAST = 0, 1, 2


def observe(env, actions):
    """(step_type, reward, discount, observation) of member 0 for each action."""
    steps = [env.step(np.array(action)) for action in actions]
    return [(int(s.step_type[0]), float(s.reward[0]), float(s.discount[0]), s.observation[0].tolist()) for s in steps]


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize(
    ("terminated", "truncated", "truncation_is_terminal", "discount"),
    [
        (True, False, False, 0.0),
        (False, True, False, 1.0),
        (True, True, False, 0.0),
        (True, False, True, 0.0),
        (False, True, True, 0.0),
    ],
)
def test_end_of_episode_keeps_last_observation_and_is_followed_by_a_reset(
    load, backend, terminated, truncated, truncation_is_terminal, discount
):
    script = [(1.0, False, False), (7.0, terminated, truncated)]
    env = load("test/Scripted-v0", backend=backend, truncation_is_terminal=truncation_is_terminal, scripts=[script])
    first = env.reset()
    assert (first.step_type, first.reward, first.discount) == (FIRST, 0.0, 1.0)
    assert first.observation.tolist() == [[1.0, 0.0, -1.0]]
    assert observe(env, [[2], [3], [1], [0], [2]]) == [
        (MID, 1.0, 1.0, [1.0, 1.0, 2.0]),
        (LAST, 7.0, discount, [1.0, 2.0, 3.0]),
        (FIRST, 0.0, 1.0, [2.0, 0.0, -1.0]),  # the action was ignored, the reward of 7 left behind
        (MID, 1.0, 1.0, [2.0, 1.0, 0.0]),
        (LAST, 7.0, discount, [2.0, 2.0, 2.0]),
    ]


def plain_episodes(env_id, run_seed, member, actions, **kwargs):
    """The time steps of one member, by a plain loop over one gymnasium environment."""
    env = gymnasium.make(env_id, **kwargs)
    episode, over, steps = -1, True, []
    for action in [None, *actions]:
        if over:
            episode += 1
            sequence = np.random.SeedSequence(run_seed, spawn_key=(0, member, episode))
            observation, _ = env.reset(seed=int(sequence.generate_state(1)[0]) // 4 * 2)
            over = False
            steps.append((FIRST, 0.0, 1.0, observation))
        else:
            observation, reward, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
            steps.append((LAST if over else MID, reward, 0.0 if terminated else 1.0, observation))
    env.close()
    return steps


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize(
    ("env_id", "kwargs", "num_steps"),
    [
        ("CartPole-v1", {"max_episode_steps": 15}, 120),
        ("Pendulum-v1", {"max_episode_steps": 20}, 50),
        ("LunarLander-v3", {"max_episode_steps": 90}, 250),
    ],
)
def test_members_equal_plain_loops_over_single_environments(load, backend, env_id, kwargs, num_steps):
    env = load(env_id, 3, seed=11, backend=backend, env_kwargs=kwargs)
    rng = np.random.default_rng(0)
    if isinstance(env.action_space, spaces.Discrete):
        actions = rng.integers(env.action_space.n, size=(num_steps, 3))
    else:
        actions = rng.uniform(-2.0, 2.0, size=(num_steps, 3, 1)).astype(np.float32)
    steps = [env.reset_arrays()] + [env.step_arrays(batch) for batch in actions]
    for member in range(3):
        expected = plain_episodes(env_id, 11, member, actions[:, member], **kwargs)
        assert {kind for kind, *_ in expected} == {FIRST, MID, LAST}
        for step, (step_type, reward, discount, observation) in zip(steps, expected, strict=True):
            assert step.step_type[member] == step_type
            assert step.reward[member] == np.float32(reward)
            assert step.discount[member] == discount
            np.testing.assert_array_equal(step.observation[member], observation)


def test_step_and_step_arrays_are_the_same_and_may_be_mixed(load):
    one, other = (load("CartPole-v1", 2, seed=5) for _ in range(2))
    one.reset()
    for index in range(60):
        actions = np.array([index % 2, 1])
        # The first call of each is the reset that one.reset() was.
        if index == 0:
            arrays = other.step_arrays(actions)
            expected = one.current_time_step()
        else:
            arrays = other.step_arrays(actions) if index % 3 else other.step(actions)
            expected = one.step(actions)
        assert other.current_time_step().step_type is arrays.step_type
        for name in ("step_type", "reward", "discount", "observation"):
            found = getattr(arrays, name)
            assert found.dtype == getattr(expected, name).dtype
            np.testing.assert_array_equal(found, getattr(expected, name))


@pytest.mark.parametrize("backend", ["sync", "async"])
def test_returned_arrays_are_not_overwritten_by_later_steps(load, backend):
    env = load("CartPole-v1", 2, backend=backend)
    steps = [env.reset_arrays()]
    copies = [[array.copy() for array in steps[0]]]
    for _ in range(30):
        steps.append(env.step_arrays(np.ones(2, int)))
        copies.append([array.copy() for array in steps[-1]])
    for step, copy in zip(steps, copies, strict=True):
        for array, kept in zip(step, copy, strict=True):
            np.testing.assert_array_equal(array, kept)


def test_reset_in_the_middle_of_an_episode_starts_the_next_one(load):
    env = load("test/Scripted-v0", scripts=[[(1.0, False, False)] * 9])
    env.reset()
    env.step(np.array([0]))
    step = env.reset()
    assert step.step_type.tolist() == [FIRST]
    assert step.observation.tolist() == [[2.0, 0.0, -1.0]]
    assert observe(env, [[3]]) == [(MID, 1.0, 1.0, [2.0, 1.0, 3.0])]


DICT_SPACE = spaces.Dict(
    {
        "camera": spaces.Box(0, 255, (4, 4, 1), np.uint8),
        "body": spaces.Dict({"speed": spaces.Box(-1.0, 1.0, (3,), np.float64), "gear": spaces.Discrete(5, start=-1)}),
    }
)


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize(
    ("env_id", "kwargs"),
    [
        ("CartPole-v1", {}),
        ("Pendulum-v1", {"max_episode_steps": 20}),
        ("ngrl/LunarLander-v2", {}),
        ("ngrl/Chain-v0", {}),
        ("ngrl/IdentityBox-v0", {}),
        ("test/OfSpaces-v0", {"observation_space": DICT_SPACE, "max_episode_steps": 5}),
        ("test/OfSpaces-v0", {"action_space": spaces.Discrete(3, start=2), "max_episode_steps": 5}),
    ],
)
def test_tf_agents_validates_the_environment(load, env_id, kwargs, num_envs):
    utils.validate_py_environment(load(env_id, num_envs, env_kwargs=kwargs), episodes=4)


def test_tf_agents_validates_an_asynchronous_environment(load):
    utils.validate_py_environment(load("CartPole-v1", 2, backend="async"), episodes=4)


def test_tf_py_environment_gives_the_same_steps(load):
    kwargs = {"observation_space": DICT_SPACE, "max_episode_steps": 4}
    reference, wrapped = (load("test/OfSpaces-v0", 2, seed=3, env_kwargs=kwargs) for _ in range(2))
    env = tf_py_environment.TFPyEnvironment(wrapped)
    assert env.batch_size == 2
    expected, found = reference.reset(), env.reset()
    for _ in range(10):
        np.testing.assert_array_equal(found.step_type, expected.step_type)
        np.testing.assert_array_equal(found.discount, expected.discount)
        np.testing.assert_array_equal(found.observation["camera"], expected.observation["camera"])
        for name in ("speed", "gear"):
            np.testing.assert_array_equal(found.observation["body"][name], expected.observation["body"][name])
        expected, found = reference.step(np.array([0, 1])), env.step(np.array([0, 1]))


def test_render_gives_a_frame_of_every_member_or_says_how_to_get_one(load):
    frames = load("CartPole-v1", 2, render_mode="rgb_array")
    frames.reset()
    assert frames.render().shape == (2, 400, 600, 3)
    blind = load("CartPole-v1", 2)
    blind.reset()
    with pytest.raises(ValueError, match='CartPole-v1: to render, load it with render_mode="rgb_array"'):
        blind.render()
