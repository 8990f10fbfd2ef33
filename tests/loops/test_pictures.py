"""What observations look like in TensorBoard."""

import numpy as np
import pytest
from tf_agents.specs import array_spec

from ngrl.loops.pictures import observation_picture

BYTES = array_spec.BoundedArraySpec((), np.uint8, 0, 255)


def draw(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def grey(*frames):
    return np.concatenate([np.stack([frame] * 3, axis=-1) for frame in frames], axis=1)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (draw(84, 90), lambda x: grey(x)),
        (draw(84, 90, 1), lambda x: grey(x[..., 0])),
        (draw(84, 90, 3), lambda x: x),
        (draw(84, 90, 2), lambda x: grey(x[..., 0], x[..., 1])),
        (draw(4, 84, 90), lambda x: grey(*x)),
        (draw(2, 84, 90, 3), lambda x: np.concatenate([x[0], x[1]], axis=1)),
        (draw(2, 84, 90, 2), lambda x: grey(x[0, ..., 0], x[0, ..., 1], x[1, ..., 0], x[1, ..., 1])),
    ],
)
def test_frames_and_channels_that_are_no_colours_stand_side_by_side(image, expected):
    picture = observation_picture(image, BYTES)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, expected(image))


def test_small_images_are_enlarged_and_the_bounds_are_black_and_white():
    spec = array_spec.BoundedArraySpec((), np.uint8, 0, 1)
    picture = observation_picture(np.eye(10, dtype=np.uint8), spec)
    np.testing.assert_array_equal(picture, grey(np.kron(np.eye(10), np.full((8, 8), 255))))


@pytest.mark.parametrize("observation", [np.zeros(4, np.uint8), np.zeros((9, 9), np.float32), {"a": draw(9, 9)}, None])
def test_what_is_no_image_has_no_picture(observation):
    assert observation_picture(observation, BYTES) is None
