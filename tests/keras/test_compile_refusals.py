"""What `NaturalGradientModel.compile` and `fit` refuse, and what comes near to it and is accepted."""

from types import SimpleNamespace

import pytest
import tensorflow as tf
from keras_problems import classifier, points

from ngrl import optimizers
from ngrl.keras import NaturalGradientModel

LAYERS = tf.keras.layers


def dense(inputs, activation=None, **options):
    return LAYERS.Dense(2, activation, **options)(inputs)


def normalised(inputs, trainable=True):
    return dense(LAYERS.BatchNormalization(trainable=trainable)(inputs))


def masked(inputs):
    return dense(LAYERS.Masking()(LAYERS.Reshape([1, 3])(inputs)))[:, 0]


REFUSED = {
    "dropout": (lambda x: dense(LAYERS.Dropout(0.5)(x)), "mse", r"layer 'dropout\w*' \(Dropout\) draws new random"),
    "noise": (lambda x: dense(LAYERS.GaussianNoise(0.1)(x)), "mse", "draws new random numbers"),
    "nested dropout": (
        lambda x: dense(tf.keras.Sequential([LAYERS.Dense(2), LAYERS.Dropout(0.1)])(x)),
        "mse",
        "draws new random numbers",
    ),
    "batch normalisation": (normalised, "mse", "LayerNormalization, or set its trainable to False"),
    "stateful": (
        lambda x: dense(LAYERS.SimpleRNN(2, stateful=True)(LAYERS.Reshape([1, 3])(x))),
        "mse",
        "is stateful",
    ),
    "constraint": (lambda x: dense(x, kernel_constraint="non_neg"), "mse", "has a constraint"),
    "rank 3": (lambda x: LAYERS.Reshape([2, 1])(dense(x)), "mse", "end it with a Flatten"),
    "dictionary": (lambda x: {"a": dense(x)}, "mse", "one output tensor"),
    "no variables": (lambda x: LAYERS.Activation("tanh")(x), "mse", "no trainable variables"),
    "mixed precision": (lambda x: dense(x, dtype="mixed_bfloat16"), "mse", "needs one dtype"),
    "logits for probabilities": (dense, "binary_crossentropy", "activation='sigmoid'.*from_logits=True"),
    "sigmoid for softmax": (lambda x: dense(x, "sigmoid"), "categorical_crossentropy", "activation='softmax'"),
    "softmax for sigmoid": (lambda x: dense(x, "softmax"), "binary_crossentropy", "activation='sigmoid'"),
    "probabilities for logits": (
        lambda x: dense(x, "sigmoid"),
        tf.keras.losses.BinaryCrossentropy(from_logits=True),
        "ends in a sigmoid activation: remove one",
    ),
    "unknown loss": (dense, "huber", "doesn't know the curvature"),
    "no loss": (dense, None, "exactly one loss"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_compile_refuses_what_it_cannot_train_exactly(case):
    network, loss, message = REFUSED[case]
    inputs = tf.keras.Input([3], batch_size=2 if case == "stateful" else None)
    model = NaturalGradientModel(inputs, network(inputs))
    with pytest.raises(ValueError, match=message):
        model.compile(optimizers.NaturalGradient(), loss)


def test_masked_outputs_and_ragged_inputs_are_refused():
    steps = tf.keras.Input([4, 3])
    model = NaturalGradientModel(
        steps,
        LAYERS.Lambda(lambda y: y[:, 0], mask=lambda y, mask: mask[:, 0])(LAYERS.Dense(2)(LAYERS.Masking()(steps))),
    )
    with pytest.raises(ValueError, match="has a mask"):
        model.compile(optimizers.NaturalGradient(), "mse")
    ragged = tf.keras.Input([None, 3], ragged=True)
    pooled = LAYERS.Lambda(lambda y: tf.reduce_sum(y, axis=1))(ragged)
    model = NaturalGradientModel(ragged, LAYERS.Dense(1)(pooled))
    with pytest.raises(ValueError, match="sparse or ragged"):
        model.compile(optimizers.NaturalGradient(), "mse")


def test_frozen_batch_normalisation_and_switched_off_dropout_are_accepted():
    for network in (lambda x: normalised(x, trainable=False), lambda x: dense(LAYERS.Dropout(0.0)(x))):
        inputs = tf.keras.Input([3])
        model = NaturalGradientModel(inputs, network(inputs))
        model.compile(optimizers.NaturalGradient(damping=1e-5), "mse")
        x, _ = points()
        model.fit(x, x[:, :2], epochs=3, verbose=0)
        assert model.evaluate(x, x[:, :2], verbose=0) < 1e-6


def test_an_optimizer_serves_one_model():
    optimizer = optimizers.NaturalGradient()
    classifier().compile(optimizer, "binary_crossentropy")
    with pytest.raises(ValueError, match="make an optimizer for each network"):
        classifier().compile(optimizer, "binary_crossentropy")


@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_the_dual_solver_without_damping_refuses_regularisers(damping):
    """Its form for gradients outside of the rows divides by λ: without this every step would be skipped."""
    inputs = tf.keras.Input([3])
    model = NaturalGradientModel(inputs, dense(inputs, kernel_regularizer="l2"))
    model.compile(optimizers.NaturalGradient(damping=damping), "mse", run_eagerly=True)
    x, _ = points(10)
    if damping:
        assert model.train_on_batch(x, x[:, :2], return_dict=True)["skipped_updates"] == 0
    else:
        with pytest.raises(ValueError, match=r"regularisers.*damping above 0"):
            model.train_on_batch(x, x[:, :2])


def test_replicas_loss_scaling_and_missing_targets_are_refused():
    model = classifier()
    model._distribution_strategy = SimpleNamespace(num_replicas_in_sync=2)
    with pytest.raises(ValueError, match="train without replicas"):
        model.compile(optimizers.NaturalGradient(), "binary_crossentropy")
    scaled = tf.keras.mixed_precision.LossScaleOptimizer(tf.keras.optimizers.SGD())
    scaled._optimizer = optimizers.NaturalGradient()
    with pytest.raises(ValueError, match="can't be wrapped for loss scaling"):
        classifier().compile(scaled, "binary_crossentropy")
    x, _ = points()
    model = classifier()
    model.compile(optimizers.NaturalGradient(), "binary_crossentropy")
    with pytest.raises(ValueError, match="needs targets"):
        model.fit(x, verbose=0)
