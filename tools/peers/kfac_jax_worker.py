"""Worker: kfac-jax's Optimizer, a call a step, as it is meant to be used; new inverses in every fifth, its default."""

from typing import Any

from networks import DAMPING, LEARNING_RATE, NETWORKS, batches, in_jax
from worker_protocol import Run, Settings, limit_jax, quickest, serve


def make(settings: Settings) -> Run:
    """Steps that go on where they stopped, compiled."""
    limit_jax(settings.threads)
    import jax
    import kfac_jax

    network = NETWORKS[settings.env_id]
    weights, predict = in_jax(network)

    def loss(weights: Any, batch: Any) -> Any:
        outputs = predict(weights, batch[0])
        kfac_jax.register_squared_error_loss(outputs, batch[1])
        return jax.numpy.mean(jax.numpy.square(outputs - batch[1]))

    optimizer = kfac_jax.Optimizer(
        jax.value_and_grad(loss),
        l2_reg=0.0,
        use_adaptive_learning_rate=False,
        use_adaptive_momentum=False,
        use_adaptive_damping=False,
        num_burnin_steps=0,
        multi_device=False,
    )
    x, y = (jax.numpy.asarray(array) for array in batches(network))
    pairs = list(zip(x, y, strict=True))
    key = jax.random.PRNGKey(0)
    state = optimizer.init(weights, key, pairs[0])
    number = 0
    settled = {"learning_rate": LEARNING_RATE, "momentum": 0.0, "damping": DAMPING}

    def by_step() -> None:
        nonlocal weights, state, number
        for pair in pairs:
            weights, state, _ = optimizer.step(weights, state, key, batch=pair, global_step_int=number, **settled)
            number += 1
        jax.block_until_ready(weights)

    return quickest([by_step], network.steps)


if __name__ == "__main__":
    serve(make)
