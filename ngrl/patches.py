"""Images as the patches under a convolution's kernel, so that a convolution is a product of matrices.

Patches are gathered by a table of places: several times as fast as slicing them out or TensorFlow's own kernel, with
XLA and without. The transpose adds up what lies on a pixel, which is gathered too: scattering is slow under XLA.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
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
    images, table = _padded(images, kernel_size, strides, padding, dilation_rate)
    flat = tf.reshape(images, [-1, images.shape[1:-1].num_elements(), images.shape[-1]])
    return tf.reshape(_gather(flat, table), [-1, *table.shape, images.shape[-1]])


def extract_columns(
    images: tf.Tensor,
    kernel_size: Sequence[int],
    strides: Sequence[int],
    padding: str,
    dilation_rate: Sequence[int],
) -> tf.Tensor:
    """The patches of `extract_patches` as the columns of a matrix for each image, [B, k·C, positions]."""
    images, table = _padded(images, kernel_size, strides, padding, dilation_rate)
    channels, places = images.shape[-1], table.shape[-1]
    positions = table.size // places
    flat = tf.transpose(tf.reshape(images, [-1, images.shape[1:-1].num_elements(), channels]), [0, 2, 1])
    found = tf.gather(flat, table.reshape(positions, places).T.reshape(-1), axis=2)
    columns = tf.transpose(tf.reshape(found, [-1, channels, places, positions]), [0, 2, 1, 3])
    return tf.reshape(columns, [-1, places * channels, positions])


def overlap_patches(
    patches: tf.Tensor,
    sizes: Sequence[int],
    kernel_size: Sequence[int],
    strides: Sequence[int],
    padding: str,
    dilation_rate: Sequence[int],
) -> tf.Tensor:
    """The transpose of `extract_patches`: patches [B, *positions, k, C] added up in images [B, *sizes, C]."""
    widths = _widths(sizes, kernel_size, strides, padding, dilation_rate)
    padded = [size + sum(width) for size, width in zip(sizes, widths, strict=True)]
    table = _table(tuple(padded), tuple(kernel_size), tuple(strides), tuple(dilation_rate))
    flat = tf.reshape(patches, [-1, table.size, patches.shape[-1]])
    images = tf.reshape(_add_up(flat, table, int(np.prod(padded))), [-1, *padded, patches.shape[-1]])
    inside = [slice(before, before + size) for (before, _), size in zip(widths, sizes, strict=True)]
    return images[(slice(None), *inside)]


def _padded(
    images: tf.Tensor, kernel_size: Sequence[int], strides: Sequence[int], padding: str, dilation_rate: Sequence[int]
) -> tuple[tf.Tensor, np.ndarray]:
    """The images with the zeros around them that the padding asks for, and the table of their patches."""
    widths = _widths(images.shape[1:-1], kernel_size, strides, padding, dilation_rate)
    if any(sum(width) for width in widths):
        images = tf.pad(images, [[0, 0], *widths, [0, 0]])
    return images, _table(tuple(images.shape[1:-1]), tuple(kernel_size), tuple(strides), tuple(dilation_rate))


def _widths(
    sizes: Sequence[int],
    kernel_size: Sequence[int],
    strides: Sequence[int],
    padding: str,
    dilation_rate: Sequence[int],
) -> list[list[int]]:
    """Zeros before and behind, for each axis."""
    widths = []
    for size, k, stride, dilation in zip(sizes, kernel_size, strides, dilation_rate, strict=True):
        reach = (k - 1) * dilation
        missing = max((-(-size // stride) - 1) * stride + reach + 1 - size, 0) if padding == "same" else 0
        widths.append([reach, 0] if padding == "causal" else [missing // 2, missing - missing // 2])
    return widths


@functools.lru_cache(maxsize=64)
def _table(
    sizes: tuple[int, ...], kernel_size: tuple[int, ...], strides: tuple[int, ...], dilation_rate: tuple[int, ...]
) -> np.ndarray:
    """The number of the pixel under each place of the kernel at each position, [*positions, k]."""
    rank = len(sizes)
    table = np.zeros([1] * (2 * rank), np.int32)
    for axis, (size, k, stride, dilation) in enumerate(zip(sizes, kernel_size, strides, dilation_rate, strict=True)):
        positions = np.arange((size - (k - 1) * dilation - 1) // stride + 1) * stride
        pixels = positions[:, np.newaxis] + np.arange(k) * dilation
        shape = [1] * (2 * rank)
        shape[axis], shape[rank + axis] = pixels.shape
        table = table * size + pixels.reshape(shape)
    return table.reshape([*table.shape[:rank], -1])


def _transposed(table: np.ndarray, num_pixels: int) -> np.ndarray:
    """The numbers of the entries of a table that name each pixel, [pixels, most]; where there are fewer, its size."""
    flat = table.reshape(-1)
    order = np.argsort(flat, kind="stable")
    counts = np.bincount(flat, minlength=num_pixels)
    ranks = np.arange(flat.size) - np.repeat(np.cumsum(counts) - counts, counts)
    found = np.full([num_pixels, counts.max()], flat.size, np.int32)
    found[flat[order], ranks] = order
    return found


def _gather(flat: tf.Tensor, table: np.ndarray) -> tf.Tensor:
    """Pixels [B, pixels, C] in the order of a table: [B, entries, C]."""
    num_pixels = flat.shape[1]

    @tf.custom_gradient
    def gather(pixels: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return tf.gather(pixels, table.reshape(-1), axis=1), lambda g: _add_up(g, table, num_pixels)

    return gather(flat)


def _add_up(entries: tf.Tensor, table: np.ndarray, num_pixels: int) -> tf.Tensor:
    """The transpose of `_gather`: [B, pixels, C] of [B, entries, C]."""

    @tf.custom_gradient
    def add_up(entries: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        padded = tf.pad(entries, [[0, 0], [0, 1], [0, 0]])  # the last is 0, and stands for none
        terms = _transposed(table, num_pixels).T
        return tf.add_n([tf.gather(padded, term, axis=1) for term in terms]), lambda g: _gather(g, table)

    return add_up(entries)


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
