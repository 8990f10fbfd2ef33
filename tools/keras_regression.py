"""A regression on which 100 natural-gradient steps reach what 2,000 of Adam don't, whatever its learning rate.

    .venv/bin/python tools/keras_regression.py
    .venv/bin/tensorboard --logdir runs/keras_regression

256 points of a smooth function of two variables, a 2-24-24-1 tanh network, every step on all points. Adam runs once for
each learning rate of a grid, constant and with a cosine decay to 0, from the same weights, and is judged by the lowest
loss it ever had; NaturalGradient by its last. Prints a Markdown table and, as the last line, JSON. Event files hold the
curves over the steps taken.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ngrl import seeding, solvers
from ngrl.keras import NaturalGradientModel
from ngrl.optimizers import LevenbergMarquardt, NaturalGradient
from ngrl.studies.trials import seeds_of

import tensorflow as tf  # isort: skip

NATURAL = "NaturalGradient"
EPOCH = 20  # steps of Adam between two points of its curve


class Score(NamedTuple):
    """What a run reached: losses on the training points, the last one after the last step, and on other points then."""

    lowest: float
    last: float
    held_out: float


class Curve(tf.keras.callbacks.Callback):
    """Writes an epoch's logs at the number of steps taken, so that contestants with other epochs share an axis."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.writer = tf.summary.create_file_writer(str(folder))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write every number of the logs."""
        with self.writer.as_default(step=int(self.model.optimizer.iterations)):
            for name, value in (logs or {}).items():
                tf.summary.scalar(name, value)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Close the file."""
        self.writer.close()


def points(number: int, which: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs in [-1, 1]² [n, 2] and sin(3a) cos(2b) + ab/2 [n, 1]."""
    x = seeding.generator(0, seeding.Stream.POINTS, which).uniform(-1, 1, (number, 2)).astype(np.float32)
    a, b = x[:, :1], x[:, 1:]
    return x, np.sin(3 * a) * np.cos(2 * b) + 0.5 * a * b


def network(seed: int) -> NaturalGradientModel:
    """The network with the weights of a seed."""
    tf.keras.utils.set_random_seed(seeding.integer(seed, seeding.Stream.LIBRARIES))
    inputs = tf.keras.Input([2])
    hidden = tf.keras.layers.Dense(24, "tanh")(inputs)
    hidden = tf.keras.layers.Dense(24, "tanh")(hidden)
    return NaturalGradientModel(inputs, tf.keras.layers.Dense(1)(hidden))


def run(optimizer: Any, steps: int, epoch: int, seed: int, folder: Path) -> Score:
    """Train for `steps` steps with a point of the curve every `epoch` of them."""
    x, y = points(256, 0)
    model = network(seed)
    model.compile(optimizer=optimizer, loss="mse", steps_per_execution=epoch)
    data = tf.data.Dataset.from_tensors((x, y)).repeat()
    history = model.fit(data, steps_per_epoch=epoch, epochs=steps // epoch, verbose=0, callbacks=[Curve(folder)])
    last = float(model.evaluate(x, y, batch_size=len(x), verbose=0))
    held_out = float(model.evaluate(*points(1024, 1), batch_size=1024, verbose=0))
    return Score(min(*history.history["loss"], last), last, held_out)


def natural_gradient() -> NaturalGradient:
    """λ by Levenberg-Marquardt from 1 to no less than 1e-4, below which float32 can't tell F + λI from F."""
    return NaturalGradient(
        solver=solvers.Dual(solver=solvers.Cholesky()), damping=LevenbergMarquardt(initial=1.0, minimum=1e-4)
    )


def adam(rate: float, decays: bool, steps: int) -> tf.keras.optimizers.Optimizer:
    """Adam with a constant learning rate, or one that falls to 0 as a cosine."""
    schedule = tf.keras.optimizers.schedules.CosineDecay(rate, steps)
    return tf.keras.optimizers.Adam(schedule if decays else rate)


def row(name: str, steps: int, scores: list[Score]) -> str:
    """A row of the table."""
    losses = ", ".join(f"{score.last if name == NATURAL else score.lowest:.1e}" for score in scores)
    held_out = ", ".join(f"{score.held_out:.1e}" for score in scores)
    return f"| {name} | {steps:,} | {losses} | {held_out} |"


def main() -> None:
    """Parse the command line, run everybody, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="steps of NaturalGradient")
    parser.add_argument("--adam_steps", type=int, default=2000, help=f"steps of Adam, a multiple of {EPOCH}")
    rates = [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1]
    parser.add_argument("--learning_rates", type=float, nargs="+", default=rates, help="Adam's grid")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the first weights")
    parser.add_argument("--out", type=Path, default=Path("runs/keras_regression"), help="folder of the event files")
    options = parser.parse_args()
    if options.steps < 1 or options.adam_steps < EPOCH or options.adam_steps % EPOCH:
        parser.error(f"steps must be at least 1 and adam_steps a multiple of {EPOCH}")
    try:
        seeds_of(options.seeds)
    except ValueError as error:
        parser.error(str(error))

    tf.get_logger().setLevel("ERROR")  # many models are many functions: TensorFlow warns of tracing anew
    scores: dict[str, list[Score]] = {
        NATURAL: [
            run(natural_gradient(), options.steps, 1, seed, options.out / f"natural_gradient-seed{seed}")
            for seed in options.seeds
        ]
    }
    steps = options.adam_steps
    for rate in options.learning_rates:
        for decays in (False, True):
            folder = options.out / f"adam_{rate:g}{'_cosine' if decays else ''}"
            scores[f"Adam {rate:g}{', cosine decay' if decays else ''}"] = [
                run(adam(rate, decays, steps), steps, EPOCH, seed, Path(f"{folder}-seed{seed}"))
                for seed in options.seeds
            ]
    seeds = ", ".join(map(str, options.seeds))
    print(f"| contestant | steps | loss, seeds {seeds} | on 1,024 other points |")
    print("| --- | --- | --- | --- |")
    for name, reached in scores.items():
        print(row(name, options.steps if name == NATURAL else steps, reached))
    natural = [score.last for score in scores.pop(NATURAL)]
    best = [min(score.lowest for score in of_one_seed) for of_one_seed in zip(*scores.values(), strict=True)]
    print(
        json.dumps(
            {
                "seeds": options.seeds,
                "natural_gradient": natural,
                "best_adam": best,
                "best_adam_over_natural_gradient": [b / n for b, n in zip(best, natural, strict=True)],
                "adam": {name: [score._asdict() for score in reached] for name, reached in scores.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
