import json

import numpy as np
import pytest
from numpy.random import default_rng as rng
from tf_agents.trajectories import trajectory

from ngrl.replay import BEHAVIOUR, TrajectoryReplayBuffer

LENGTH = 3


def trajectories(numbers, info=True):
    """Trajectories [B, 3, ...] whose fields all tell their number and the step."""
    n = np.asarray(numbers)[:, None] * 10 + np.arange(LENGTH)
    floats = n.astype(np.float32)
    told = {BEHAVIOUR: np.stack([floats, floats], -1)} if info else ()
    kinds = np.ones_like(n, np.int32)
    return trajectory.Trajectory(kinds, floats[..., None], n.astype(np.int64), told, kinds, floats, floats)


def one(info=True):
    batch = trajectories([0], info)
    parts = [leaf if isinstance(leaf, (tuple, dict)) else leaf[0] for leaf in batch]
    parts[3] = {BEHAVIOUR: batch.policy_info[BEHAVIOUR][0]} if info else ()
    return trajectory.Trajectory(*parts)


def filled(count, capacity=4):
    buffer = TrajectoryReplayBuffer(one(), capacity)
    for number in range(count):
        buffer.add_batch(trajectories([number]))
    return buffer


def test_draws_are_whole_trajectories_among_the_latest():
    drawn = filled(6).sample(rng([1, 2]), 5, 40)
    assert drawn.reward.shape == (5, 40, LENGTH)
    assert set(drawn.action[..., 0].reshape(-1).tolist()) == {20, 30, 40, 50}
    np.testing.assert_array_equal(drawn.action, drawn.action[..., :1] + np.arange(LENGTH))
    np.testing.assert_array_equal(drawn.policy_info[BEHAVIOUR][..., 1], drawn.action)
    np.testing.assert_array_equal(drawn.observation[..., 0], drawn.reward)


def test_sampling_is_uniform():
    counts = np.bincount(filled(10, 10).sample(rng([3]), 20_000).action[:, 0] // 10, minlength=10)
    # Chi-squared with 9 degrees of freedom: 27.9 is its 99.9 % quantile.
    assert np.sum((counts - 2000) ** 2 / 2000) < 27.9


def test_draws_depend_on_the_generator_and_the_content_alone():
    buffer, again = filled(6), filled(6)
    buffer.sample(rng([9, 9]), 100)
    np.testing.assert_array_equal(buffer.sample(rng([1, 2]), 30).action, again.sample(rng([1, 2]), 30).action)
    assert (buffer.sample(rng([1, 2]), 30).action != again.sample(rng([1, 3]), 30).action).any()


@pytest.mark.parametrize("count", [3, 7])
def test_restored_buffer_goes_on_bit_for_bit(count):
    buffer, restored = filled(count), TrajectoryReplayBuffer(one(), 4)
    arrays, values = buffer.state()
    restored.restore({name: array.copy() for name, array in arrays.items()}, json.loads(json.dumps(values)))
    for other in (buffer, restored):
        other.add_batch(trajectories([90]))
    np.testing.assert_array_equal(buffer.sample(rng([1]), 50).action, restored.sample(rng([1]), 50).action)
    assert len(buffer) == len(restored) == 4


@pytest.mark.parametrize("make", [lambda: TrajectoryReplayBuffer(one(info=False), 4), None])
def test_trajectories_without_behaviour_probabilities_are_refused_in_one_line(make):
    buffer = filled(2)
    with pytest.raises(ValueError, match=r"^trajectories without behaviour probabilities can't be replayed: .*$"):
        make() if make else buffer.add_batch(trajectories([3], info=False))
    assert len(buffer) == 2


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="empty"):
        TrajectoryReplayBuffer(one(), 4).sample(rng([1]), 1)
    with pytest.raises(ValueError, match="5 trajectories do not fit a buffer of 4"):
        filled(0).add_batch(trajectories(range(5)))
    other = filled(3, capacity=10)
    with pytest.raises(ValueError, match="the saved replay buffer has other trajectories or another capacity"):
        TrajectoryReplayBuffer(one(), 2).restore(*other.state())
