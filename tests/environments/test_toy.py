"""The toy environments do what their closed forms say."""

import gymnasium
import numpy as np
import pytest

from ngrl.environments import toy


@pytest.mark.parametrize(("num_states", "gamma", "left"), [(5, 0.99, 0.5), (5, 0.5, 0.5), (1, 0.9, 0.2), (8, 1.0, 2.0)])
def test_chain_q_values_solve_bellmans_equation_on_the_environment(num_states, gamma, left):
    env = toy.Chain(num_states, left_reward=left)
    q = np.zeros((num_states, 2))
    for _ in range(200):
        # One sweep of value iteration, whose transitions are the environment's own.
        target = np.zeros_like(q)
        for state in range(num_states):
            for action in range(2):
                env.reset(seed=0)
                env._state = state
                observation, reward, terminated, _, _ = env.step(action)
                target[state, action] = reward + (0.0 if terminated else gamma * q[observation.argmax()].max())
        q = target
    np.testing.assert_allclose(toy.chain_q_values(num_states, gamma, left_reward=left), q, rtol=1e-12)


def test_chain_episodes_start_in_every_state_and_end():
    env = gymnasium.make("ngrl/Chain-v0")
    starts = {int(env.reset(seed=seed)[0].argmax()) for seed in range(60)}
    assert starts == set(range(5))
    env.reset(seed=0)
    rewards = []
    terminated = False
    while not terminated:
        _, reward, terminated, _, _ = env.step(1)
        rewards.append(reward)
    assert rewards[-1] == 1.0
    assert not any(rewards[:-1])


def test_identity_q_values_are_the_discounted_return_of_naming_the_digit():
    env = toy.Identity(num_actions=3)
    q = toy.identity_q_values(3, gamma=0.5)
    observation, _ = env.reset(seed=1)
    for first_action in range(3):
        digit, action, value = int(observation.argmax()), first_action, 0.0
        for step in range(60):
            observation, reward, terminated, truncated, _ = env.step(action)
            assert not terminated
            assert not truncated
            value += 0.5**step * reward
            action = int(observation.argmax())
        assert q[digit, first_action] == pytest.approx(value)


def test_identity_box_pays_0_for_the_number_shown_and_less_for_others():
    env = gymnasium.make("ngrl/IdentityBox-v0")
    observation, _ = env.reset(seed=1)
    for index in range(20):
        shown = observation
        observation, reward, _, truncated, _ = env.step(shown if index % 2 else shown * 0.5)
        assert reward == pytest.approx(0.0 if index % 2 else -(float(shown[0] * 0.5) ** 2))
    assert truncated


def test_hoagland_toy_pays_for_the_state_left_and_for_the_move():
    env = gymnasium.make("ngrl/HoaglandToy-v0")
    observation, _ = env.reset(seed=1)
    assert observation == 0.0
    state, truncated, moves = 0.0, False, [10.0, -3.0, 0.5, 0.0, -7.5]
    for number, move in enumerate(moves, start=1):
        observation, reward, terminated, truncated, _ = env.step(np.array([move], np.float32))
        assert reward == -(state**2) - move**2
        state += move
        assert observation == state
        assert not terminated
        assert truncated == (number == len(moves))


@pytest.mark.parametrize(("mean", "std"), [(10.0, 14.0), (-2.0, 0.5), (3.0, 0.0)])
def test_hoagland_return_is_the_mean_of_the_environments(mean, std):
    env, random = toy.HoaglandToy(), np.random.default_rng(0)
    returns = []
    for _ in range(4000):
        env.reset(seed=0)
        returns.append(sum(env.step(random.normal(mean, std, 1))[1] for _ in range(5)))
    error = 5 * np.std(returns) / np.sqrt(len(returns)) + 1e-9
    assert np.mean(returns) == pytest.approx(toy.hoagland_return(mean, std), abs=error)
