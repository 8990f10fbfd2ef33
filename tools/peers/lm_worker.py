"""Worker: tf-levenberg-marquardt's steps with an explicit Jacobian, eager calls of compiled parts as in its `fit`."""

from typing import Any

from networks import DAMPING, LEARNING_RATE, NETWORKS, Network, batches
from worker_protocol import Run, Settings, limit_tensorflow, quickest, serve


def make_network(network: Network) -> Any:
    """A Keras model."""
    import keras

    layers = [
        keras.layers.Conv2D(filters, kernel, stride, activation=network.activation)
        for filters, kernel, stride in network.convolutions
    ]
    layers += [keras.layers.Flatten()] if layers else []
    layers += [keras.layers.Dense(units, network.activation) for units in network.hidden]
    return keras.Sequential([keras.Input(network.inputs), *layers, keras.layers.Dense(1)])


def make(settings: Settings) -> Run:
    """Steps that go on where they stopped: λ as it is, no step tried again."""
    limit_tensorflow(settings.threads)
    import keras
    import tensorflow as tf
    import tf_levenberg_marquardt as lm

    network = NETWORKS[settings.env_id]
    trainer = lm.training.Trainer(
        make_network(network),
        keras.optimizers.SGD(LEARNING_RATE),
        lm.loss.MeanSquaredError(),
        lm.damping.DampingAlgorithm(DAMPING, 1.0, 1.0),
        attempts_per_step=0,
        solve_method="cholesky",
    )
    # It would find the number by a batch of no examples, which TensorFlow's convolution refuses.
    trainer._num_outputs = 1
    pairs = list(zip(*map(tf.constant, batches(network)), strict=True))

    def by_step() -> None:
        for pair in pairs:
            trainer.train_step(*pair)

    return quickest([by_step], network.steps)


if __name__ == "__main__":
    serve(make)
