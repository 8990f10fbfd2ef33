"""Worker: tf-levenberg-marquardt on a Keras model, by Cholesky, a call a step, as its Trainer makes them."""

import os

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

from networks import LEARNING_RATE, NETWORKS, batches
from worker_protocol import Run, Settings, limit_tensorflow, quickest, serve


def make(settings: Settings) -> Run:
    """Steps that go on where they stopped, compiled."""
    limit_tensorflow(settings.threads)
    import keras
    import tensorflow as tf
    from tf_levenberg_marquardt.loss import MeanSquaredError
    from tf_levenberg_marquardt.training import Trainer

    network = NETWORKS[settings.env_id]
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Conv2D(filters, kernel, strides=stride, activation=network.activation)
        for filters, kernel, stride in network.convolutions
    ]
    layers += [keras.layers.Flatten()] if layers else []
    layers += [keras.layers.Dense(units, network.activation) for units in network.hidden]
    model = keras.Sequential([keras.Input(network.inputs), *layers, keras.layers.Dense(1)])
    optimizer = keras.optimizers.SGD(LEARNING_RATE)
    trainer = Trainer(model, optimizer, MeanSquaredError(), solve_method="cholesky")
    trainer.backup_variables()
    step = tf.function(trainer.train_step)
    pairs = [tuple(map(tf.constant, pair)) for pair in zip(*batches(network), strict=True)]

    def by_step() -> None:
        for pair in pairs:
            loss = step(*pair)[0]
        loss.numpy()

    return quickest([by_step], network.steps)


if __name__ == "__main__":
    serve(make)
