"""Compiled environments: each step is gymnasium's, beginnings are distributed alike, boundaries and resume exact."""

import gymnasium
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from ngrl.environments import CompiledEnvironments, Environment, EnvironmentFault, load
from ngrl.environments.compiled import random_numbers
from ngrl.environments.compiled.kinds import KINDS, dynamics_of
from ngrl.seeding import Stream

FIRST, MID, LAST = 0, 1, 2
STEPS = 10_000
# Boxes of physics that reach over every boundary: ends, walls, speed limits, turns.
BOXES = {
    "CartPole-v0": [2.5, 3, 0.23, 3],
    "CartPole-v1": [2.5, 3, 0.23, 3],
    "Acrobot-v1": [3.2, 3.2, 13, 29],
    "Pendulum-v1": [20, 8],
    "ngrl/MaskedCartPole-v1": [2.5, 3, 0.23, 3],
    "ngrl/HoaglandToy-v0": [5],
}


def random_states(env_id, count=STEPS):
    """Physics [count, D] and actions."""
    random = np.random.default_rng(1)
    if "MountainCar" in env_id:
        physics = random.uniform([-1.3, -0.08], [0.6, 0.08], (count, 2))
        physics = np.clip(physics, [-1.2, -0.07], [0.6, 0.07])
    else:
        physics = random.uniform(-np.array(BOXES[env_id]), BOXES[env_id], (count, len(BOXES[env_id])))
    if env_id == "MountainCarContinuous-v0":  # whose state is float32 but for an episode's first
        physics = physics.astype(np.float32).astype(np.float64)
    space = gymnasium.make(env_id).action_space
    if isinstance(space, gymnasium.spaces.Discrete):
        return physics, random.integers(space.n, size=count)
    low, high = np.clip(space.low, -3, 3), np.clip(space.high, -3, 3)
    return physics, random.uniform(low, high, (count, 1)).astype(np.float32)


class Reference:
    """Gymnasium's environment, put where it is asked to be."""

    def __init__(self, env_id):
        self._env = gymnasium.make(env_id, disable_env_checker=True, max_episode_steps=-1)
        self._env.reset(seed=0)
        self._is_toy = env_id == "ngrl/HoaglandToy-v0"
        self._is_float32 = env_id == "MountainCarContinuous-v0"

    def step(self, physics, action):
        """Physics, observation, reward and terminated after a step."""
        inner = self._env.unwrapped
        if self._is_toy:
            inner._state = float(physics[0])
        else:
            inner.state = physics.astype(np.float32) if self._is_float32 else physics.copy()
            inner.steps_beyond_terminated = None
        observation, reward, terminated, _, _ = self._env.step(action)
        return [inner._state] if self._is_toy else np.array(inner.state), observation, reward, terminated


@pytest.mark.parametrize("env_id", KINDS)
def test_ten_thousand_random_steps_are_gymnasiums(env_id):
    """From equal states to 1e-10 in float64.

    The continuous mountain car computes in float32, and agrees to 1e-7; so does the pendulum with NumPy 1, which takes
    products of its float32 torque and a number of Python's in float64.
    """
    physics, actions = random_states(env_id)
    reference = Reference(env_id)
    expected = [reference.step(state, action) for state, action in zip(physics, actions, strict=True)]
    dynamics = dynamics_of(env_id)
    motion = tf.function(dynamics.step, jit_compile=True)(physics, actions)
    observation = dynamics.observe(motion.physics)
    state, seen, reward, terminated = (np.array(part) for part in zip(*expected, strict=True))
    rounds = ("MountainCarContinuous-v0", *(("Pendulum-v1",) if np.__version__ < "2" else ()))
    tolerance = 1e-7 if env_id in rounds else 1e-10
    np.testing.assert_allclose(motion.physics, state, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(observation, seen, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(motion.reward, reward, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(motion.terminated, terminated)
    assert terminated.any() == (env_id not in ("Pendulum-v1", "ngrl/HoaglandToy-v0"))


def test_generator_has_the_published_answers():
    """Known answers of Threefry-2x32 with 20 rounds, distributed with the paper's Random123."""

    def words(*values):
        return [tf.constant(value, tf.uint32) for value in values]

    full = 2**32 - 1
    for key, counter, expected in [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((full, full), (full, full), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ]:
        assert [int(word) for word in random_numbers.threefry(words(*key), words(*counter))] == list(expected)


@pytest.mark.parametrize("env_id", [env_id for env_id in KINDS if env_id != "ngrl/HoaglandToy-v0"])
def test_episodes_begin_where_gymnasiums_do(env_id):
    """Each coordinate by Kolmogorov and Smirnov's test of two samples, and no two beginnings are the same."""
    env = gymnasium.make(env_id, disable_env_checker=True)
    expected = np.array([(env.reset(seed=seed), env.unwrapped.state)[1] for seed in range(1000)])
    members = Environment(env_id, 250, backend=CompiledEnvironments()).load(1)
    starts = np.concatenate([(members.reset_arrays(), members.state.physics.numpy())[1] for _ in range(4)])
    assert len(np.unique(starts, axis=0)) == len(starts)
    for column in range(starts.shape[1]):
        if np.ptp(expected[:, column]) == 0:
            np.testing.assert_array_equal(starts[:, column], expected[0, column])
            continue
        assert scipy.stats.ks_2samp(starts[:, column], expected[:, column]).pvalue > 1e-3
        assert expected[:, column].min() - 0.01 < starts[:, column].min()
        assert expected[:, column].max() + 0.01 > starts[:, column].max()


def test_a_beginning_follows_from_seed_stream_member_and_number_of_the_episode():
    def starts(num_envs, seed=0, stream=Stream.TRAINING_EPISODES, resets=1):
        environment = Environment("CartPole-v1", num_envs, backend=CompiledEnvironments()).load(seed, stream)
        return np.stack([environment.reset_arrays().observation for _ in range(resets)])

    first = starts(3, resets=3)
    np.testing.assert_array_equal(starts(5, resets=3)[:, :3], first)
    others = [starts(3, seed=1), starts(3, stream=Stream.EVALUATION_EPISODES)]
    assert len(np.unique(np.concatenate([first, *others]).reshape(-1, 4), axis=0)) == 15
    # After two episodes that ended by themselves the third begins as after two resets.
    environment = Environment("CartPole-v1", 3, backend=CompiledEnvironments()).load(0)
    seen = [[observation] for observation in environment.reset_arrays().observation]
    for _ in range(60):
        step = environment.step_arrays(np.ones(3, np.int64))
        for member in np.flatnonzero(step.step_type == FIRST):
            seen[member].append(step.observation[member])
    for member in range(3):
        np.testing.assert_array_equal(seen[member][:3], first[:, member])


@pytest.mark.parametrize("truncation_is_terminal", [False, True])
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_boundaries_are_those_of_gymnasiums_members(env_id, truncation_is_terminal):
    """Ends, limits and resets of whole trajectories, step by step beside gymnasium's environment with its TimeLimit."""
    limit, random = 12, np.random.default_rng(0)
    members = load(env_id, 4, 5, "compiled", truncation_is_terminal=truncation_is_terminal, max_episode_steps=limit)
    others = [gymnasium.make(env_id, max_episode_steps=limit) for _ in range(4)]
    step, kinds = members.reset_arrays(), set()
    assert members.time_limit == limit
    for _ in range(150):
        state = members.state
        for member in np.flatnonzero(step.step_type == FIRST):
            others[member].reset()
            others[member].unwrapped.state = state.physics.numpy()[member]
        due = step.step_type == LAST
        if env_id == "CartPole-v1":
            actions = (random.random(4) < 0.7).astype(np.int64)
        else:
            actions = random.uniform(-2, 2, (4, 1)).astype(np.float32)
        step = members.step_arrays(actions)
        for member in range(4):
            if due[member]:
                assert (step.step_type[member], step.reward[member], step.discount[member]) == (FIRST, 0, 1)
                continue
            observation, reward, terminated, truncated, _ = others[member].step(actions[member])
            np.testing.assert_allclose(step.observation[member], observation, rtol=1e-6, atol=1e-6)
            assert step.reward[member] == pytest.approx(reward, rel=1e-6)
            assert step.step_type[member] == (LAST if terminated or truncated else MID)
            assert step.discount[member] == (0 if terminated or (truncated and truncation_is_terminal) else 1)
            kinds.add((terminated, truncated))
    assert (False, True) in kinds
    assert (True, False) in kinds or env_id != "CartPole-v1"


@pytest.mark.parametrize("truncation_is_terminal", [False, True])
def test_steps_that_a_loop_takes_within_its_own_call_are_those_of_the_environment(truncation_is_terminal):
    settings = {"truncation_is_terminal": truncation_is_terminal, "max_episode_steps": 12}
    inside, outside = (load("CartPole-v1", 4, 5, "compiled", **settings) for _ in range(2))
    for environment in (inside, outside):
        environment.reset_arrays()
    state, last, random = inside.state, set(), np.random.default_rng(0)
    for _ in range(80):
        actions = (random.random(4) < 0.7).astype(np.int64)
        state, found = inside.advance(state, tf.constant(actions))
        expected = outside.step_arrays(actions)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
        last |= set(expected.discount[expected.step_type == LAST])
    assert last == ({0.0} if truncation_is_terminal else {0.0, 1.0})


def test_state_goes_on_bit_for_bit_in_the_middle_and_at_the_end_of_episodes():
    environment, other = (load("CartPole-v1", 5, seed, "compiled", max_episode_steps=15) for seed in (1, 2))
    actions = np.random.default_rng(0).integers(2, size=(80, 5))
    environment.reset_arrays()
    for number, action in enumerate(actions):
        if number % 7 == 0:
            other.set_state({name: value.copy() for name, value in environment.get_state().items()})
            assert other.current_time_step().step_type.tolist() == environment.current_time_step().step_type.tolist()
        steps = environment.step_arrays(action), other.step_arrays(action)
        for one, two in zip(*steps, strict=True):
            np.testing.assert_array_equal(one, two)
    # A state of before the first step begins the same episodes.
    fresh = load("CartPole-v1", 5, 1, "compiled")
    other.set_state(fresh.get_state())
    np.testing.assert_array_equal(other.reset_arrays().observation, fresh.reset_arrays().observation)


def test_state_of_other_environments_is_refused():
    environment = load("CartPole-v1", 2, backend="compiled")
    environment.reset_arrays()
    for other, message in [
        (load("CartPole-v1", 2), "the state has no physics, steps"),
        (load("CartPole-v1", 3, backend="compiled"), "the state has 3 members, this has 2"),
        (load("Pendulum-v1", 2, backend="compiled"), "the state's actions are float32"),
        (load("Acrobot-v1", 2, backend="compiled"), r"the state's observation is \(2, 6\), not \(2, 4\)"),
    ]:
        other.reset_arrays()
        with pytest.raises(ValueError, match=message):
            environment.set_state(other.get_state())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"env_id": "LunarLander-v3"},
            r"LunarLander-v3 has no compiled form; these have: CartPole-v0, CartPole-v1",
        ),
        ({"env_id": "CartPole-v7"}, r"did you mean CartPole-v"),
        ({"kwargs": {"sutton_barto_reward": True}}, "takes max_episode_steps alone, got sutton_barto_reward"),
        ({"kwargs": {"max_episode_steps": 0}}, "max_episode_steps must be a positive integer"),
        ({"frame_stack": 4}, "don't stack frames"),
    ],
)
def test_what_is_not_compiled_is_one_line(settings, message):
    with pytest.raises(ValueError, match=message) as raised:
        Environment(**{"env_id": "CartPole-v1", "backend": CompiledEnvironments(), **settings}).load()
    assert "\n" not in str(raised.value)


def test_number_that_is_not_finite_stops_or_passes():
    actions = np.full((2, 1), 3e38, np.float32)
    environment = load("ngrl/HoaglandToy-v0", 2, backend="compiled")
    environment.reset_arrays()
    with pytest.raises(EnvironmentFault, match=r"member 0, step 1 of its episode: reward is not finite: -inf"):
        environment.step_arrays(actions)
    environment = load("ngrl/HoaglandToy-v0", 2, backend="compiled", check_finite=False)
    environment.reset_arrays()
    assert np.isinf(environment.step_arrays(actions).reward).all()


def test_compiled_environments_are_drawn_by_gymnasiums():
    assert CompiledEnvironments().for_video().name == "sync"
    with pytest.raises(ValueError, match="don't render"):
        load("CartPole-v1", backend="compiled").render()
