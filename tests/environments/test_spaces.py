"""Which spaces are taken, how they look to TF-Agents, and which are refused by name."""

import numpy as np
import pytest
from gymnasium import spaces
from tf_agents.specs import array_spec

from ngrl.environments import bridge  # noqa: F401  (quietens TF-Agents' import)


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize(
    ("place", "space", "message"),
    [
        (
            "observation",
            spaces.Tuple([spaces.Discrete(2)]),
            r"observation space Tuple\(Discrete\(2\)\) is not",
        ),
        ("observation", spaces.MultiDiscrete([2, 3]), r"observation space MultiDiscrete\(\[2 3\]\) is not"),
        ("observation", spaces.MultiBinary(3), r"observation space MultiBinary\(3\) is not"),
        ("observation", spaces.Text(5), r"observation space Text\("),
        ("observation", spaces.Sequence(spaces.Discrete(2)), r"observation space Sequence\("),
        ("observation", spaces.Graph(spaces.Discrete(2), None), r"observation space Graph\("),
        (
            "observation",
            spaces.Dict({"a": spaces.Dict({"b": spaces.MultiBinary(3)})}),
            r"observation\['a'\]\['b'\] space MultiBinary\(3\) is not",
        ),
        ("action", spaces.MultiDiscrete([2, 3]), r"action space MultiDiscrete\(\[2 3\]\) is not"),
        ("action", spaces.Tuple([spaces.Discrete(2)]), r"action space Tuple\(Discrete\(2\)\) is not"),
        ("action", spaces.Dict({"a": spaces.Discrete(2)}), r"action space Dict\('a': Discrete\(2\)\) is not"),
    ],
)
def test_a_space_that_is_not_supported_is_refused_by_name(load, backend, place, space, message):
    with pytest.raises(ValueError, match=message) as caught:
        load("test/OfSpaces-v0", backend=backend, env_kwargs={f"{place}_space": space})
    assert str(caught.value).startswith("test/OfSpaces-v0: ")
    assert "\n" not in str(caught.value)


def test_a_discrete_action_space_counts_from_0_whatever_its_start(load):
    env = load("test/OfSpaces-v0", 3, action_space=spaces.Discrete(3, start=-2))
    assert env.action_spec() == array_spec.BoundedArraySpec((), np.int64, 0, 2, name="action")
    env.reset()
    env.step(np.array([0, 1, 2], np.int32))
    assert env.get_state()["actions"].tolist() == [-2, -1, 0]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_observations_become_float32_without_bounds(load, dtype):
    env = load("test/OfSpaces-v0", 2, observation_space=spaces.Box(-1.0, 1.0, (3,), dtype))
    assert env.observation_spec() == array_spec.ArraySpec((3,), np.float32, name="observation")
    observation = env.reset().observation
    assert observation.dtype == np.float32
    expected = spaces.Box(-1.0, 1.0, (3,), dtype)
    expected.seed(int(np.random.SeedSequence(0, spawn_key=(1, 0)).generate_state(1)[0]) // 2)
    np.testing.assert_array_equal(observation[1], expected.sample().astype(np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_integer_observations_keep_dtype_and_bounds(load, dtype):
    env = load("test/OfSpaces-v0", 2, observation_space=spaces.Box(0, 100, (3,), dtype))
    spec = env.observation_spec()
    assert (spec.dtype, spec.minimum.min(), spec.maximum.max()) == (dtype, 0, 100)
    assert env.reset().observation.dtype == dtype


def test_nested_dict_observations_stay_dicts(load):
    space = spaces.Dict({"a": spaces.Dict({"b": spaces.Discrete(4, start=2)}), "c": spaces.Box(-1, 1, (2, 2))})
    env = load("test/OfSpaces-v0", 2, observation_space=space)
    spec = env.observation_spec()
    assert (spec["a"]["b"].minimum, spec["a"]["b"].maximum) == (2, 5)
    observation = env.reset().observation
    assert observation["a"]["b"].shape == (2,)
    assert observation["c"].shape == (2, 2, 2)
    assert observation["c"].dtype == np.float32


def test_box_actions_have_float32_bounds_and_reach_the_environment_in_its_dtype(load):
    space = spaces.Box(np.array([-1.0, -np.inf]), np.array([2.0, 1.7e308]), dtype=np.float64)
    env = load("test/OfSpaces-v0", 1, action_space=space)
    spec = env.action_spec()
    limit = np.finfo(np.float32).max
    assert spec.dtype == np.float32
    np.testing.assert_array_equal(spec.minimum, np.array([-1.0, -limit], np.float32))
    np.testing.assert_array_equal(spec.maximum, np.array([2.0, limit], np.float32))
    env.reset()
    env.step(np.array([[0.25, 3.0]], np.float32))  # the environment asserts that its space contains it
    assert env.get_state()["actions"].dtype == np.float64


@pytest.mark.parametrize(
    ("env_id", "actions", "message"),
    [
        ("CartPole-v1", [0, 2], r"CartPole-v1: actions must lie in 0 to 1, got \[0, 2\]"),
        ("CartPole-v1", [0, -1], r"CartPole-v1: actions must lie in 0 to 1, got \[0, -1\]"),
        ("CartPole-v1", [0], r"CartPole-v1: actions must have shape \(2,\), got \(1,\)"),
        ("CartPole-v1", [0.0, 1.0], "CartPole-v1: actions must be integers, got dtype float64"),
        ("Pendulum-v1", [0.0, 1.0], r"Pendulum-v1: actions must have shape \(2, 1\), got \(2,\)"),
        ("Pendulum-v1", [[0.0], [np.nan]], "Pendulum-v1: actions must be finite, got"),
    ],
)
def test_actions_outside_the_spec_are_refused(load, env_id, actions, message):
    env = load(env_id, 2)
    env.reset()
    with pytest.raises(ValueError, match=message):
        env.step(np.array(actions))
