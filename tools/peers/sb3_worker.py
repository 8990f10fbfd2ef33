"""Worker: Stable-Baselines3 (PPO, DQN) and sb3-contrib (TRPO), with their own defaults beside the shared settings."""

from collections.abc import Callable
from typing import Any

from worker_protocol import (
    EPSILON,
    REPLAY_CAPACITY,
    TARGET_PERIOD,
    WARMUP_STEPS,
    Run,
    Settings,
    Stopwatch,
    limit_torch,
    serve,
)

# Classes by algorithm, and activations by name.
Library = tuple[dict[str, Any], dict[str, Any]]


def library() -> Library:
    """Stable-Baselines3's and sb3-contrib's."""
    import torch
    from sb3_contrib import TRPO
    from stable_baselines3 import DQN, PPO

    return {"trpo": TRPO, "ppo": PPO, "dqn": DQN}, {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}


def make_model(settings: Settings, classes: dict[str, Any], activation: Any) -> Any:
    """The model on `make_vec_env`'s environments: in this process, the fastest for quick environments."""
    from stable_baselines3.common.env_util import make_vec_env

    model = classes[settings.algorithm]
    environment = make_vec_env(settings.env_id, n_envs=settings.num_envs, seed=0)
    common = {
        "policy": "MlpPolicy",
        "env": environment,
        "seed": 0,
        "device": "cpu",
        "batch_size": settings.minibatch,
        "policy_kwargs": {"net_arch": list(settings.hidden), "activation_fn": activation},
    }
    if settings.algorithm == "trpo":
        return model(
            **common,
            n_steps=settings.batch_steps // settings.num_envs,
            n_critic_updates=settings.epochs,
            cg_max_steps=settings.cg_iterations,
        )
    if settings.algorithm == "ppo":
        return model(**common, n_steps=settings.batch_steps // settings.num_envs, n_epochs=settings.epochs)
    return model(
        **common,
        buffer_size=REPLAY_CAPACITY,
        learning_starts=WARMUP_STEPS,
        train_freq=1,
        gradient_steps=-1,  # as many updates as environment steps were made
        target_update_interval=TARGET_PERIOD,
        exploration_initial_eps=EPSILON,
        exploration_final_eps=EPSILON,
    )


def make(settings: Settings, load: Callable[[], Library] = library) -> Run:
    """A `learn` that goes on where it stopped, warmed up."""
    limit_torch(settings.threads)
    classes, activations = load()
    model = make_model(settings, classes, activations[settings.activation])
    watch = Stopwatch(model.train)
    model.train = watch

    def run(env_steps: int) -> tuple[int, list[float] | None]:
        before = model.num_timesteps
        model.learn(env_steps, reset_num_timesteps=False)
        seconds = watch.take()
        # DQN's `train` makes as many updates as there are environments: no time that would compare.
        return model.num_timesteps - before, seconds if settings.is_on_policy else None

    run(2 * settings.batch_steps if settings.is_on_policy else WARMUP_STEPS + 200)
    return run


if __name__ == "__main__":
    serve(make)
