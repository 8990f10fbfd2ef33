import numpy as np
import pytest
import tensorflow as tf

from ngrl.curvature import flatten, num_parameters, unflatten


@pytest.fixture
def variables():
    shapes = [[2, 3], [], [4], [1, 2, 2]]
    return [tf.Variable(tf.random.stateless_normal(shape, [1, len(shape)])) for shape in shapes]


def test_flat_order_is_row_major_in_the_order_of_the_list(variables):
    expected = np.concatenate([variable.numpy().ravel() for variable in variables])

    np.testing.assert_array_equal(flatten(variables), expected)


def test_unflatten_inverts_flatten(variables):
    parts = unflatten(flatten(variables), variables)

    for part, variable in zip(parts, variables, strict=True):
        assert part.shape == variable.shape
        np.testing.assert_array_equal(part, variable)


def test_num_parameters_counts_scalars(variables):
    assert num_parameters(variables) == 6 + 1 + 4 + 4
    assert num_parameters([]) == 0


def test_sparse_gradients_become_dense():
    slices = tf.IndexedSlices(tf.constant([[1.0], [2.0], [4.0]]), tf.constant([2, 0, 2]), tf.constant([3, 1]))

    np.testing.assert_array_equal(flatten([slices, tf.constant(9.0)]), [2, 0, 5, 9])


def test_a_vector_of_another_length_is_refused(variables):
    with pytest.raises(ValueError, match=r"shape \[15\], got \(14,\)"):
        unflatten(tf.zeros([14]), variables)


def test_an_empty_list_is_refused():
    with pytest.raises(ValueError, match="empty"):
        flatten([])
