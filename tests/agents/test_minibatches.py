import numpy as np
import pytest
import tensorflow as tf

from ngrl.agents.minibatches import _argsort, for_each_minibatch, shuffled_minibatches

SEED = tf.constant([3, 5])


def draw(num_rows, batch_size, epochs, seed=SEED, jit_compile=False):
    make = tf.function(lambda s: shuffled_minibatches(num_rows, batch_size, epochs, s), jit_compile=jit_compile)
    return make(seed).numpy()


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(
    ("num_rows", "batch_size", "shape"),
    [(12, 4, (9, 4)), (13, 4, (9, 4)), (15, 4, (9, 4)), (3, 8, (3, 3)), (1, 1, (3, 1)), (2_048, 2_048, (3, 2_048))],
)
def test_every_epoch_takes_each_row_at_most_once(num_rows, batch_size, shape, jit_compile):
    minibatches = draw(num_rows, batch_size, 3, jit_compile=jit_compile)
    assert minibatches.shape == shape
    for epoch in minibatches.reshape(3, -1):
        assert len(set(epoch)) == len(epoch) == num_rows - num_rows % min(batch_size, num_rows)
        assert set(epoch) <= set(range(num_rows))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_order_follows_the_seed_and_differs_between_epochs(jit_compile):
    first = draw(100, 10, 2, jit_compile=jit_compile)
    np.testing.assert_array_equal(draw(100, 10, 2, jit_compile=jit_compile), first)
    for other in (SEED + 1, SEED[::-1]):
        assert (draw(100, 10, 2, other, jit_compile) != first).any()
    epochs = first.reshape(2, -1)
    assert (epochs[0] != epochs[1]).any()
    assert (epochs[0] != np.arange(100)).any()
    np.testing.assert_array_equal(draw(100, 10, 2, jit_compile=not jit_compile), first)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_order_is_that_of_a_stable_sort(jit_compile):
    keys = np.random.default_rng(0).integers(-(2**31), 2**31, (3, 500)).astype(np.int32)
    keys[:, 100:200] = keys[:, 200:300]
    keys[:, :2] = [2**31 - 1, -(2**31)]
    orders = tf.function(_argsort, jit_compile=jit_compile)(keys)
    np.testing.assert_array_equal(orders, np.argsort(keys, axis=1, kind="stable"))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_every_row_comes_equally_often_at_every_place(jit_compile):
    """6 rows in minibatches of 4: how often a row stands at each of the 4 places, or is left out."""
    epochs = 6_000
    minibatches = draw(6, 4, epochs, jit_compile=jit_compile)
    seen = np.stack([np.bincount(place, minlength=6) for place in minibatches.T])
    expected = epochs / 6
    # A binomial count of standard deviation 29; the largest of 24 lies within 4.5 of them.
    assert np.abs(seen - expected).max() < 4.5 * np.sqrt(epochs * (1 / 6) * (5 / 6))
    left_out = epochs - seen.sum(axis=0)
    assert np.abs(left_out - epochs / 3).max() < 4.5 * np.sqrt(epochs * (1 / 3) * (2 / 3))


@pytest.mark.parametrize("run", ["eager", "graph", "xla"])
def test_each_update_sees_what_the_one_before_did(run):
    """Doubling and adding the rows gives another number in any other order."""
    minibatches = tf.constant([[1, 2], [5, 0], [3, 3]])
    state = tf.Variable(1)

    def update(rows):
        state.assign(2 * state + tf.reduce_sum(rows))
        return {"count": tf.constant(1.0), "total": tf.cast(tf.reduce_sum(rows), tf.float32)}

    def everything():
        return for_each_minibatch(minibatches, update, {"count": tf.zeros([]), "total": tf.zeros([])})

    if run != "eager":
        everything = tf.function(everything, jit_compile=run == "xla", autograph=False)
    result = everything()
    assert state.numpy() == 2 * (2 * (2 * 1 + 3) + 5) + 6
    assert (result["count"].numpy(), result["total"].numpy()) == (3, 14)
