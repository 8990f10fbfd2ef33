"""`fit` around `NaturalGradientModel`: logs, files, the guard, inputs, other optimizers."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from keras_problems import classifier, points

from ngrl import optimizers, solvers
from ngrl.keras import NaturalGradientModel

ROOT = Path(__file__).parents[2]
LAYERS = tf.keras.layers
LOGS = {
    "damping",
    "predicted_kl",
    "gradient_norm",
    "step_norm",
    "solver_iterations",
    "solver_residual",
    "skipped_updates",
}


def adaptive(**settings):
    """An optimizer with every kind of state: λ, velocity, iterations and a schedule over them."""
    schedule = tf.keras.optimizers.schedules.ExponentialDecay(0.3, 1, 0.9)
    rule = optimizers.LevenbergMarquardt(initial=1.0, increase=2.0, decrease=0.7)
    return optimizers.NaturalGradient(schedule, damping=rule, momentum=0.5, max_kl=0.05, **settings)


def compiled(**options):
    model = classifier()
    loss = tf.keras.losses.BinaryCrossentropy(label_smoothing=0.1)
    model.compile(adaptive(), loss, metrics=["accuracy"], **options)
    return model


def fit(model, epochs=2, **options):
    return model.fit(*points(), batch_size=10, epochs=epochs, shuffle=False, verbose=0, **options)


def state(model):
    return [*model.get_weights(), *(variable.numpy() for variable in model.optimizer.variables)]


def assert_identical(model, other):
    for ours, theirs in zip(state(model), state(other), strict=True):
        assert ours.tobytes() == theirs.tobytes()


def test_logs_hold_the_documented_numbers_and_reach_tensorboard(tmp_path):
    model = classifier()
    model.compile(adaptive(), "binary_crossentropy", metrics=["accuracy"])
    callback = tf.keras.callbacks.TensorBoard(tmp_path, write_graph=False, profile_batch=0)
    history = fit(model, validation_data=points(seed=1), callbacks=[callback]).history
    names = LOGS | {"reduction_ratio"}
    assert set(history) == names | {"loss", "accuracy", "val_loss", "val_accuracy"}
    (file,) = (tmp_path / "train").glob("events*")
    events = [event for event in tf.compat.v1.train.summary_iterator(str(file))]
    written = {
        (value.tag, event.step): tf.make_ndarray(value.tensor) for event in events for value in event.summary.value
    }
    for name in names:
        for epoch in (0, 1):
            assert written[f"epoch_{name}", epoch] == np.float32(history[name][epoch])
    assert np.all(np.array(history["predicted_kl"]) <= 0.05 * (1 + 1e-5))
    assert np.all(np.array(history["solver_iterations"]) >= 1)


def test_a_line_search_and_a_plain_rule_log_what_belongs_to_them():
    search = optimizers.NaturalGradient(max_kl=0.01, line_search=optimizers.BacktrackingLineSearch())
    for optimizer, more in (
        (optimizers.NaturalGradient(), set()),
        (search, {"reduction_ratio", "backtracks", "line_search_kl"}),
    ):
        model = classifier()
        model.compile(optimizer, "binary_crossentropy")
        assert set(fit(model, 1).history) == LOGS | more | {"loss"}


@pytest.mark.parametrize("wrapped", [list, dict])
def test_targets_and_weights_of_the_one_output_may_be_a_list_or_a_dictionary(wrapped):
    x, y = points()
    weights = np.linspace(0.5, 2.0, len(x))
    histories = []
    for wrap in (lambda values: values, lambda values: [values] if wrapped is list else {"out": values}):
        inputs = tf.keras.Input(x.shape[1:])
        outputs = tf.keras.layers.Dense(1, "sigmoid", kernel_initializer="zeros", name="out")(inputs)
        model = NaturalGradientModel(inputs, outputs)
        model.compile(optimizers.NaturalGradient(0.1), wrap("binary_crossentropy"))
        fitted = model.fit(x, wrap(y), sample_weight=wrap(weights), batch_size=10, verbose=0, shuffle=False)
        histories.append(fitted.history["loss"])
    assert histories[0] == histories[1]


@pytest.mark.parametrize("loss", ["binary_crossentropy", "mse"])
def test_loss_metrics_and_predictions_are_keras_own(loss):
    """A training epoch logs the means over batches of what an ordinary model evaluates before each step."""
    model = classifier()
    model.compile(optimizers.NaturalGradient(1e-9), loss, metrics=["accuracy"], weighted_metrics=["mae"])
    plain = tf.keras.Model(model.inputs, model.outputs)
    plain.compile("sgd", loss, metrics=["accuracy"], weighted_metrics=["mae"])
    x, y = points()
    weights = np.linspace(0.0, 2.0, len(x))
    expected = plain.evaluate(x, y, sample_weight=weights, batch_size=10, verbose=0)
    np.testing.assert_allclose(model.evaluate(x, y, sample_weight=weights, batch_size=10, verbose=0), expected)
    predictions = model.predict(x, verbose=0)
    np.testing.assert_array_equal(predictions, plain.predict(x, verbose=0))
    assert 0 < predictions.min() < predictions.max() < 1
    history = model.fit(x, y, sample_weight=weights, batch_size=10, verbose=0, shuffle=False).history
    found = [history[name][0] for name in ("loss", "accuracy", "mae")]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_training_goes_on_after_loading_as_if_uninterrupted(tmp_path):
    model = compiled(jit_compile=True, steps_per_execution=2)
    fit(model)
    model.save(tmp_path / "model.keras")
    fit(model)
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is NaturalGradientModel
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert int(loaded.optimizer.iterations) == 4
    fit(loaded)
    assert_identical(model, loaded)


def test_another_process_loads_and_trains_on(script, tmp_path):
    model = compiled()
    fit(model)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "points.npz", *points())
    code = tmp_path / "train_on.py"
    code.write_text(
        "import ngrl.keras, sys\nimport numpy as np, tensorflow as tf\n"
        "model = tf.keras.models.load_model('model.keras')\n"
        "x, y = np.load('points.npz').values()\n"
        "model.fit(x, y, batch_size=10, epochs=2, shuffle=False, verbose=0)\n"
        "np.savez('state.npz', *model.get_weights(), *[v.numpy() for v in model.optimizer.variables])\n"
    )
    done = script(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    fit(model)
    for ours, theirs in zip(state(model), np.load(tmp_path / "state.npz").values(), strict=True):
        assert ours.tobytes() == theirs.tobytes()


def test_checkpoints_of_weights_carry_the_optimizer_too(tmp_path):
    model, other = compiled(), compiled()
    fit(model)
    model.save_weights(tmp_path / "checkpoint" / "model")
    other.load_weights(tmp_path / "checkpoint" / "model")
    assert_identical(model, other)


def test_saved_model_folders_keep_weights_and_settings(tmp_path):
    model = compiled()
    fit(model)
    model.save(tmp_path / "folder", save_format="tf")
    loaded = tf.keras.models.load_model(tmp_path / "folder")
    x, y = points()
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    before = loaded.evaluate(x, y, verbose=0)[0]
    assert "damping" in fit(loaded).history
    assert loaded.evaluate(x, y, verbose=0)[0] < before


@pytest.mark.parametrize(("name", "options"), [("model.h5", {}), ("model", {"save_format": "h5"})])
def test_hdf5_files_are_refused(name, options, tmp_path):
    with pytest.raises(ValueError, match=r"save to a path that ends in '\.keras'"):
        compiled().save(tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("where", "options"),
    [
        ("inputs", {"jit_compile": True}),
        ("inputs", {}),
        ("targets", {"run_eagerly": True}),
        ("weights", {"run_eagerly": True}),
    ],
)
def test_a_batch_that_is_not_finite_changes_nothing_and_is_counted(where, options):
    model = compiled(**options)
    x, y = points(10)
    weights = np.ones(10, np.float32)
    model.train_on_batch(x, y, weights)
    before = state(model)
    bad = {"inputs": x.copy(), "targets": y.copy(), "weights": weights.copy()}
    bad[where][3] = np.nan
    for count in (1, 2):
        logs = model.train_on_batch(*bad.values(), reset_metrics=False, return_dict=True)
        assert logs["skipped_updates"] == count
        for ours, theirs in zip(before, state(model), strict=True):
            assert ours.tobytes() == theirs.tobytes()
    for reset, count in ((False, 2), (True, 0)):
        logs = model.train_on_batch(x, y, weights, reset_metrics=reset, return_dict=True)
        assert logs["skipped_updates"] == count
    assert state(model)[0].tobytes() != before[0].tobytes()


def test_negative_sample_weights_are_an_error_in_graphs_and_skipped_under_xla():
    x, y = points(10)
    weights = np.linspace(-0.5, 1.0, 10).astype(np.float32)
    graph, xla = classifier(), classifier()
    graph.compile(optimizers.NaturalGradient(), "binary_crossentropy")
    xla.compile(optimizers.NaturalGradient(), "binary_crossentropy", jit_compile=True)
    before = xla.get_weights()
    with pytest.raises(tf.errors.InvalidArgumentError, match="sample weights of at least 0"):
        graph.train_on_batch(x, y, weights)
    assert xla.train_on_batch(x, y, weights, return_dict=True)["skipped_updates"] == 1
    for model in (graph, xla):
        for ours, theirs in zip(before, model.get_weights(), strict=True):
            assert ours.tobytes() == theirs.tobytes()


def test_other_optimizers_train_it_as_an_ordinary_model():
    model = classifier()
    plain = tf.keras.Model.from_config(model.get_config())
    plain.set_weights(model.get_weights())
    for each in (model, plain):
        each.compile("adam", "mae", metrics=["mse"])
    assert fit(model).history == fit(plain).history
    assert_identical(model, plain)


def test_several_outputs_are_left_to_other_optimizers():
    inputs = tf.keras.Input([3])
    model = NaturalGradientModel(inputs, [LAYERS.Dense(1)(inputs), LAYERS.Dense(2)(inputs)])
    model.compile("adam", ["mse", "mae"])
    x, y = points()
    model.fit(x, (y, x[:, :2]), verbose=0)
    with pytest.raises(ValueError, match="one output tensor"):
        model.compile(optimizers.NaturalGradient(), "mse")
    model.fit(x, (y, x[:, :2]), verbose=0)  # a refused compile leaves the former one in force


def test_compiling_anew_changes_the_way_of_training():
    model = compiled()
    assert "damping" in fit(model, 1).history
    model.compile("sgd", "mae")
    assert set(fit(model, 1).history) == {"loss"}


def test_an_ordinary_model_points_to_this_one():
    inputs = tf.keras.Input([3])
    model = tf.keras.Model(inputs, LAYERS.Dense(1)(inputs))
    model.compile(optimizers.NaturalGradient(), "mse")
    with pytest.raises(TypeError, match=r"make the model an ngrl\.keras\.NaturalGradientModel"):
        model.fit(*points(), verbose=0)


def test_several_inputs_are_taken_by_name_or_in_order():
    tf.keras.utils.set_random_seed(0)
    a, b = tf.keras.Input([2], name="a"), tf.keras.Input([1], name="b", dtype="int32")
    hidden = LAYERS.Concatenate()([LAYERS.Dense(3, "tanh")(a), LAYERS.Flatten()(LAYERS.Embedding(4, 2)(b))])
    x, y = points()
    numbers = np.arange(len(x))[:, None] % 4
    results = []
    for data in ({"a": x[:, :2], "b": numbers}, [x[:, :2], numbers]):
        tf.keras.utils.set_random_seed(0)
        model = NaturalGradientModel([a, b], LAYERS.Dense(1, kernel_initializer="ones")(hidden))
        start = model.get_weights()
        model.compile(optimizers.NaturalGradient(damping=0.1), "mse")
        losses = model.fit(data, y, batch_size=len(x), epochs=8, shuffle=False, verbose=0).history["loss"]
        assert losses[-1] < 0.7 * losses[0]
        results.append(model.get_weights())
        model.set_weights(start)
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_single_feature_may_come_without_its_axis():
    x, _ = points()
    inputs = tf.keras.Input([1])
    model = NaturalGradientModel(inputs, LAYERS.Dense(1)(inputs))
    model.compile(optimizers.NaturalGradient(damping=1e-4), "mse")
    model.fit(x[:, 0], 3 * x[:, 0] + 1, epochs=4, verbose=0)
    np.testing.assert_allclose([weight.item() for weight in model.get_weights()], [3, 1], rtol=1e-3)


@pytest.mark.parametrize("solver", [None, solvers.ConjugateGradient()], ids=["dual", "matrix-free"])
def test_convolutions_and_layer_normalisation_train(solver):
    tf.keras.utils.set_random_seed(0)
    inputs = tf.keras.Input([4, 4, 1])
    hidden = LAYERS.Flatten()(LAYERS.Conv2D(2, 3, activation="tanh")(inputs))
    model = NaturalGradientModel(inputs, LAYERS.Dense(3, "softmax")(LAYERS.LayerNormalization()(hidden)))
    optimizer = optimizers.NaturalGradient(solver=solver, damping=0.01, max_kl=0.1)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(20, 4, 4, 1)), draw.integers(0, 3, 20)
    losses = model.fit(x, y, batch_size=20, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < 0.6 * losses[0]


def test_learning_rate_callbacks_set_the_step():
    """With λ far above F a step is α g/λ, and g hardly changes."""
    model = classifier()
    model.compile(optimizers.NaturalGradient(damping=1e5), "binary_crossentropy")
    callback = tf.keras.callbacks.LearningRateScheduler(lambda epoch: 0.25**epoch)
    norms = model.fit(*points(), batch_size=20, epochs=3, verbose=0, callbacks=[callback]).history["step_norm"]
    np.testing.assert_allclose(norms, [norms[0], norms[0] / 4, norms[0] / 16], rtol=1e-3)


@pytest.mark.parametrize("metrics", [None, ["mae"]])
def test_train_on_batch_returns_the_numbers_that_metrics_names_names(metrics):
    (x, y), other = points(40), classifier()
    values = {}
    for optimizer in (optimizers.NaturalGradient(damping=1.0), tf.keras.optimizers.SGD(0.0)):
        model = classifier()
        model.set_weights(other.get_weights())
        model.compile(optimizer, "binary_crossentropy", metrics=metrics)
        values[type(optimizer)] = model.train_on_batch(x, y)
        assert model.metrics_names == ["loss", *(metrics or [])]
    natural, stock = values.values()
    assert np.shape(natural) == np.shape(stock)
    np.testing.assert_allclose(natural, stock, rtol=1e-5)
    logs = model.train_on_batch(x, y, return_dict=True)
    assert list(logs) == model.metrics_names


class _Watched(tf.keras.layers.Layer):
    """Counts the calls of the model, by a metric of its own."""

    def call(self, inputs):
        self.add_metric(tf.reduce_mean(inputs), name="inner")
        return tf.tanh(inputs)


@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.parametrize("line_search", [None, optimizers.BacktrackingLineSearch()])
def test_metrics_of_layers_count_each_batch_once_as_stock_keras_does(line_search, run_eagerly):
    x, y = points(40)

    def build(optimizer):
        tf.keras.utils.set_random_seed(0)
        inputs = tf.keras.Input([3])
        hidden = tf.keras.layers.Dense(4)(inputs)
        model = NaturalGradientModel(inputs, tf.keras.layers.Dense(1)(_Watched()(hidden)))
        model.add_metric(tf.reduce_mean(tf.abs(hidden)), name="outer")
        model.compile(optimizer, "mse", run_eagerly=run_eagerly)
        return model

    natural = build(optimizers.NaturalGradient(damping=1.0, max_kl=0.1, line_search=line_search))
    stock = build(tf.keras.optimizers.SGD(0.0))
    for step in range(2):  # the second one begins where the first one ended
        stock.set_weights(natural.get_weights())
        expected = stock.train_on_batch(x, y, reset_metrics=step == 0)
        np.testing.assert_allclose(natural.train_on_batch(x, y, reset_metrics=step == 0), expected, rtol=1e-5)
        assert natural.metrics_names == stock.metrics_names == ["loss", "inner", "outer"]
        counts = [float(metric.count) for metric in natural.metrics if metric.name in ("inner", "outer")]
        assert counts == [step + 1.0] * 2
    assert natural.evaluate(x, y, verbose=0, return_dict=True).keys() == {"loss", "inner", "outer"}
    assert len(natural.test_on_batch(x, y)) == 3
    history = natural.fit(x, y, batch_size=20, epochs=1, verbose=0).history
    assert {"loss", "inner", "outer", "predicted_kl"} <= history.keys()


def test_sequences_of_unknown_length_train_as_those_of_a_known_one():
    """A Dense layer has no rule there: the vectorised Jacobian takes it."""
    random = np.random.default_rng(0)
    inputs = tf.constant(random.normal(size=(8, 6, 4)), tf.float32)
    targets = tf.constant(random.normal(size=(8, 1)), tf.float32)
    states = []
    for length in (6, None):
        tf.keras.utils.set_random_seed(1)
        shown = tf.keras.Input([length, 4])
        hidden = tf.keras.layers.GlobalAveragePooling1D()(tf.keras.layers.Dense(5, "tanh")(shown))
        model = NaturalGradientModel(shown, tf.keras.layers.Dense(1)(hidden))
        model.compile(optimizers.NaturalGradient(0.1), "mse")
        signature = tf.TensorSpec([None, length, 4]), tf.TensorSpec([None, 1])
        batches = tf.data.Dataset.from_generator(lambda: iter([(inputs, targets)] * 2), output_signature=signature)
        model.fit(batches, verbose=0)
        states.append(model.get_weights())
    for known, unknown in zip(*states, strict=True):
        np.testing.assert_allclose(unknown, known, rtol=1e-4, atol=1e-6)


def test_a_flatten_that_changes_the_order_trains_the_model_that_predicts():
    inputs = tf.keras.Input([2, 3])
    flat = LAYERS.Flatten(data_format="channels_first")(inputs)
    model = NaturalGradientModel(inputs, LAYERS.Dense(1)(flat))
    model.compile(optimizers.NaturalGradient(damping=1e-6), "mse")
    x = tf.random.stateless_normal([64, 2, 3], (1, 2))
    y = tf.reduce_sum(x * tf.constant([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), [1, 2])[:, tf.newaxis]
    model.fit(x, y, batch_size=64, epochs=1, verbose=0)
    assert model.evaluate(x, y, verbose=0) < 1e-6


class Tripled(NaturalGradientModel):
    def call(self, inputs, training=None, mask=None):
        return 3 * super().call(inputs, training=training, mask=mask)


def test_a_model_with_a_call_of_its_own_trains_what_it_predicts():
    inputs = tf.keras.Input([3])
    model = Tripled(inputs, LAYERS.Dense(1)(inputs))
    model.compile(optimizers.NaturalGradient(damping=1e-6), "mse")
    x = tf.random.stateless_normal([64, 3], (1, 2))
    y = tf.reduce_sum(x, 1, keepdims=True)
    model.fit(x, y, batch_size=64, epochs=1, verbose=0)
    assert model.evaluate(x, y, verbose=0) < 1e-6


def test_a_model_with_a_call_of_its_own_is_refused_where_its_activation_would_be_left_out():
    inputs = tf.keras.Input([3])
    model = Tripled(inputs, LAYERS.Dense(1, "sigmoid")(inputs))
    with pytest.raises(ValueError, match="Tripled has a call of its own"):
        model.compile(optimizers.NaturalGradient(), "binary_crossentropy")
