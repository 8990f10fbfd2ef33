import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ngrl.replay import CompiledReplayBuffer, Transition, UniformReplayBuffer


def transitions(numbers):
    """Transitions that carry their number in every field."""
    n = np.asarray(numbers)
    observation = {"a": np.stack([n, n], 1).astype(np.float32), "b": n.astype(np.int64)}
    return Transition(observation, n.astype(np.int64), n.astype(np.float32), n.astype(np.float32), observation)


def example():
    return Transition(
        {"a": np.zeros(2, np.float32), "b": np.int64(0)},
        np.int64(0),
        np.float32(0),
        np.float32(0),
        {"a": np.zeros(2, np.float32), "b": np.int64(0)},
    )


@settings(max_examples=30, deadline=None)
@given(capacity=st.integers(3, 20), sizes=st.lists(st.integers(1, 3), min_size=1, max_size=20))
def test_ring_holds_exactly_the_latest_transitions(capacity, sizes):
    buffer, added = UniformReplayBuffer(example(), capacity), 0
    for size in sizes:
        buffer.add_batch(transitions(range(added, added + size)))
        added += size
    assert len(buffer) == min(added, capacity)
    drawn = buffer.sample(400)
    latest = set(range(max(0, added - capacity), added))
    assert set(drawn.action.tolist()) <= latest
    if capacity <= 8:
        assert set(drawn.action.tolist()) == latest
    # Every field belongs to the same transition.
    np.testing.assert_array_equal(drawn.reward, drawn.action)
    np.testing.assert_array_equal(drawn.next_observation["a"][:, 1], drawn.action)
    np.testing.assert_array_equal(drawn.observation["b"], drawn.action)


def test_sampling_is_uniform():
    buffer = UniformReplayBuffer(example(), 10, seed=3)
    buffer.add_batch(transitions(range(10)))
    counts = np.bincount(buffer.sample(20_000).action, minlength=10)
    # Chi-squared with 9 degrees of freedom: 27.9 is its 99.9 % quantile.
    assert np.sum((counts - 2000) ** 2 / 2000) < 27.9


def test_leaves_have_the_shape_asked_for():
    buffer = UniformReplayBuffer(example(), 10)
    buffer.add_batch(transitions(range(4)))
    assert buffer.sample(3, 5).observation["a"].shape == (3, 5, 2)


@pytest.mark.parametrize("added", [4, 25])
def test_restored_buffer_goes_on_bit_for_bit(added):
    buffer = UniformReplayBuffer(example(), 10, seed=1)
    for start in range(0, added, 5):
        buffer.add_batch(transitions(range(start, min(start + 5, added))))
    buffer.sample(7)
    arrays, values = buffer.state()
    arrays = {name: array.copy() for name, array in arrays.items()}
    restored = UniformReplayBuffer(example(), 10, seed=99)
    restored.restore(arrays, json.loads(json.dumps(values)))
    for other in (buffer, restored):
        other.add_batch(transitions([100, 101]))
    first, second = buffer.sample(50), restored.sample(50)
    np.testing.assert_array_equal(first.observation["a"], second.observation["a"])
    np.testing.assert_array_equal(first.action, second.action)


@pytest.mark.parametrize("kind", ["uniform", "compiled"])
def test_full_buffer_of_another_capacity_is_refused_whose_next_place_is_in_its_middle(kind):
    def made(capacity):
        if kind == "uniform":
            return UniformReplayBuffer(example(), capacity)
        return CompiledReplayBuffer(example(), capacity, 1, 0)

    buffer = UniformReplayBuffer(example(), 4)
    buffer.add_batch(transitions(range(3)))
    buffer.add_batch(transitions(range(3, 6)))
    with pytest.raises(ValueError, match="a full one of another capacity"):
        made(8).restore(*buffer.state())
    partly = UniformReplayBuffer(example(), 4)
    partly.add_batch(transitions(range(3)))
    made(8).restore(*partly.state())


def test_seed_decides_the_draws():
    def draws(seed):
        buffer = UniformReplayBuffer(example(), 100, seed)
        buffer.add_batch(transitions(range(50)))
        return buffer.sample(20).action.tolist()

    assert draws(1) == draws(1) != draws(2)


def test_wrong_input_is_refused():
    buffer = UniformReplayBuffer(example(), 3)
    with pytest.raises(ValueError, match="empty"):
        buffer.sample(1)
    with pytest.raises(ValueError, match="do not fit"):
        buffer.add_batch(transitions(range(4)))
    with pytest.raises(ValueError, match="dtype float32"):
        buffer.add_batch(transitions([1])._replace(reward=np.array(["x"])))
    with pytest.raises(ValueError, match="shape"):
        buffer.add_batch(transitions([1])._replace(reward=np.zeros((1, 2), np.float32)))
    with pytest.raises(ValueError, match="capacity"):
        UniformReplayBuffer(example(), 0)
    other = UniformReplayBuffer(example(), 10)
    other.add_batch(transitions(range(5)))
    arrays, values = other.state()
    kept, last = {name: array.copy() for name, array in arrays.items()}, list(arrays)[-1]
    with pytest.raises(ValueError, match="another capacity"):
        other.restore({name: array[: len(array) - (name == last)] + 1 for name, array in kept.items()}, values)
    for name, array in kept.items():
        np.testing.assert_array_equal(other.state()[0][name], array)
    with pytest.raises(ValueError, match="another capacity"):
        buffer.restore(*other.state())
