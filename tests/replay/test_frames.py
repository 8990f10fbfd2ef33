"""`FrameReplayBuffer` against `UniformReplayBuffer`, which stores everything."""

import numpy as np
import pytest

from ngrl.replay import FrameReplayBuffer, SequenceReplayBuffer, Transition, UniformReplayBuffer, frames

STACK, FRAME = 3, (2, 2)


class Games:
    """N environments whose frames are random, stacked or not, with episodes of random length."""

    def __init__(self, num_envs, mean_length, seed=0, stacked=True, copies=True):
        self.random = np.random.default_rng(seed)
        self.mean_length, self.stacked, self.copies = mean_length, stacked, copies
        self.shape = (num_envs, STACK, *FRAME)
        self.at, self.ended = self.begin(), np.zeros(num_envs, bool)

    def draw(self):
        return self.random.integers(0, 4, (self.shape[0], *FRAME), np.uint8)  # of few values: frames repeat

    def begin(self):
        filled = np.repeat(self.draw()[:, np.newaxis], STACK, axis=1)
        if not self.copies:
            filled[:, :-1] = 0  # as a stack padded by zeros
        return filled

    def observed(self, stack):
        return stack.copy() if self.stacked else stack[:, -1].copy()

    def step(self):
        moved = ~self.ended
        after = np.concatenate([self.at[:, 1:], self.draw()[:, np.newaxis]], axis=1)
        after = np.where(moved[:, None, None, None], after, self.begin())
        self.ended = moved & (self.random.uniform(size=len(moved)) < 1 / self.mean_length)
        number = self.random.normal(size=len(moved)).astype(np.float32)
        items = Transition(
            self.observed(self.at),
            self.random.integers(3, size=len(moved)),
            number,
            (~self.ended).astype(np.float32),
            self.observed(after),
        )
        self.at = after
        return items, moved


def example(stacked=True):
    observation = np.zeros((STACK, *FRAME) if stacked else FRAME, np.uint8)
    return Transition(observation, np.int64(0), np.float32(0), np.float32(0), observation)


def frames_of(num_envs, capacity, stacked=True, seed=0):
    return FrameReplayBuffer(
        lambda item: UniformReplayBuffer(item, capacity, seed), example(stacked), num_envs, stacked
    )


def add(buffer, items, moved, ended=None):
    rows = Transition(*(leaf[moved] for leaf in items))
    first = np.zeros(len(moved), bool) if ended is None else ended
    if moved.any():
        buffer.add_steps(rows, np.flatnonzero(moved), first[moved])


def assert_same(one, other):
    for first, second in zip(one, other, strict=True):
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("copies", [True, False])
@pytest.mark.parametrize("mean_length", [1, 3, 50])
def test_draws_are_those_of_a_buffer_that_stores_everything(stacked, copies, mean_length):
    """Also where all episodes have one step, so that each transition has two frames of its own."""
    games = Games(3, mean_length, stacked=stacked, copies=copies)
    slow = UniformReplayBuffer(example(stacked), 40, seed=5)
    buffer = frames_of(3, 40, stacked, seed=5)
    for number in range(120):
        if number == 60:  # new episodes, of which nobody has told: an environment that can't be restored
            games.at, games.ended = games.begin(), np.zeros(3, bool)
        items, moved = games.step()
        for each in (slow, buffer):
            add(each, items, moved)
        assert len(buffer) == len(slow)
        if len(slow):
            assert_same(buffer.sample(2, 20), slow.sample(2, 20))


def test_sequences_are_those_of_a_buffer_that_stores_everything():
    def sequences(item):
        return SequenceReplayBuffer(item, 40, 3, 4, seed=5)

    games, slow = Games(3, 6), sequences(example())
    buffer, first = FrameReplayBuffer(sequences, example(), 3, True), np.ones(3, bool)
    for _ in range(80):
        items, moved = games.step()
        for each in (slow, buffer):
            add(each, items, moved, first)
        first = ~moved
        (one, valid), (other, same) = buffer.sample(30), slow.sample(30)
        assert_same(one, other)
        np.testing.assert_array_equal(valid, same)
    assert 0.2 < valid.mean() < 0.9


def restored(buffer, num_envs, capacity):
    other = frames_of(num_envs, capacity, seed=99)
    arrays, values = buffer.state()
    copied = {name: array.copy() for name, array in arrays.items()}
    other.restore(copied, values, {name: block.copy() for name, block in buffer.blocks().items()})
    return other


@pytest.mark.parametrize("mean_length", [2, 30])
def test_a_restored_buffer_goes_on_bit_for_bit(mean_length):
    games, buffer = Games(2, mean_length), frames_of(2, 30, seed=1)
    other = buffer
    for number in range(90):
        items, moved = games.step()
        for each in {id(buffer): buffer, id(other): other}.values():
            add(each, items, moved)
        if number in (3, 40, 70):
            other = restored(buffer, 2, 30)
    assert_same(buffer.sample(50), other.sample(50))
    (one, values), (two, same) = buffer.state(), other.state()
    assert values == same
    for name, array in {**one, **buffer.blocks()}.items():
        np.testing.assert_array_equal(array, {**two, **other.blocks()}[name])


@pytest.mark.parametrize("mean_length", [2, 30])
def test_a_block_that_changes_changes_its_name_and_most_do_not(mean_length, monkeypatch):
    monkeypatch.setattr(frames, "_BLOCK_BYTES", 5 * 4)  # five frames
    games, buffer = Games(2, mean_length), frames_of(2, 100)
    seen, written = {}, []
    for number in range(300):
        add(buffer, *games.step())
        if number % 5 == 0:
            blocks = {name: block.copy() for name, block in buffer.blocks().items()}
            written.append(len(blocks.keys() - seen.keys()))
            for name, block in blocks.items():
                np.testing.assert_array_equal(block, seen.get(name, block))
            assert sum(map(len, blocks.values())) == min(buffer._added, len(buffer._frames))
            seen = blocks
    assert np.median(written) <= 4  # of about 22: ten steps' frames, and two blocks that they share with others
    assert len(seen) > 20


def test_a_million_frames_of_atari_take_less_than_8_gigabytes():
    """By a buffer of a thousandth of that, which holds as many bytes a transition."""
    stack = np.zeros((4, 84, 84), np.uint8)
    atari = Transition(stack, np.int64(0), np.float32(0), np.float32(0), stack)
    buffers = [
        FrameReplayBuffer(lambda item, size=size: UniformReplayBuffer(item, size), atari, 1, True)
        for size in (1000, 2000)
    ]
    small, large = (buffer.num_bytes for buffer in buffers)
    assert (large - small) * 1000 < 8e9  # what a thousand more take, without what no capacity changes
    assert (large - small) / 1000 == pytest.approx(84 * 84 * 17 / 16 + 16 + 64, rel=0.001)


def test_another_buffer_s_state_is_refused():
    buffer = frames_of(2, 10)
    add(buffer, *Games(2, 5).step())
    with pytest.raises(ValueError, match="other frames or another number of environments"):
        restored(buffer, 3, 10)
    arrays, values = UniformReplayBuffer(example(), 10).state()
    with pytest.raises(ValueError, match="other frames"):
        frames_of(2, 10).restore(arrays, values, {})
