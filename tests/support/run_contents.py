"""What a run has left in its directory, to compare two runs."""

import csv
import json

import numpy as np
import tensorflow as tf


def rows(folder):
    with (folder / "episodes.csv").open(encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if k != "wall_s"} for row in csv.DictReader(file)]


def variables(folder):
    """All checkpointed values of the newest checkpoint, and the loop's state."""
    newest = sorted((folder / "checkpoints").glob("step_*"))[-1]
    reader = tf.train.load_checkpoint(str(newest / "variables"))
    names = [name for name in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in name]
    values = {name: reader.get_tensor(name) for name in names}
    with np.load(newest / "arrays.npz") as arrays:
        values.update({name: arrays[name] for name in arrays.files})
    values.update({path.name: np.load(path) for path in newest.glob("*.npy")})
    state = json.loads((newest / "state.json").read_text())
    del state["run"]  # wall-clock seconds, and the size of a file that holds some
    return values, state


def everything(agent, loop, path):
    """All that a checkpoint holds."""
    tf.train.Checkpoint(agent=agent).write(str(path))
    reader = tf.train.load_checkpoint(str(path))
    names = [name for name in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in name]
    state = loop.state()
    return {**{name: reader.get_tensor(name) for name in names}, **state.arrays, **state.blocks}, state.values


def assert_identical(one, other):
    (one_arrays, one_values), (other_arrays, other_values) = one, other
    assert one_arrays.keys() == other_arrays.keys()
    for name in one_arrays:
        np.testing.assert_array_equal(one_arrays[name], other_arrays[name], err_msg=name)
    assert json.dumps(one_values) == json.dumps(other_values)  # in which NaN equals NaN
