"""Images as the patches under a convolution's kernel, so that a convolution is a product of matrices."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import tensorflow as tf


def extract_patches(
    images: tf.Tensor,
    kernel_size: Sequence[int],
    strides: Sequence[int],
    padding: str,
    dilation_rate: Sequence[int],
) -> tf.Tensor:
    """What lies under the kernel at each of its positions, [B, *positions, k, C], k the kernel's places in row order.

    Args:
      images: [B, *sizes, C], the sizes static, of as many axes as the kernel has.
      kernel_size: The kernel's size along each axis.
      strides: Steps between positions.
      padding: "valid", "same" as TensorFlow pads, or "causal", with zeros in front alone.
      dilation_rate: Steps between the kernel's places.
    """
    spans, counts = [], []
    widths = [[0, 0]]
    for size, k, stride, dilation in zip(images.shape[1:-1], kernel_size, strides, dilation_rate, strict=True):
        reach = (k - 1) * dilation
        if padding == "same":
            missing = max((-(-size // stride) - 1) * stride + reach + 1 - size, 0)
            widths.append([missing // 2, missing - missing // 2])
        else:
            widths.append([reach if padding == "causal" else 0, 0])
        count = (size + sum(widths[-1]) - reach - 1) // stride + 1
        counts.append(count)
        spans.append([slice(i * dilation, i * dilation + (count - 1) * stride + 1, stride) for i in range(k)])
    if any(before or after for before, after in widths):
        images = tf.pad(images, [*widths, [0, 0]])
    parts = [images[(slice(None), *place)] for place in itertools.product(*spans)]
    return tf.stack(parts, axis=-2)


def overlap_patches(
    patches: tf.Tensor,
    sizes: Sequence[int],
    kernel_size: Sequence[int],
    strides: Sequence[int],
    padding: str,
    dilation_rate: Sequence[int],
) -> tf.Tensor:
    """The transpose of `extract_patches`: patches [B, *positions, k, C] added up in images [B, *sizes, C]."""
    images = tf.zeros([tf.shape(patches)[0], *sizes, patches.shape[-1]], patches.dtype)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        extracted = extract_patches(images, kernel_size, strides, padding, dilation_rate)
    return tape.gradient(extracted, images, patches)


@tf.keras.utils.register_keras_serializable(package="ngrl")
class PatchConv2D(tf.keras.layers.Conv2D):
    """`tf.keras.layers.Conv2D` as a product of patches and the kernel.

    It computes the same to rounding. XLA's convolution on a processor is slow, inside loops above all, where this is
    what a Dense layer takes. Images are [B, H, W, C] with static H, W and C; there are no groups.
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Z_p = patch_p W, without the bias."""
        patches = extract_patches(inputs, self.kernel_size, self.strides, self.padding, self.dilation_rate)
        flat = tf.reshape(patches, [-1, kernel.shape[:-1].num_elements()])
        return tf.reshape(
            tf.matmul(flat, tf.reshape(kernel, [-1, self.filters])), [-1, *patches.shape[1:3], self.filters]
        )
