"""One run of PQN (Gallici et al. 2024) on a game of MinAtar, with its authors' settings; JSON on the last line.

A PyTorch program of its own, for no package has one: it shares nothing with ngrl but the game.
"""

import argparse
import json
import time
from collections import deque
from typing import Any

import numpy as np
from worker_protocol import limit_torch

# purejaxql's config/alg/pqn_minatar.yaml and pqn_minatar.py, revision 0cd95ed; ε and the rate fall as fast for a run of
# any length as they do there for ten million frames.
NUM_ENVS = 128
NUM_STEPS = 32
MINIBATCHES = 32
EPOCHS = 2
LEARNING_RATE = 5e-4
MAX_GRADIENT_NORM = 10.0
DISCOUNT = 0.99
TRACE = 0.65
EPSILON_END = 0.05
EPSILON_SHARE = 0.1  # of the run, over which ε falls from 1
# As ngrl's experiments play it: the games but Freeway have no limit of their own.
TRAINING_FRAMES = 5_000
EVALUATION_FRAMES = 10_000
EVALUATION_SEED = 10_000


class Games:
    """Games that are played side by side; one that is over begins anew."""

    def __init__(self, name: str, count: int, seed: int, max_frames: int):
        from minatar import Environment

        self._games = [Environment(name) for _ in range(count)]
        for number, game in enumerate(self._games):
            game.seed(1000 * seed + number)
            game.reset()
        self.actions = self._games[0].minimal_action_set()
        self._max_frames = max_frames
        self._frames = np.zeros(count, int)
        self._returns = np.zeros(count)

    def observations(self) -> np.ndarray:
        """What each shows, [count, 10, 10, channels] float32."""
        return np.stack([game.state() for game in self._games]).astype(np.float32)

    def step(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[tuple[int, float]]]:
        """Rewards, whether each is over, both [count], and the number and return of those that are."""
        played = [game.act(self.actions[action]) for game, action in zip(self._games, chosen, strict=True)]
        rewards, over = np.array(played, float).T
        self._frames += 1
        self._returns += rewards
        done = over.astype(bool) | (self._frames >= self._max_frames)
        finished = [(int(number), float(self._returns[number])) for number in np.flatnonzero(done)]
        for number, _ in finished:
            self._games[number].reset()
        self._frames[done], self._returns[done] = 0, 0.0
        return rewards, done, finished


def lambda_returns(rewards: np.ndarray, done: np.ndarray, next_values: np.ndarray) -> np.ndarray:
    """Q(λ) of one rollout: `next_values` [T, N] are the greatest values of the observations that followed."""
    returns = np.empty_like(next_values)
    following = next_values[-1]
    for t in reversed(range(len(rewards))):
        bootstrap = (1 - TRACE) * next_values[t] + TRACE * following
        returns[t] = following = rewards[t] + DISCOUNT * (1 - done[t]) * bootstrap
    return returns


def make_network(channels: int, actions: int) -> Any:
    """MinAtar's network with a normalisation after every hidden layer: of a convolution's channels at each place."""
    from torch import nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.dense = nn.Conv2d(channels, 16, 3), nn.Linear(16 * 8 * 8, 128)
            self.norms = nn.ModuleList([nn.LayerNorm(16, 1e-6), nn.LayerNorm(128, 1e-6)])
            self.output = nn.Linear(128, actions)
            for layer, nonlinearity in ((self.convolution, "relu"), (self.dense, "relu"), (self.output, "linear")):
                nn.init.kaiming_normal_(layer.weight, nonlinearity=nonlinearity)
                nn.init.zeros_(layer.bias)

        def forward(self, observations: Any) -> Any:
            hidden = self.convolution(observations.permute(0, 3, 1, 2) / 255).permute(0, 2, 3, 1)
            hidden = self.norms[0](hidden).relu().flatten(1)
            return self.output(self.norms[1](self.dense(hidden)).relu())

    return Network()


def learn(network: Any, optimizer: Any, observations: np.ndarray, actions: np.ndarray, targets: np.ndarray) -> None:
    """The epochs of one rollout, whose arrays are [T · N, …]."""
    import torch

    inputs, chosen, wanted = map(torch.from_numpy, (observations, actions[:, None], targets.astype(np.float32)))
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(inputs)).chunk(MINIBATCHES):
            values = network(inputs[rows]).gather(1, chosen[rows])[:, 0]
            optimizer.zero_grad()
            (0.5 * (values - wanted[rows]).square().mean()).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT_NORM)
            optimizer.step()


def train(name: str, seed: int, steps: int) -> tuple[Any, float]:
    """The network, and the mean return of the last 100 episodes in training."""
    import torch

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    games = Games(name, NUM_ENVS, seed, TRAINING_FRAMES)
    observations = games.observations()
    network = make_network(observations.shape[-1], len(games.actions))
    optimizer = torch.optim.RAdam(network.parameters(), LEARNING_RATE)
    last: deque[float] = deque(maxlen=100)
    rollouts = -(-steps // (NUM_ENVS * NUM_STEPS))
    for rollout in range(rollouts):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - rollout / rollouts)
        epsilon = max(EPSILON_END, 1 - (1 - EPSILON_END) * rollout / (EPSILON_SHARE * rollouts))
        stored: list[tuple[np.ndarray, ...]] = []
        values = values_of(network, observations)
        for _ in range(NUM_STEPS):
            explored = rng.integers(len(games.actions), size=NUM_ENVS)
            actions = np.where(rng.random(NUM_ENVS) < epsilon, explored, values.argmax(1))
            rewards, done, finished = games.step(actions)
            last.extend(gained for _, gained in finished)
            following = games.observations()
            values = values_of(network, following)
            stored.append((observations, actions, rewards, done, values.max(1)))
            observations = following
        seen, taken, *rest = map(np.stack, zip(*stored, strict=True))
        learn(network, optimizer, np.concatenate(seen), taken.ravel(), lambda_returns(*rest).ravel())
    return network, float(np.mean(last))


def values_of(network: Any, observations: np.ndarray) -> np.ndarray:
    """The network's values, [N, actions]."""
    import torch

    with torch.no_grad():
        return network(torch.from_numpy(observations)).numpy()


def greedy(network: Any, name: str, episodes: int) -> list[float]:
    """Returns of the first episode of each of so many games."""
    games = Games(name, episodes, EVALUATION_SEED, EVALUATION_FRAMES)
    returns: dict[int, float] = {}
    while len(returns) < episodes:
        *_, finished = games.step(values_of(network, games.observations()).argmax(1))
        for number, gained in finished:
            returns.setdefault(number, gained)
    return list(returns.values())


def main() -> None:
    """Train, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("env_id", help="such as MinAtar/Breakout-v1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=500_000)
    parser.add_argument("--episodes", type=int, default=100)
    options = parser.parse_args()
    limit_torch(1)
    game = options.env_id.removeprefix("MinAtar/").removesuffix("-v1")
    name = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in game).lstrip("_")
    began = time.monotonic()
    network, last = train(name, options.seed, options.steps)
    seconds = time.monotonic() - began
    returns = greedy(network, name, options.episodes)
    print(json.dumps({"final_100_episode_mean": last, "greedy": float(np.mean(returns)), "train_s": round(seconds, 1)}))


if __name__ == "__main__":
    main()
