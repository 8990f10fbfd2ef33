"""What a policy remembers: a GRU's state, which whoever acts with it carries from step to step."""

from typing import NamedTuple

import tensorflow as tf

from ngrl import seeding
from ngrl.checks import check_count


class MemoryInputs(NamedTuple):
    """Steps [N, ...], or sequences of steps [S, L, ...], as a policy with a memory takes them."""

    encoded: tf.Tensor  # encoded observations [..., D]
    is_first: tf.Tensor  # bool [...]; the first of an episode, where nothing is remembered
    memory: tf.Tensor  # h before the step, as it was carried there [..., H]


def make_cell(units: int, seed: int, stream: seeding.Stream) -> tf.keras.layers.GRUCell:
    """A GRU of H = `units` numbers (Cho et al. 2014; the reset gate after the product, as cuDNN has it).

    Args:
      units: H.
      seed: The run's seed.
      stream: The owner's stream of weights.

    Raises:
      ValueError: `units` is not a positive integer.
    """
    return tf.keras.layers.GRUCell(
        check_count("recurrent", units),
        # As of the Dense layers, see `DenseNetwork`; the recurrent kernel keeps the length of what is remembered.
        kernel_initializer=tf.keras.initializers.VarianceScaling(
            1.0, "fan_in", "truncated_normal", seed=seeding.integer(seed, seeding.Stream.TRUNK_WEIGHTS, int(stream), 0)
        ),
        recurrent_initializer=tf.keras.initializers.Orthogonal(
            seed=seeding.integer(seed, seeding.Stream.TRUNK_WEIGHTS, int(stream), 1)
        ),
    )
