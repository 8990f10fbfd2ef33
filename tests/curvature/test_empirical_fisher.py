import numpy as np
import pytest
import tensorflow as tf

from ngrl.curvature import EmpiricalFisher, num_parameters

B, D, K = 5, 3, 4
WEIGHTS = np.array([1.0, 0.0, 2.5, 0.5, 0.0])


@pytest.fixture(scope="module")
def model(mlp):
    return mlp([D, 4, K])


@pytest.fixture(scope="module")
def inputs():
    draw = np.random.default_rng(5)
    return {"observation": draw.normal(size=[B, D]), "action": draw.integers(0, K, B)}


@pytest.fixture(scope="module")
def negative_log_likelihood(model):
    def losses(batch):
        logits = model(batch["observation"])
        return tf.nn.sparse_softmax_cross_entropy_with_logits(batch["action"], logits)

    return losses


@pytest.fixture(scope="module")
def gradients(model, inputs):
    """g_i [B, P], written out: the derivative of cross-entropy by logits is p - e_a."""
    kernel_1, bias_1, kernel_2, bias_2 = (variable.numpy() for variable in model.trainable_variables)
    x = inputs["observation"]
    hidden = np.tanh(x @ kernel_1 + bias_1)
    logits = hidden @ kernel_2 + bias_2
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    d_logits = p - np.eye(K)[inputs["action"]]
    d_hidden = d_logits @ kernel_2.T * (1 - hidden**2)
    return np.concatenate(
        [
            (x[:, :, None] * d_hidden[:, None, :]).reshape(B, -1),
            d_hidden,
            (hidden[:, :, None] * d_logits[:, None, :]).reshape(B, -1),
            d_logits,
        ],
        axis=1,
    )


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "masked"])
def test_equals_the_sum_of_outer_products_of_the_gradients(
    model, inputs, negative_log_likelihood, gradients, weights, run, rng
):
    w = np.ones(B) if weights is None else weights
    expected = sum(wi * np.outer(g, g) for wi, g in zip(w, gradients, strict=True)) / w.sum()
    v = rng.normal(size=num_parameters(model.trainable_variables))

    def products():
        operator = EmpiricalFisher(negative_log_likelihood, model.trainable_variables, inputs, weights)
        return operator.to_dense(), operator.matvec(v), operator.gram(), operator.losses

    dense, product, gram, losses = run(products)()
    scaled = np.sqrt(w / w.sum())[:, None] * gradients
    np.testing.assert_allclose(dense, expected, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(product, expected @ v, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(gram, scaled @ scaled.T, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(losses, negative_log_likelihood(inputs), rtol=1e-12)


def test_mean_gradient_lies_in_the_row_space(model, inputs, negative_log_likelihood, gradients):
    operator = EmpiricalFisher(negative_log_likelihood, model.trainable_variables, inputs, WEIGHTS)
    coefficients = operator.row_coefficients((WEIGHTS / WEIGHTS.sum())[:, None])

    np.testing.assert_allclose(operator.row_rmatvec(coefficients), WEIGHTS @ gradients / WEIGHTS.sum(), rtol=1e-9)


@pytest.mark.parametrize(
    ("reduce", "got"),
    [(tf.reduce_mean, r"got \(\)"), (lambda losses: losses[:, None], r"got \(5, 1\)"), (list, "got list")],
)
def test_losses_must_be_one_per_example(model, inputs, negative_log_likelihood, reduce, got):
    with pytest.raises(ValueError, match=rf"losses of shape \[B\], {got}"):
        EmpiricalFisher(lambda batch: reduce(negative_log_likelihood(batch)), model.trainable_variables, inputs)
