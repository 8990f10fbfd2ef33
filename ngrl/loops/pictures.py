"""What an observation that is an image looks like."""

from typing import Any

import numpy as np

_LEAST_HEIGHT = 80  # pixels; smaller images are enlarged


def observation_picture(observation: Any, spec: Any) -> np.ndarray | None:
    """An image or a stack of images as one picture [height, width, 3] uint8; None for other observations.

    Frames of a stack, and channels that are no colours, stand side by side. Black and white are the bounds.

    Args:
      observation: [H, W], [H, W, C], [C, H, W] (where the first axis is the shortest) or a stack of such, of integers.
      spec: Its spec.
    """
    if not isinstance(observation, np.ndarray) or observation.dtype.kind not in "ui" or not 2 <= observation.ndim <= 4:
        return None
    low, high = float(np.min(spec.minimum)), float(np.max(spec.maximum))
    image = np.clip((observation - low) * (255 / max(high - low, 1.0)), 0, 255).astype(np.uint8)
    if image.ndim > 2 and image.shape[-3] < min(image.shape[-2:]):
        image = np.moveaxis(image, -3, -1)
    frames = image if image.ndim == 4 else image.reshape(1, *image.shape[:2], -1)
    panels = [panel for frame in frames for panel in _panels(frame)]
    factor = -(-_LEAST_HEIGHT // len(panels[0]))
    return np.concatenate(panels, axis=1).repeat(factor, axis=0).repeat(factor, axis=1)


def _panels(frame: np.ndarray) -> list[np.ndarray]:
    """A frame [H, W, C] as pictures [H, W, 3]: one in colours, or grey ones of its channels."""
    if frame.shape[-1] == 3:
        return [frame]
    return [np.repeat(channel[..., np.newaxis], 3, axis=-1) for channel in np.moveaxis(frame, -1, 0)]
