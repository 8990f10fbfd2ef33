"""A chain of five states whose values are known, for tests of off-policy targets.

`ngrl/Chain-v0` without its environment: left (0) out of state 0 pays L, right (1) out of state 4 pays R, both
terminate; every other step pays nothing.
"""

import itertools

import numpy as np

NUM_STATES, LEFT_REWARD, RIGHT_REWARD = 5, 0.5, 1.0


def step(state, action):
    """Reward, discount and next state; the state left where the walk has ended."""
    target = state + (1 if action else -1)
    if target < 0:
        return LEFT_REWARD, 0.0, state
    if target == NUM_STATES:
        return RIGHT_REWARD, 0.0, state
    return 0.0, 1.0, target


def fair_walk_values():
    """V and Q of the uniform policy for γ = 1, the gambler's ruin: V(s) = (L (5 − s) + R (s + 1)) / 6."""
    outer = np.arange(-1, NUM_STATES + 1)
    ladder = (LEFT_REWARD * (NUM_STATES - outer) + RIGHT_REWARD * (outer + 1)) / (NUM_STATES + 1)
    return ladder[1:-1], np.stack([ladder[:-2], ladder[2:]], axis=1)


def bellman(q, policy, gamma):
    """T^π q [5, 2] for any q [5, 2]."""
    value = (policy * q).sum(axis=1)
    result = np.zeros_like(q)
    for s, a in np.ndindex(q.shape):
        reward, discount, reached = step(s, a)
        result[s, a] = reward + gamma * discount * value[reached]
    return result


def transition(weights):
    """P [10, 10] of (s, a) → (s', a') with a' weighted by weights [5, 2]; 0 where the walk ends."""
    matrix = np.zeros((NUM_STATES, 2, NUM_STATES, 2))
    for s, a in np.ndindex(NUM_STATES, 2):
        _, discount, reached = step(s, a)
        matrix[s, a, reached] = discount * weights[reached]
    return matrix.reshape(2 * NUM_STATES, 2 * NUM_STATES)


def action_values(policy, gamma):
    """Q^π [5, 2]: the solution of its Bellman equation."""
    reward = bellman(np.zeros((NUM_STATES, 2)), policy, gamma).reshape(-1)
    return np.linalg.solve(np.eye(2 * NUM_STATES) - gamma * transition(policy), reward).reshape(NUM_STATES, 2)


def walks(num_steps):
    """Every walk: states, actions, rewards, discounts, continues and reached states, [T, 5 · 2^T] each.

    A walk that has ended goes on from its start state as another episode, as a batch of trajectories does.
    """
    starts = [(s, actions) for s in range(NUM_STATES) for actions in itertools.product((0, 1), repeat=num_steps)]
    columns = []
    for start, actions in starts:
        state, rows = start, []
        for action in actions:
            reward, discount, reached = step(state, action)
            rows.append((state, action, reward, discount, discount, reached))
            state = reached if discount else start
        columns.append(rows)
    table = np.array(columns).transpose(2, 1, 0)
    return (table[0].astype(int), table[1].astype(int), table[2], table[3], table[4], table[5].astype(int))
