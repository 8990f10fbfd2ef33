"""Scikit-learn's digits (8 × 8 pixels) by a convolutional network: K-FAC against Adam's best of a grid of rates.

    .venv/bin/python tools/keras_digits.py

Everybody starts from the same weights of a seed and takes the same number of steps, on minibatches in the same order.
Adam runs once for each learning rate; its best is the one with the lowest training loss at the end, averaged over the
seeds. Prints a Markdown table of training loss and of the accuracy on images held out. The images come with
scikit-learn, of the extra `dev`.
"""

import argparse
import sys
from typing import Any, NamedTuple

import numpy as np

from ngrl import seeding, solvers
from ngrl.keras import NaturalGradientModel
from ngrl.optimizers import NaturalGradient
from ngrl.studies.trials import seeds_of

import tensorflow as tf  # isort: skip

HELD_OUT = 360


class Score(NamedTuple):
    """After the last step: the loss on all training images, the accuracy on those held out."""

    loss: float
    accuracy: float


def images() -> tuple[np.ndarray, np.ndarray]:
    """1,797 images in [0, 1] [n, 8, 8, 1] and their digits [n], shuffled.

    Raises:
      SystemExit: There is no scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        sys.exit("keras_digits.py: the images come with scikit-learn, which is missing: pip install scikit-learn")
    data = load_digits()
    order = seeding.generator(0, seeding.Stream.POINTS).permutation(len(data.target))
    return (data.images[order, ..., np.newaxis] / 16).astype(np.float32), data.target[order].astype(np.int32)


def network(seed: int) -> NaturalGradientModel:
    """Convolution, two Dense layers, ten logits; the weights of a seed."""
    tf.keras.utils.set_random_seed(seeding.integer(seed, seeding.Stream.LIBRARIES))
    inputs = tf.keras.Input([8, 8, 1])
    hidden = tf.keras.layers.Conv2D(8, 3, activation="relu")(inputs)
    hidden = tf.keras.layers.Dense(32, "relu")(tf.keras.layers.Flatten()(hidden))
    return NaturalGradientModel(inputs, tf.keras.layers.Dense(10)(hidden))


def kfac() -> NaturalGradient:
    """Averages and inverses anew every five steps, within a trust region."""
    return NaturalGradient(0.3, solver=solvers.Kfac(period=5, factor_period=5), damping=1e-2, max_kl=0.1)


def run(optimizer: Any, epochs: int, batch: int, seed: int) -> Score:
    """Train from the weights of a seed."""
    x, y = images()
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = network(seed)
    model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
    training = x[HELD_OUT:], y[HELD_OUT:]
    data = tf.data.Dataset.from_tensor_slices(training).shuffle(len(x), seed=seed).batch(batch, drop_remainder=True)
    model.fit(data, epochs=epochs, verbose=0)
    found = model.evaluate(*training, batch_size=len(x), verbose=0)[0]
    return Score(found, model.evaluate(x[:HELD_OUT], y[:HELD_OUT], batch_size=HELD_OUT, verbose=0)[1])


def row(name: str, scores: list[Score]) -> str:
    """A row of the table."""
    losses = ", ".join(f"{score.loss:.1e}" for score in scores)
    return f"| {name} | {losses} | {', '.join(f'{score.accuracy:.3f}' for score in scores)} |"


def main() -> None:
    """Parse the command line, run everybody, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=128)
    rates = [1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
    parser.add_argument("--learning_rates", type=float, nargs="+", default=rates, help="Adam's grid")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the first weights")
    options = parser.parse_args()
    if min(options.epochs, options.batch) < 1:
        parser.error("epochs and batch must be at least 1")
    if options.batch > (trained := len(images()[0]) - HELD_OUT):
        parser.error(f"batch must be at most {trained}, the images to train with")
    try:
        seeds_of(options.seeds)
    except ValueError as error:
        parser.error(str(error))
    print("| optimizer | training loss | accuracy, held out |\n| --- | --- | --- |")
    print(row("K-FAC", [run(kfac(), options.epochs, options.batch, seed) for seed in options.seeds]), flush=True)
    grid = {}
    for rate in options.learning_rates:
        grid[rate] = [run(tf.keras.optimizers.Adam(rate), options.epochs, options.batch, s) for s in options.seeds]
    best = min(grid, key=lambda rate: float(np.mean([score.loss for score in grid[rate]])))
    print(row(f"Adam {best:g}, the best of {len(grid)} rates", grid[best]))


if __name__ == "__main__":
    main()
