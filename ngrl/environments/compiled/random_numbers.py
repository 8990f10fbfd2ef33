"""Random numbers of many members at once: a counter-based generator, since TensorFlow's take one key a call.

Threefry-2x32 with 20 rounds of Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3": a bijection of two
32-bit words under a key of two, so that draws with different counters never depend on how many were made before.
"""

import tensorflow as tf

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def threefry(key: tuple[tf.Tensor, tf.Tensor], counter: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Two uniformly distributed words for a key and a counter of two words each; all uint32, shapes that broadcast."""
    words = (*key, key[0] ^ key[1] ^ tf.constant(_PARITY, tf.uint32))
    left, right = counter[0] + words[0], counter[1] + words[1]
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            left += right
            right = left ^ _rotated(right, distance)
        left += words[(group + 1) % 3]
        right += words[(group + 2) % 3] + tf.constant(group + 1, tf.uint32)
    return left, right


def _rotated(word: tf.Tensor, distance: int) -> tf.Tensor:
    high = tf.bitwise.left_shift(word, tf.constant(distance, tf.uint32))
    return high | tf.bitwise.right_shift(word, tf.constant(32 - distance, tf.uint32))


def uniform(keys: tf.Tensor, counter: tf.Tensor, count: int) -> tf.Tensor:
    """Numbers in [0, 1) of 53 bits, float64 [N, count], that depend on a member's key and counter only.

    Args:
      keys: [N, 2] int32.
      counter: Which draw of each member's, [N] int32.
      count: How many numbers.
    """
    words = tf.bitcast(keys, tf.uint32)
    draw = tf.repeat(tf.bitcast(counter, tf.uint32)[:, tf.newaxis], count, axis=1)
    number = tf.bitcast(tf.range(count)[tf.newaxis], tf.uint32)
    left, right = threefry((words[:, :1], words[:, 1:]), (draw, number))
    high = tf.cast(tf.bitwise.right_shift(left, tf.constant(5, tf.uint32)), tf.float64)
    low = tf.cast(tf.bitwise.right_shift(right, tf.constant(6, tf.uint32)), tf.float64)
    return (high * 2.0**26 + low) / 2.0**53
