"""Stacks of frames, against a slow loop over the same episodes."""

import numpy as np
import pytest
from gymnasium import spaces

from ngrl import environments


@pytest.mark.parametrize("backend", ["sync", "envpool"])
def test_an_observation_is_the_latest_frames_of_its_episode_after_copies_of_its_first(load, backend):
    if backend == "envpool":
        pytest.importorskip("envpool")
    plain = load("CartPole-v1", 2, seed=1, backend=backend)
    stacked = load("CartPole-v1", 2, seed=1, backend=backend, frame_stack=3)
    assert (stacked.observation_spec().shape, stacked.observation_space.shape) == ((3, 4), (3, 4))
    history = [[], []]
    steps = [(plain.reset_arrays(), stacked.reset_arrays())]
    actions = np.random.default_rng(0).integers(2, size=(60, 2))
    steps += [(plain.step_arrays(batch), stacked.step_arrays(batch)) for batch in actions]
    ends = 0
    for step, found in steps:
        for member in range(2):
            if step.step_type[member] == 0:
                history[member] = [step.observation[member]] * 2
            history[member].append(step.observation[member])
            np.testing.assert_array_equal(found.observation[member], history[member][-3:])
            ends += step.step_type[member] == 2
        np.testing.assert_array_equal(found.reward, step.reward)
    assert ends >= 3


@pytest.mark.parametrize("count", [0, 1, 40])
def test_a_restored_stack_goes_on_bit_for_bit(load, count):
    original, restored = (load("CartPole-v1", 3, seed=seed, frame_stack=4) for seed in (2, 77))
    actions = np.random.default_rng(1).integers(2, size=(count + 40, 3))
    for environment in (original, restored):
        environment.reset_arrays()
    for batch in actions[:count]:
        original.step_arrays(batch)
    restored.set_state(original.get_state())
    np.testing.assert_array_equal(restored.current_time_step().observation, original.current_time_step().observation)
    for batch in actions[count:]:
        np.testing.assert_array_equal(restored.step_arrays(batch).observation, original.step_arrays(batch).observation)


def test_integers_keep_their_dtype_and_bounds(load):
    spec = load("MinAtar/Breakout-v1", frame_stack=2).observation_spec()
    assert (spec.shape, spec.dtype, spec.minimum.max(), spec.maximum.min()) == ((2, 10, 10, 4), np.uint8, 0, 1)


def test_evaluation_and_an_exported_policys_description_keep_the_stack():
    environment = environments.Environment("CartPole-v1", frame_stack=4)
    assert environment.for_evaluation(2).frame_stack == 4
    assert environments.Environment.described(environment.describe()).frame_stack == 4
    assert environments.Environment.described({"env_id": "CartPole-v1"}).frame_stack is None


def test_what_cannot_be_stacked_is_refused(load):
    with pytest.raises(ValueError, match="frame_stack must be a positive integer, got 0"):
        environments.Environment("CartPole-v1", frame_stack=0)
    space = spaces.Dict({"a": spaces.Box(0, 1, (2,))})
    with pytest.raises(
        ValueError, match="test/OfSpaces-v0: frame_stack is for observations that are one array"
    ) as caught:
        load("test/OfSpaces-v0", env_kwargs={"observation_space": space}, frame_stack=2)
    assert "\n" not in str(caught.value)
