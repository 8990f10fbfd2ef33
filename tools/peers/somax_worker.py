"""Worker: Somax's exact Gauss-Newton steps, by Cholesky or CG; a call a step or many in one, whichever is quicker."""

from typing import Any

from networks import DAMPING, LEARNING_RATE, NETWORKS, batches, in_jax
from worker_protocol import Run, Settings, limit_jax, quickest, serve


def make(settings: Settings) -> Run:
    """Steps that go on where they stopped, compiled."""
    limit_jax(settings.threads)
    import jax
    import somax

    network = NETWORKS[settings.env_id]
    weights, predict = in_jax(network)
    method = somax.make(settings.algorithm, predict_fn=predict, lam0=DAMPING, learning_rate=LEARNING_RATE)
    x, y = (jax.numpy.asarray(array) for array in batches(network))
    key = jax.random.PRNGKey(0)

    def step(carry: Any, batch: Any) -> tuple[Any, None]:
        return method.step(carry[0], {"x": batch[0], "y": batch[1]}, carry[1], key)[:2], None

    one, many = jax.jit(step), jax.jit(lambda carry: jax.lax.scan(step, carry, (x, y))[0])
    pairs = list(zip(x, y, strict=True))
    state = weights, method.init(weights)

    def by_step() -> None:
        nonlocal state
        for pair in pairs:
            state, _ = one(state, pair)
        jax.block_until_ready(state)

    def at_once() -> None:
        nonlocal state
        state = jax.block_until_ready(many(state))

    return quickest([by_step, at_once], network.steps)


if __name__ == "__main__":
    serve(make)
