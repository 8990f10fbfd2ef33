"""Worker: SBX, which is Stable-Baselines3's interface on JAX (PPO, DQN), otherwise as `sb3_worker`."""

import sb3_worker
from worker_protocol import Run, Settings, limit_jax, serve


def library() -> sb3_worker.Library:
    """SBX's."""
    import sbx
    from flax import linen

    return {"ppo": sbx.PPO, "dqn": sbx.DQN}, {"tanh": linen.tanh, "relu": linen.relu}


def make(settings: Settings) -> Run:
    """As `sb3_worker.make`."""
    limit_jax(settings.threads)
    return sb3_worker.make(settings, library)


if __name__ == "__main__":
    serve(make)
