"""Batches of trajectories: their sizes, their layouts, and what is wrong with them."""

from typing import Any

import tensorflow as tf
from tf_agents.trajectories import trajectory


def sizes(experience: trajectory.Trajectory) -> tuple[int, int]:
    """B and T.

    Raises:
      ValueError: They are not known, or there is no transition in the trajectories.
    """
    shape = experience.step_type.shape
    if shape.rank != 2 or not shape.is_fully_defined():
        raise ValueError(f"trajectories must be [B, T, ...] with B and T known, got step types of shape {shape}")
    if shape[0] < 1 or shape[1] < 2:
        raise ValueError(
            f"{shape[0]} trajectories of {shape[1]} rows hold no transition: at least 2 rows are needed, "
            "the last for its observation"
        )
    return shape[0], shape[1]


def spoilt(weights: tf.Tensor, *numbers: tf.Tensor) -> tf.Tensor:
    """NaN where a step that counts holds a number that is not finite, else 0; vectors [N] to a scalar.

    Added to the batch, it lets the guards skip all of it. Minibatches that happen to lack the number would be trained
    on otherwise, and the rest of what came with it is not to be trusted.
    """
    finite = tf.stack([tf.math.is_finite(tf.where(weights > 0, vector, 0.0)) for vector in numbers])
    return tf.where(tf.reduce_all(finite), 0.0, float("nan"))


def time_major(values: tf.Tensor) -> tf.Tensor:
    """[B, T] as [T, B]."""
    return tf.transpose(values)


def rows_of(values: tf.Tensor) -> tf.Tensor:
    """[T, B] as [B·T], trajectory after trajectory."""
    return tf.reshape(tf.transpose(values), [-1])


def flat_rows(nest: Any) -> Any:
    """[B, T, ...] as [B·T, ...]."""
    return tf.nest.map_structure(lambda leaf: tf.reshape(leaf, [-1, *leaf.shape[2:]]), nest)
