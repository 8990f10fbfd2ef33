"""Batches of trajectories: their sizes, their layouts, and what is wrong with them."""

from typing import Any, NamedTuple

import tensorflow as tf
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory

from ngrl import losses


class Steps(NamedTuple):
    """T steps of B trajectories, time-major, and what a policy's batch says of them."""

    r_t: tf.Tensor  # [T, B]
    discount_t: tf.Tensor  # [T, B]
    continues_t: tf.Tensor  # 0 where the step was the last of its episode [T, B]
    weights: tf.Tensor  # 0 at episode boundaries [T, B]
    is_first_tm1: tf.Tensor  # whether the state left was the first of its episode [T, B]
    encoded: tf.Tensor | None  # encoded observations, the last one reached included [T + 1, B, D]; None with a trunk
    values: tf.Tensor | None  # the critic network's values of them, where there is one [T + 1, B]
    advantage: tf.Tensor  # Â, 0 at masked steps [T, B]


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


def boundaries(experience: trajectory.Trajectory) -> losses.BoundaryMasks:
    """Where episodes end, and which rows are transitions [T, B]."""
    return losses.boundary_masks(
        time_major(tf.equal(experience.step_type, ts.StepType.LAST)),
        time_major(tf.equal(experience.next_step_type, ts.StepType.LAST)),
    )


def nan_guard(weights: tf.Tensor, *numbers: tf.Tensor) -> tf.Tensor:
    """NaN where a step that counts holds a number that is not finite, else 0; vectors [N] to a scalar.

    Added to the batch, it lets the guards skip all of it. Minibatches that happen to lack the number would be trained
    on otherwise, and the rest of what came with it is not to be trusted.
    """
    finite = tf.stack([tf.math.is_finite(tf.where(weights > 0, vector, 0.0)) for vector in numbers])
    return tf.where(tf.reduce_all(finite), 0.0, float("nan"))


def one_each(owner: str, weights: tf.Tensor, number: int | None) -> tf.Tensor:
    """The weights of that many examples [B], from a scalar, [B] or [B, 1].

    Raises:
      ValueError: They are another number of weights.
    """
    flat = tf.reshape(tf.cast(weights, tf.float32), [-1])
    if flat.shape[0] == 1 and number is not None:
        return tf.repeat(flat, number)
    if flat.shape.is_fully_defined() and number is not None and flat.shape[0] != number:
        raise ValueError(f"{owner}.train takes a weight for each of {number}, got weights of shape {weights.shape}")
    return flat


def time_major(values: tf.Tensor) -> tf.Tensor:
    """[B, T, ...] as [T, B, ...]."""
    return tf.transpose(values, [1, 0, *range(2, values.shape.rank)])


def rows_of(values: tf.Tensor) -> tf.Tensor:
    """[T, B] as [B·T], trajectory after trajectory."""
    return tf.reshape(tf.transpose(values), [-1])


def flat_rows(nest: Any) -> Any:
    """[B, T, ...] as [B·T, ...]."""
    return tf.nest.map_structure(lambda leaf: tf.reshape(leaf, [-1, *leaf.shape[2:]]), nest)


def by_trajectory(nest: Any, num_trajectories: int) -> Any:
    """[B·T, ...] as [B, T, ...]."""
    return tf.nest.map_structure(lambda leaf: tf.reshape(leaf, [num_trajectories, -1, *leaf.shape[1:]]), nest)


def without_last(nest: Any, num_trajectories: int) -> Any:
    """[B·T, ...] as [B·(T − 1), ...], without the last row of each trajectory."""
    nest = by_trajectory(nest, num_trajectories)
    return flat_rows(tf.nest.map_structure(lambda leaf: leaf[:, :-1], nest))
