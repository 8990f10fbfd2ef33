import numpy as np
import pytest

from ngrl.replay import SequenceReplayBuffer, Transition, UniformReplayBuffer

EXAMPLE = Transition(np.zeros(1, np.float32), np.int64(0), np.float32(0), np.float32(0), np.zeros(1, np.float32))


def filled(capacity, num_steps=4, rounds=200, num_envs=3, seed=5):
    """A buffer of members whose episodes end at random, and every transition by its reward, a number of its own."""
    buffer, generator = SequenceReplayBuffer(EXAMPLE, capacity, num_envs, num_steps, seed), np.random.default_rng(seed)
    follows, latest, is_first, count = {}, {}, np.ones(num_envs, bool), 0
    for _ in range(rounds):
        moved = generator.random(num_envs) < 0.8
        members = np.flatnonzero(moved)
        numbers = np.arange(count, count + len(members)).astype(np.float32)
        count += len(members)
        items = Transition(numbers[:, None], members, numbers, np.ones_like(numbers), numbers[:, None] + 0.5)
        if len(members):
            buffer.add_steps(items, members, is_first[members])
        for member, number in zip(members, numbers, strict=True):
            if not is_first[member] and member in latest:
                follows[latest[member]] = number
            latest[member] = number
        is_first[members] = generator.random(len(members)) < 0.15
    return buffer, follows


@pytest.mark.parametrize("capacity", [3, 50, 1000])
def test_each_transition_comes_with_those_that_followed_it_in_its_episode(capacity):
    buffer, follows = filled(capacity)
    (transitions, valid), lengths = buffer.sample(40, 8), set()
    assert transitions.observation.shape == (40, 8, 4, 1)
    for rewards, members, known in zip(
        transitions.reward.reshape(-1, 4), transitions.action.reshape(-1, 4), valid.reshape(-1, 4), strict=True
    ):
        expected = [rewards[0]]
        while len(expected) < 4 and expected[-1] in follows:
            expected.append(follows[expected[-1]])
        lengths.add(len(expected))
        assert known.tolist() == [step < len(expected) for step in range(4)]
        assert rewards.tolist() == expected + [expected[-1]] * (4 - len(expected))
        assert len(set(members)) == 1
    assert len(lengths) > 1 or capacity == 3


def test_transitions_drawn_are_those_of_a_buffer_without_sequences():
    sequences, plain = SequenceReplayBuffer(EXAMPLE, 20, 2, 3, seed=7), UniformReplayBuffer(EXAMPLE, 20, seed=7)
    for number in range(15):
        numbers = np.array([2.0 * number, 2.0 * number + 1], np.float32)
        items = Transition(numbers[:, None], np.array([0, 1]), numbers, numbers, numbers[:, None])
        sequences.add_steps(items, np.arange(2), np.zeros(2, bool))
        plain.add_batch(items)
    np.testing.assert_array_equal(sequences.sample(50).transitions.reward[:, 0], plain.sample(50).reward)


def test_restored_buffer_goes_on_as_the_one_that_was_saved():
    buffer, _ = filled(50)
    other = SequenceReplayBuffer(EXAMPLE, 50, 3, 4)
    other.restore(*buffer.state())
    item = Transition(
        np.full((1, 1), -1.0, np.float32), np.array([1]), *[np.array([-1.0], np.float32)] * 2, np.ones((1, 1))
    )
    for each in (buffer, other):
        each.add_steps(item, np.array([1]), np.array([False]))
    for one, two in zip(buffer.sample(300), other.sample(300), strict=True):
        np.testing.assert_array_equal(*[each.reward if isinstance(each, Transition) else each for each in (one, two)])
    plain = UniformReplayBuffer(EXAMPLE, 50)
    plain.add_batch(item)
    with pytest.raises(ValueError, match="holds no sequences"):
        other.restore(*plain.state())
