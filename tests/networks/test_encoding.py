"""Observations as vectors, running moments against NumPy over everything seen, and the normaliser."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec

from ngrl import networks
from ngrl.networks.encoding import encoded_size
from ngrl.specs import categories, quantities

FLOATS = tensor_spec.TensorSpec([3], tf.float32)
MIXED = {
    "b": tensor_spec.BoundedTensorSpec([], tf.int64, 2, 4),
    "a": tensor_spec.TensorSpec([2, 2], tf.float32),
}


def update(moments, values, weights=None, run=None):
    """One update; `run` is "graph" or "xla" to compile it."""
    arguments = (tf.constant(values), tf.constant(np.ones(len(values)) if weights is None else weights, tf.float32))
    call = moments.update if run is None else tf.function(moments.update, jit_compile=run == "xla", autograph=False)
    call(*arguments)


def contents(moments):
    return [variable.numpy().tobytes() for variable in moments.variables]


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [(tf.int8, -128, 127), (tf.uint8, 250, 255), (tf.int16, -3, 2), (tf.uint16, 0, 4), (tf.int32, 5, 9)],
)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_categories_of_any_width_become_one_hot(dtype, low, high, jit_compile):
    spec = tensor_spec.BoundedTensorSpec([2], dtype, low, high, name=categories("observation"))
    values = np.array([[low, high], [high, low], [low + 1, low + 1]])
    encode = tf.function(lambda x: networks.encode_observation(x, spec), jit_compile=jit_compile, autograph=False)
    expected = np.eye(high - low + 1)[values - low].reshape(3, -1)
    np.testing.assert_array_equal(encode(tf.constant(values, dtype)), expected)
    assert encoded_size(spec) == expected.shape[1]


def test_each_category_has_a_one_hot_vector_of_its_own_width():
    """MultiDiscrete([2, 4], start=[0, 5])."""
    spec = tensor_spec.BoundedTensorSpec([2], tf.int64, [0, 5], [1, 8], name=categories("observation"))
    encoded = networks.encode_observation(tf.constant([[1, 5], [0, 8]], tf.int64), spec)
    np.testing.assert_array_equal(encoded, [[0, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 1]])
    assert encoded_size(spec) == 6


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(
    ("dtype", "low", "high", "values", "expected"),
    [
        (tf.uint8, 0, 255, [[0, 255], [51, 204]], [[0, 1], [0.2, 0.8]]),
        (tf.int8, -128, 127, [[-128, 127]], [[0, 1]]),
        (tf.int64, [0, 10**12], [4, 10**12 + 8], [[1, 10**12 + 2]], [[0.25, 0.25]]),
        (tf.int64, 0, 4, [[6, -2]], [[1.5, -0.5]]),  # environments leave the bounds of their Boxes
        (tf.int32, [0, 7], [4, 7], [[2, 7]], [[0.5, 7]]),  # what is always 7 has no scale
        (tf.int32, -(2**31), 2**31 - 1, [[-3, 2**20]], [[-3, 2**20]]),
        (tf.int32, [0, 0], [10, 2**24], [[5, 5]], [[0.5, 5]]),
        (tf.uint64, 0, 2**64 - 1, [[3, 2**63]], [[3, 2.0**63]]),
    ],
)
def test_quantities_are_scaled_by_their_bounds_unless_these_are_very_wide(
    dtype, low, high, values, expected, jit_compile
):
    spec = tensor_spec.BoundedTensorSpec([2], dtype, low, high)
    encode = tf.function(lambda x: networks.encode_observation(x, spec), jit_compile=jit_compile, autograph=False)
    encoded = encode(tf.constant(values, dtype))
    assert encoded.dtype == tf.float32
    np.testing.assert_allclose(encoded, expected, rtol=1e-7)
    assert encoded_size(spec) == 2


def test_quantities_without_bounds_and_bools_are_numbers_as_they_are():
    spec = (tensor_spec.TensorSpec([2], tf.int64), tensor_spec.TensorSpec([1], tf.bool))
    encoded = networks.encode_observation((tf.constant([[5, -6]], tf.int64), tf.constant([[True]])), spec)
    np.testing.assert_array_equal(encoded, [[5, -6, 1]])


def test_an_image_is_as_wide_as_it_has_pixels():
    assert encoded_size(tensor_spec.BoundedTensorSpec([84, 84, 4], tf.uint8, 0, 255)) == 28224
    networks.QNetwork(tensor_spec.BoundedTensorSpec([16, 16, 4], tf.uint8, 0, 255), 2)
    with pytest.raises(ValueError, match="an image of 84 × 84 is too large for Dense layers alone"):
        networks.QNetwork(tensor_spec.BoundedTensorSpec([84, 84], tf.uint8, 0, 255), 2)


def test_a_scalar_is_a_category_unless_its_name_says_otherwise():
    observation = tf.constant([2], tf.int32)
    for name, expected in ((None, [[0, 0, 1]]), (quantities("observation"), [[1.0]])):
        spec = tensor_spec.BoundedTensorSpec([], tf.int32, 0, 2, name=name)
        np.testing.assert_array_equal(networks.encode_observation(observation, spec), expected)


@pytest.mark.parametrize("dtype", [tf.uint8, tf.float32])
def test_an_observation_too_wide_for_dense_layers_is_refused_with_the_way_out(dtype):
    spec = {"sound": tensor_spec.BoundedTensorSpec([100_800], dtype, 0, 255)}
    with pytest.raises(
        ValueError, match=r"too wide .*: 100,800 numbers, at most 32,768; .*a network of your own"
    ) as caught:
        networks.ValueNetwork(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [tf.uint8, tf.float32])
def test_an_image_too_large_for_dense_layers_is_refused_with_the_trunk_it_wants(dtype):
    spec = {"camera": tensor_spec.BoundedTensorSpec([4, 84, 84], dtype, 0, 255)}
    with pytest.raises(ValueError, match=r"an image of 4 × 84 × 84 .*trunk = @ConvNetwork\(\)") as caught:
        networks.ActorNetwork(spec, tensor_spec.BoundedTensorSpec([], tf.int64, 0, 2))
    assert "\n" not in str(caught.value)


def test_encoded_size_is_that_of_an_encoded_observation():
    observation = {"b": tf.constant([2], tf.int64), "a": tf.zeros([1, 2, 2])}
    assert encoded_size(MIXED) == networks.encode_observation(observation, MIXED).shape[1] == 7


@pytest.mark.parametrize("run", [None, "graph", "xla"])
def test_moments_are_those_of_all_rows_that_count(run):
    """Batches of many sizes, a third of the rows masked and holding NaN, some batches masked altogether."""
    random = np.random.default_rng(0)
    moments = networks.RunningMoments(3)
    kept = []
    for size in [1, 7, 64, 7, 300, 7, 1, 64]:
        values = random.normal([0, 5, -40], [1, 0.01, 30], size=(size, 3)).astype(np.float32)
        weights = (random.uniform(size=size) < 0.67).astype(np.float32)
        if len(kept) in (2, 5):
            weights[:] = 0
        kept.append(values[weights > 0].astype(np.float64))
        values[weights == 0] = np.nan
        update(moments, values, weights, run)
    rows = np.concatenate(kept)
    np.testing.assert_allclose(moments.count, len(rows))
    np.testing.assert_allclose(moments.mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.variance, rows.var(axis=0), rtol=1e-12)


def test_weights_between_0_and_1_weigh():
    random = np.random.default_rng(1)
    values, weights = random.normal(size=(40, 2)), random.uniform(size=40).astype(np.float32)
    moments = networks.RunningMoments(2)
    update(moments, values[:15], weights[:15])
    update(moments, values[15:], weights[15:])
    mean = np.average(values, axis=0, weights=weights)
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(moments.variance, np.average((values - mean) ** 2, axis=0, weights=weights), rtol=1e-6)


@pytest.mark.parametrize(
    ("offset", "deviation"), [(1e6, 1.0), (-3e7, 20.0), (0.0, 1e30), (1e37, 1e33), (0.0, 1e-20), (1.0, 1e-5)]
)
def test_moments_far_from_0_and_of_any_size_keep_their_digits(offset, deviation):
    random = np.random.default_rng(2)
    batches = (offset + deviation * random.normal(size=(200, 100, 1))).astype(np.float32)
    moments = networks.RunningMoments(1)
    for batch in batches:
        update(moments, batch)
    rows = batches.reshape(-1).astype(np.float64)
    np.testing.assert_allclose(moments.mean, [rows.mean()], rtol=1e-10, atol=1e-10 * deviation)
    np.testing.assert_allclose(moments.variance, [rows.var()], rtol=1e-6)


def test_a_number_that_moves_the_mean_only_a_little_still_counts():
    """One row at a time after 2^24 of them: a float32 count would stand still there."""
    moments = networks.RunningMoments(1)
    for variable, value in ((moments.mean, [0.0]), (moments.variance, [1.0]), (moments.count, 2.0**24)):
        variable.assign(value)
    for _ in range(10):
        update(moments, np.ones((1, 1), np.float32))
    assert moments.count.numpy() == 2**24 + 10
    np.testing.assert_allclose(moments.mean, [10 / (2**24 + 10)], rtol=1e-12)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("run", [None, "xla"])
def test_a_batch_that_is_not_finite_changes_nothing(poison, run):
    random = np.random.default_rng(3)
    first, second = random.normal(size=(2, 20, 2)).astype(np.float32)
    moments = networks.RunningMoments(2)
    update(moments, first, run=run)
    before = contents(moments)
    bad = random.normal(size=(20, 2)).astype(np.float32)
    bad[4, 1] = poison
    update(moments, bad, run=run)
    assert contents(moments) == before
    update(moments, second, run=run)
    np.testing.assert_allclose(moments.mean, np.concatenate([first, second]).mean(axis=0, dtype=np.float64), rtol=1e-12)


def test_a_batch_of_masked_rows_changes_nothing_even_before_any_other():
    moments = networks.RunningMoments(2)
    before = contents(moments)
    update(moments, np.full((5, 2), np.nan, np.float32), np.zeros(5))
    assert contents(moments) == before
    np.testing.assert_array_equal(moments.mean, [0, 0])
    np.testing.assert_array_equal(moments.variance, [1, 1])


@pytest.mark.parametrize("jit_compile", [False, True])
def test_normaliser_centres_scales_and_clips(jit_compile):
    random = np.random.default_rng(4)
    normaliser = networks.ObservationNormaliser(FLOATS, clip=1.5, epsilon=0.1)
    seen = random.normal([1, -7, 2], [2, 0.1, 5], size=(400, 3)).astype(np.float32)
    normaliser.update(tf.constant(seen), tf.ones(400))
    x = random.normal([1, -7, 2], [2, 0.1, 5], size=(50, 3)).astype(np.float32)
    expected = np.clip((x - seen.mean(axis=0)) / np.sqrt(seen.var(axis=0) + 0.1), -1.5, 1.5)
    got = tf.function(normaliser.__call__, jit_compile=jit_compile, autograph=False)(tf.constant(x))
    assert got.dtype == tf.float32
    assert (np.abs(expected) == 1.5).any()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_fresh_normaliser_leaves_observations_as_they_are():
    x = tf.constant([[0.5, -9.0, 0.0]])
    np.testing.assert_allclose(networks.ObservationNormaliser(FLOATS)(x), x, rtol=1e-7)


@pytest.mark.parametrize("value", [0.0, 1234.567, -1e-3, 1e20])
def test_an_entry_that_never_changes_becomes_0(value):
    """ε is small: an error of the mean in the seventh digit would come out as a number of size 1."""
    normaliser = networks.ObservationNormaliser(tensor_spec.TensorSpec([1], tf.float32))
    rows = tf.fill([2047, 1], value)
    for _ in range(3):
        normaliser.update(rows, tf.ones(2047))
    np.testing.assert_allclose(normaliser(rows), np.zeros((2047, 1)), atol=1e-6)


def test_normaliser_takes_what_the_environment_says():
    random = np.random.default_rng(5)
    observation = {
        "b": tf.constant(random.integers(2, 5, size=30), tf.int64),
        "a": tf.constant(random.normal(size=(30, 2, 2)), tf.float32),
    }
    normaliser = networks.ObservationNormaliser(MIXED)
    normaliser.update(observation, tf.ones(30))
    encoded = networks.encode_observation(observation, MIXED).numpy()
    assert normaliser.size == encoded.shape[1]
    scaled = normaliser(tf.constant(encoded)).numpy()
    np.testing.assert_allclose(scaled, (encoded - encoded.mean(axis=0)) / encoded.std(axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": 0.0}, "clip must be positive, got 0.0"),
        ({"epsilon": -1e-8}, "epsilon must be positive and finite, got -1e-08"),
        ({"clip": float("nan")}, "clip must be positive, got nan"),
        ({"observation_spec": tensor_spec.TensorSpec([], tf.int64)}, "needs bounds"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        networks.ObservationNormaliser(**{"observation_spec": FLOATS, **options})


@pytest.mark.parametrize("run", [None, "xla"])
def test_normaliser_clips_outliers_and_turns_what_is_infinite_into_nan(run):
    normaliser = networks.ObservationNormaliser(tf.TensorSpec([4], tf.float32), clip=2.0, epsilon=1e-12)
    call = tf.function(normaliser.__call__, jit_compile=True) if run else normaliser
    got = call(tf.constant([[1.0, 1e30, np.inf, -np.inf], [-1e30, np.nan, 0.0, -1.0]])).numpy()
    np.testing.assert_allclose(got, [[1.0, 2.0, np.nan, np.nan], [-2.0, np.nan, 0.0, -1.0]], rtol=1e-6)
