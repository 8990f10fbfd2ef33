"""Worker: ngrl's exact natural-gradient steps by Gram matrices, many in one call, a graph or compiled by XLA."""

from typing import Any

from networks import DAMPING, LEARNING_RATE, NETWORKS, Network, batches
from worker_protocol import Run, Settings, limit_tensorflow, quickest, serve

# Methods of peers whose solve is by Cholesky, and so is ngrl's then; otherwise by at most 20 iterations of CG.
EXACT = ("egn_mse", "lm")


def make_network(network: Network) -> Any:
    """A TF-Agents network of Keras layers."""
    import tensorflow as tf
    from tf_agents.networks import sequential

    from ngrl import patches

    keras = tf.keras.layers
    layers = [
        patches.PatchConv2D(filters, kernel, strides=stride, activation=network.activation)
        for filters, kernel, stride in network.convolutions
    ]
    layers += [keras.Flatten()] if layers else []
    layers += [keras.Dense(units, network.activation) for units in network.hidden]
    result = sequential.Sequential([*layers, keras.Dense(1)])
    result.create_variables(tf.TensorSpec(network.inputs, tf.float32))
    return result


def make(settings: Settings) -> Run:
    """Steps that go on where they stopped, compiled."""
    from ngrl import threads  # (before tensorflow)

    limit_tensorflow(settings.threads or threads.DEFAULT)
    import tensorflow as tf

    from ngrl import losses, optimizers, solvers
    from ngrl.agents import linearisable, steps
    from ngrl.curvature import GaussNewton, SquaredError

    setting = NETWORKS[settings.env_id]
    network = make_network(setting)
    encode, forward = linearisable.linearisable(network)
    exact = settings.algorithm in EXACT
    solver = solvers.Cholesky() if exact else solvers.ConjugateGradient(max_iterations=20)
    optimizer = optimizers.NaturalGradient(LEARNING_RATE, solvers.Dual(solver=solver), DAMPING)
    optimizer.build(network.trainable_weights)
    x, y = map(tf.constant, batches(setting))

    def step(index: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        def loss_of(outputs: tf.Tensor) -> tf.Tensor:
            return tf.reduce_mean(losses.half_squared_error(y[index], outputs))

        inputs = encode(x[index])
        operator = GaussNewton(forward, network.trainable_weights, inputs, SquaredError())
        loss, _ = steps.natural_step(optimizer, operator, loss_of, lambda: loss_of(forward(inputs)))
        return index + 1, total + loss

    def many() -> tf.Tensor:
        start = (tf.constant(0), tf.constant(0.0))
        return tf.while_loop(lambda index, _: index < setting.steps, step, start, parallel_iterations=1)[1]

    calls = [tf.function(many, jit_compile=compiled) for compiled in (True, False)]
    return quickest([lambda call=call: call().numpy() for call in calls], setting.steps)


if __name__ == "__main__":
    serve(make)
