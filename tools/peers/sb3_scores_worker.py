"""One run of sb3-contrib's TRPO on a MuJoCo environment, with rl-baselines3-zoo's settings; JSON on the last line."""

import argparse
import json
import time
from collections import deque
from typing import Any

import numpy as np
from worker_protocol import limit_torch

# rl-baselines3-zoo's hyperparams/trpo.yml, revision 13a3fe7, for Ant, Hopper, Walker2d, HalfCheetah and Swimmer (v4
# there). What isn't here is the library's default: two layers of 64 with tanh, target_kl 0.01.
SHARED = {
    "batch_size": 128,
    "n_steps": 1024,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "sub_sampling_factor": 1,
    "cg_max_steps": 25,
    "cg_damping": 0.1,
    "n_critic_updates": 20,
    "learning_rate": 1e-3,
}
OWN = {"HalfCheetah": {"target_kl": 0.04}, "Swimmer": {"gamma": 0.9999}}
NUM_ENVS = 2
EVALUATION_SEED = 10_000


def train(env_id: str, seed: int, steps: int) -> tuple[Any, Any, float]:
    """The model, its environment with running moments, and the mean return of the last 100 episodes in training."""
    from sb3_contrib import TRPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    settings = {**SHARED, **OWN.get(env_id.split("-")[0], {})}
    environment = VecNormalize(make_vec_env(env_id, n_envs=NUM_ENVS, seed=seed), gamma=settings["gamma"])
    model = TRPO("MlpPolicy", environment, seed=seed, device="cpu", **settings)
    model.ep_info_buffer, model._stats_window_size = deque(maxlen=100), 100
    model.learn(steps)
    return model, environment, float(np.mean([episode["r"] for episode in model.ep_info_buffer]))


def greedy(model: Any, environment: Any, episodes: int) -> list[float]:
    """Returns of whole episodes, in rewards as the environment gives them, with the policy's most likely actions."""
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import VecNormalize

    env_id = environment.venv.envs[0].spec.id
    fresh = VecNormalize(make_vec_env(env_id, n_envs=1, seed=EVALUATION_SEED), training=False, norm_reward=False)
    fresh.obs_rms = environment.obs_rms
    returns, _ = evaluate_policy(model, fresh, episodes, deterministic=True, return_episode_rewards=True)
    return returns


def main() -> None:
    """Train, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("env_id")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--episodes", type=int, default=20)
    options = parser.parse_args()
    limit_torch(1)
    began = time.monotonic()
    model, environment, last = train(options.env_id, options.seed, options.steps)
    seconds = time.monotonic() - began
    returns = greedy(model, environment, options.episodes)
    print(json.dumps({"final_100_episode_mean": last, "greedy": float(np.mean(returns)), "train_s": round(seconds, 1)}))


if __name__ == "__main__":
    main()
