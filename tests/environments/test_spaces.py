"""Which spaces are taken, how they look to TF-Agents, and which are refused by name."""

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from tf_agents.specs import array_spec, tensor_spec

from ngrl.environments import bridge  # noqa: F401  (quietens TF-Agents' import)
from ngrl.environments.member import observation_check
from ngrl.networks import action_choices
from ngrl.specs import holds_categories


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize(
    ("place", "space", "message"),
    [
        (
            "observation",
            spaces.Tuple([spaces.Discrete(2)]),
            r"observation space Tuple\(Discrete\(2\)\) is not",
        ),
        ("observation", spaces.Text(5), r"observation space Text\("),
        ("observation", spaces.Sequence(spaces.Discrete(2)), r"observation space Sequence\("),
        ("observation", spaces.Graph(spaces.Discrete(2), None), r"observation space Graph\("),
        (
            "observation",
            spaces.Dict({"a": spaces.Dict({"b": spaces.Text(5)})}),
            r"observation\['a'\]\['b'\] space Text\(1, 5, ",
        ),
        (
            "action",
            spaces.Box(0, 1, (2,), bool),
            r"Box\(False, True, \(2,\), bool\) is not supported; ngrl's agents take Discrete, MultiDiscrete, "
            "MultiBinary and Box of floats$",
        ),
        ("action", spaces.Box(-1.0, 1.0, (0,)), r"action space Box\(.*\(0,\), float32\) is not"),
        ("action", spaces.MultiDiscrete(np.ones((2, 0))), r"action space MultiDiscrete\(\[\]\) is not"),
        ("action", spaces.Tuple([spaces.Discrete(2)]), r"action space Tuple\(Discrete\(2\)\) is not"),
        ("action", spaces.Dict({"a": spaces.Discrete(2)}), r"action space Dict\('a': Discrete\(2\)\) is not"),
    ],
)
def test_a_space_that_is_not_supported_is_refused_by_name(load, backend, place, space, message):
    with pytest.raises(ValueError, match=message) as caught:
        load("test/OfSpaces-v0", backend=backend, env_kwargs={f"{place}_space": space})
    assert str(caught.value).startswith("test/OfSpaces-v0: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"a": spaces.Dict({0: spaces.Discrete(2)})}, r"the keys of observation\['a'\] must be texts, got 0$"),
        (
            {"a": spaces.Dict({"b": spaces.Discrete(2)}), "a/b": spaces.Discrete(2)},
            "two parts of the observation are observation/a/b: call a key with a / otherwise$",
        ),
    ],
)
def test_keys_that_could_be_neither_exported_nor_resumed_are_refused(load, keys, message):
    with pytest.raises(ValueError, match=f"^test/OfSpaces-v0: {message}"):
        load("test/OfSpaces-v0", observation_space=spaces.Dict(keys))


def test_a_discrete_action_space_counts_from_0_whatever_its_start(load):
    env = load("test/OfSpaces-v0", 3, action_space=spaces.Discrete(3, start=-2))
    assert env.action_spec() == array_spec.BoundedArraySpec((), np.int64, 0, 2, name="action")
    env.reset()
    env.step(np.array([0, 1, 2], np.int32))
    assert env.get_state()["actions"].tolist() == [-2, -1, 0]


def test_an_integer_box_of_actions_is_no_vector_of_choices(load):
    spec = load("test/OfSpaces-v0", 1, action_space=spaces.Box(0, 5, (3,), np.int32)).action_spec()
    with pytest.raises(ValueError, match=r"^a policy needs discrete actions .* shape \(3,\) and dtype int32, 0 to 5, "):
        action_choices(tensor_spec.from_spec(spec))


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize(
    ("space", "counts", "dtype"),
    [
        (spaces.MultiDiscrete([3, 256], start=[1, -4]), [3, 256], np.int64),
        (spaces.MultiDiscrete([[2, 3], [4, 5]], dtype=np.int8), [2, 3, 4, 5], np.int32),
        (spaces.MultiDiscrete([255], dtype=np.uint8), [255], np.int32),
        (spaces.MultiBinary((2, 2)), [2] * 4, np.int32),
    ],
)
def test_several_discrete_actions_are_a_vector_that_counts_from_0(load, space, counts, dtype, backend):
    """The environment asserts that its space contains the action."""
    env = load("test/OfSpaces-v0", 2, backend=backend, env_kwargs={"action_space": space})
    spec, last = env.action_spec(), np.array(counts) - 1
    assert (spec.shape, spec.dtype) == ((len(counts),), dtype)
    np.testing.assert_array_equal(np.broadcast_to(spec.minimum, spec.shape), 0)
    np.testing.assert_array_equal(np.broadcast_to(spec.maximum, spec.shape), last)
    env.reset()
    env.step(np.stack([0 * last, last]).astype(dtype))
    first, end = env.get_state()["actions"]
    np.testing.assert_array_equal((end.astype(int) - first).reshape(-1), last)
    for wrong in (last + 1, -1 - 0 * last):
        with pytest.raises(ValueError, match=r"actions must lie in 0 to \["):
            env.step(np.stack([0 * last, wrong]).astype(np.int64))
    with pytest.raises(ValueError, match="actions must be integers, got dtype float64"):
        env.step(np.zeros((2, len(counts))))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_observations_become_float32_without_bounds(load, dtype):
    env = load("test/OfSpaces-v0", 2, observation_space=spaces.Box(-1.0, 1.0, (3,), dtype))
    assert env.observation_spec() == array_spec.ArraySpec((3,), np.float32, name="observation")
    observation = env.reset().observation
    assert observation.dtype == np.float32
    expected = spaces.Box(-1.0, 1.0, (3,), dtype)
    expected.seed(int(np.random.SeedSequence(0, spawn_key=(0, 1, 0)).generate_state(1)[0]) // 4 * 2)
    np.testing.assert_array_equal(observation[1], expected.sample().astype(np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_integer_observations_keep_dtype_and_bounds(load, dtype):
    env = load("test/OfSpaces-v0", 2, observation_space=spaces.Box(0, 100, (3,), dtype))
    spec = env.observation_spec()
    assert (spec.dtype, spec.minimum.min(), spec.maximum.max()) == (dtype, 0, 100)
    assert env.reset().observation.dtype == dtype


@pytest.mark.parametrize(
    ("space", "dtype"),
    [
        (spaces.Box(-3, 100, (3,), np.int8), np.int32),
        (spaces.Box(0, 60_000, (3,), np.uint16), np.int32),
        (spaces.Box(0, 4_000_000_000, (3,), np.uint32), np.int64),
        (spaces.Box(0, 2**64 - 1, (3,), np.uint64), np.int64),
        (spaces.Box(0, 255, (), np.uint8), np.int32),
        (spaces.MultiDiscrete([2, 3], dtype=np.int8), np.int32),
        (spaces.Discrete(3, dtype=np.uint8), np.int32),
        (spaces.Discrete(3, dtype=np.uint64), np.int64),
        (spaces.Dict({"a": spaces.Discrete(3, dtype=np.uint8)}), np.int32),
    ],
    ids=str,
)
@pytest.mark.parametrize("backend", ["sync", "async"])
def test_integers_that_tf_agents_can_not_draw_become_int32_or_int64(load, space, dtype, backend):
    env = load("test/OfSpaces-v0", 2, backend=backend, observation_space=space)
    spec, observation = env.observation_spec(), env.reset().observation
    for leaf, values in zip(tf.nest.flatten(spec), tf.nest.flatten(observation), strict=True):
        assert leaf.dtype == values.dtype == dtype
        assert (leaf.minimum <= values).all()
        assert (values <= leaf.maximum).all()
    env.step(np.zeros((2, *env.action_spec().shape), env.action_spec().dtype))
    tensor_spec.sample_spec_nest(tensor_spec.from_spec(spec), outer_dims=(1,))  # as networks are built


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.uint32])
def test_discrete_actions_of_any_dtype_can_be_drawn_and_reach_the_environment_in_it(load, dtype):
    env = load("test/OfSpaces-v0", 2, action_space=spaces.Discrete(3, dtype=dtype))
    env.reset()
    drawn = tensor_spec.sample_spec_nest(tensor_spec.from_spec(env.action_spec()), outer_dims=(2,))
    assert env.step(drawn.numpy()).reward.tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("space", "are_categories"),
    [
        (spaces.Discrete(3, start=-1), True),
        (spaces.MultiDiscrete([3, 3], start=[-1, -1]), True),
        (spaces.Box(-1, 1, (2,), np.int64), False),
        (spaces.Box(-1, 1, (), np.int64), False),
        (spaces.Dict({"a": spaces.Dict({"b": spaces.MultiDiscrete([3])})}), True),
        (spaces.Dict({"a": spaces.Box(0, 2, (), np.int8)}), False),
    ],
)
def test_a_spec_says_whether_its_integers_are_categories_on_its_way_to_a_network(load, space, are_categories):
    env = load("test/OfSpaces-v0", 2, observation_space=space)
    (spec,) = tf.nest.flatten(tensor_spec.from_spec(env.time_step_spec()).observation)
    assert holds_categories(spec) == are_categories
    assert int(np.max(spec.maximum)) - int(np.min(spec.minimum)) == 2
    env.reset()


def test_bits_of_observations_are_the_quantities_0_and_1(load):
    env = load("test/OfSpaces-v0", 2, observation_space=spaces.MultiBinary(3))
    spec, observation = env.observation_spec(), env.reset().observation
    assert (spec.shape, spec.dtype, spec.minimum.max(), spec.maximum.min()) == ((3,), np.int32, 0, 1)
    assert (observation.shape, observation.dtype) == ((2, 3), np.int32)
    assert not holds_categories(spec)


def test_bool_observations_become_0_and_1(load):
    env = load("test/OfSpaces-v0", 2, observation_space=spaces.Box(0, 1, (2, 3), bool))
    spec, observation = env.observation_spec(), env.reset().observation
    assert (spec.shape, spec.dtype, spec.minimum.max(), spec.maximum.min()) == ((2, 3), np.uint8, 0, 1)
    assert observation.dtype == np.uint8
    assert sorted(set(observation.reshape(-1))) == [0, 1]


def test_integers_that_the_spaces_dtype_cannot_hold_are_refused():
    check = observation_check(spaces.Box(-100, 100, (2,), np.int8))
    assert check(np.array([120, -128])) is None  # bounds are not enforced
    assert check(np.array([1, 300])) == "goes from 1 to 300, the space says int8"
    assert observation_check(spaces.Box(0, 9, (1,), np.uint8))(np.array([256], np.uint64)) is not None


def test_bits_outside_the_space_are_refused():
    check = observation_check(spaces.MultiBinary(2))
    assert check(np.array([0, 1], np.int8)) is None
    assert "is [0, 5], the space says [0, 0] to [1, 1]" in check(np.array([0, 5], np.int8))


def test_multi_discrete_observations_outside_the_space_are_refused():
    check = observation_check(spaces.MultiDiscrete([2, 3], start=[0, 1]))
    assert check(np.array([1, 3])) is None
    for value in ([2, 1], [0, 0]):
        assert check(np.array(value)) == f"is {value}, the space says [0, 1] to [1, 3]"
    assert "shape" in check(np.array([0]))


def test_nested_dict_observations_stay_dicts(load):
    space = spaces.Dict({"a": spaces.Dict({"b": spaces.Discrete(4, start=2)}), "c": spaces.Box(-1, 1, (2, 2))})
    env = load("test/OfSpaces-v0", 2, observation_space=space)
    spec = env.observation_spec()
    assert (spec["a"]["b"].minimum, spec["a"]["b"].maximum) == (2, 5)
    observation = env.reset().observation
    assert observation["a"]["b"].shape == (2,)
    assert observation["c"].shape == (2, 2, 2)
    assert observation["c"].dtype == np.float32


def test_infinite_bounds_of_actions_become_the_largest_numbers(load):
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


BOXES = {
    "float64": spaces.Box(-0.1, 0.1, (2,), np.float64),
    "float32": spaces.Box(-0.1, 0.1, (2,), np.float32),
    "float16": spaces.Box(-0.1, 0.1, (2,), np.float16),
    "unbounded float16": spaces.Box(-np.inf, np.inf, (2,), np.float16),
    "far apart": spaces.Box(np.array([1e-50, 0.3]), np.array([2e-50, 1.8e308]), dtype=np.float64),
    "matrix": spaces.Box(
        np.array([[-0.1, 0.7], [1e9 + 1, 0]]), np.array([[0.1, 0.7], [2e9 + 1, 0.3]]), dtype=np.float64
    ),
    "number": spaces.Box(-0.1, 0.3, (), np.float64),
    "uint8": spaces.Box(0, 200, (2,), np.uint8),
    "int64": spaces.Box(-5, 2**40, (3,), np.int64),
    "one int32": spaces.Box(0, 3, (), np.int32),
}


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize("kind", BOXES)
def test_actions_reach_the_environment_within_its_own_bounds(load, kind, backend):
    """The environment asserts that its space contains its action: float32(0.1) is more than 0.1."""
    env = load("test/OfSpaces-v0", 2, backend=backend, env_kwargs={"action_space": BOXES[kind]})
    spec = env.action_spec()
    env.reset()
    far = np.full(spec.shape, 300000, np.promote_types(spec.dtype, np.int64))
    for action in (spec.minimum, spec.maximum, far, -far):
        env.step(np.broadcast_to(action, (2, *spec.shape)).copy())


@pytest.mark.parametrize("kind", [kind for kind in BOXES if "int" not in kind and kind != "far apart"])
def test_the_spec_of_continuous_actions_is_a_vector_within_the_space(load, kind):
    """So that an exported policy's actions are right without ngrl, too."""
    space = BOXES[kind]
    spec = load("test/OfSpaces-v0", 1, action_space=space).action_spec()
    assert spec.shape == (space.low.size,)
    low, high = space.low.reshape(-1).astype(np.float64), space.high.reshape(-1).astype(np.float64)
    assert (spec.minimum.astype(np.float64) >= low).all() or kind == "matrix"  # nothing but 0.7 is within [0.7, 0.7]
    assert (spec.maximum.astype(np.float64) <= high).all() or kind == "matrix"
    if "unbounded" not in kind:
        np.testing.assert_allclose(spec.minimum, low, rtol=2e-7)
        np.testing.assert_allclose(spec.maximum, high, rtol=2e-7)


def test_matrices_of_actions_are_vectors_in_their_order(load):
    env = load("test/OfSpaces-v0", 2, action_space=spaces.Box(-1.0, 1.0, (2, 2), np.float32))
    env.reset()
    actions = np.arange(8, dtype=np.float32).reshape(2, 4) / 8
    env.step(actions)
    np.testing.assert_array_equal(env.get_state()["actions"], actions.reshape(2, 2, 2))


def test_actions_too_large_for_the_spaces_own_dtype_are_refused_too(load):
    env = load("test/OfSpaces-v0", 1, action_space=spaces.Discrete(3, start=-1, dtype=np.int8))
    env.reset()
    with pytest.raises(ValueError, match=r"actions must lie in 0 to 2, got \[256\]"):
        env.step(np.array([256]))
    env.step(np.array([2]))
    assert (env.get_state()["actions"].dtype, env.get_state()["actions"].tolist()) == (np.int8, [1])


@pytest.mark.parametrize(
    ("env_id", "actions", "message"),
    [
        ("CartPole-v1", [0, 2], r"CartPole-v1: actions must lie in 0 to 1, got \[0, 2\]"),
        ("CartPole-v1", [0, -1], r"CartPole-v1: actions must lie in 0 to 1, got \[0, -1\]"),
        ("CartPole-v1", [0], r"CartPole-v1: actions must have shape \(2,\), got \(1,\)"),
        ("CartPole-v1", [0.0, 1.0], "CartPole-v1: actions must be integers, got dtype float64"),
        ("Pendulum-v1", [0.0, 1.0], r"Pendulum-v1: actions must have shape \(2, 1\), got \(2,\)"),
        ("Pendulum-v1", [[0.0], [np.nan]], "Pendulum-v1: actions must be finite, these are not: "),
    ],
)
def test_actions_outside_the_spec_are_refused(load, env_id, actions, message):
    env = load(env_id, 2)
    env.reset()
    with pytest.raises(ValueError, match=message):
        env.step(np.array(actions))
