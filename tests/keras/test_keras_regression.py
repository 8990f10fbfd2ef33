"""`tools/keras_regression.py`, in short."""

import json
from pathlib import Path

import tensorflow as tf

from ngrl.keras import NaturalGradientModel  # noqa: F401  (selects Keras 2 before TensorFlow is imported)

ROOT = Path(__file__).parents[2]


def test_it_prints_a_table_and_json_and_writes_curves_over_the_steps(script, tmp_path):
    arguments = ["--steps", "30", "--adam_steps", "60", "--learning_rates", "0.01", "--seeds", "0", "--out", "runs"]
    done = script(ROOT / "tools" / "keras_regression.py", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    *_, adam, _, last = done.stdout.splitlines()
    report = json.loads(last)
    (natural,), (best) = report["natural_gradient"], report["best_adam"][0]
    assert natural < best / 10  # 30 steps against 60
    assert adam.startswith("| Adam 0.01 | 60 | ")
    assert f"| NaturalGradient | 30 | {natural:.1e} | " in done.stdout
    steps = {}
    for run in (tmp_path / "runs").iterdir():
        (file,) = run.glob("events*")
        events = tf.compat.v1.train.summary_iterator(str(file))
        steps[run.name] = [event.step for event in events for value in event.summary.value if value.tag == "loss"]
    assert steps == {
        "natural_gradient-seed0": list(range(1, 31)),
        "adam_0.01-seed0": [20, 40, 60],
        "adam_0.01_cosine-seed0": [20, 40, 60],
    }
