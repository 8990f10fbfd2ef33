"""Worker: rejax (PPO, PQN, DQN) on gymnax's environments; so many training iterations in one compiled call.

Its `train` is a loop of `train_iteration` and evaluations, of which there are none here. What it fixes: networks of
[64, 64] for PQN and DQN, and PQN's activation, a ReLU after a normalised layer.
"""

from typing import Any

from worker_protocol import (
    EPSILON,
    REPLAY_CAPACITY,
    TARGET_PERIOD,
    WARMUP_STEPS,
    Run,
    Settings,
    limit_jax,
    serve,
)


def make_algorithm(settings: Settings) -> Any:
    """The algorithm, with its own defaults beside the shared settings.

    Raises:
      ValueError: The settings ask for a network that it can't have.
    """
    import rejax

    common = {"env": settings.env_id, "num_envs": settings.num_envs, "learning_rate": 3e-4, "max_grad_norm": 0.5}
    agent: dict[str, Any] = {"activation": settings.activation}
    on_policy = {
        "num_steps": settings.batch_steps // settings.num_envs,
        "num_epochs": settings.epochs,
        "num_minibatches": settings.batch_steps // settings.minibatch,
    }
    if settings.algorithm == "ppo":
        agent["hidden_layer_sizes"] = settings.hidden
        return rejax.PPO.create(**common, **on_policy, agent_kwargs=agent)
    if settings.hidden != (64, 64):
        raise ValueError(f"rejax's {settings.algorithm} has networks of [64, 64] alone, not {settings.hidden}")
    common |= {"eps_start": EPSILON, "eps_end": EPSILON}
    if settings.algorithm == "pqn":
        return rejax.PQN.create(**common, **on_policy)
    return rejax.DQN.create(
        **common,
        agent_kwargs=agent,
        num_epochs=settings.num_envs,  # an update for each environment's step
        batch_size=settings.minibatch,
        buffer_size=REPLAY_CAPACITY,
        fill_buffer=WARMUP_STEPS,
        target_update_freq=TARGET_PERIOD,
        polyak=0.0,
        ddqn=False,
    )


def make(settings: Settings) -> Run:
    """Iterations that go on where they stopped, compiled and warmed up."""
    limit_jax(settings.threads)
    import jax

    algorithm = make_algorithm(settings)
    steps = settings.batch_steps if settings.is_on_policy else settings.num_envs
    state = jax.jit(algorithm.init_state)(jax.random.PRNGKey(0))

    @jax.jit
    def train(state: Any, iterations: Any) -> Any:
        return jax.lax.fori_loop(0, iterations, lambda _, state: algorithm.train_iteration(state), state)

    def run(env_steps: int) -> tuple[int, None]:
        nonlocal state
        iterations = -(-env_steps // steps)
        state = jax.block_until_ready(train(state, iterations))
        return iterations * steps, None

    run(2 * steps if settings.is_on_policy else WARMUP_STEPS + 400)
    return run


if __name__ == "__main__":
    serve(make)
