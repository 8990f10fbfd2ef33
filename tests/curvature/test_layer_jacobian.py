"""What has no layer rule: single layers, variables that no layer uses, mixed examples; rules from outside."""

import logging

import numpy as np
import pytest
import tensorflow as tf

import ngrl.curvature.jacobian
import ngrl.curvature.layer_jacobian
import ngrl.curvature.row_blocks
from ngrl.curvature import GaussNewton, LayeredNetwork, SquaredError
from ngrl.curvature.layer_jacobian import LayerJacobian
from ngrl.curvature.rules import layer_rule, registry
from ngrl.curvature.uses import ScaleShift

B = 4
KERAS = tf.keras.layers
CHOSEN = SquaredError(chosen=[0, 1, 1, 0])


class Powers(KERAS.Layer):
    """A layer with weights that enter it as no rule says: |x|^w, and a Dense layer inside."""

    def build(self, shape):
        self.exponents = self.add_weight("exponents", [shape[-1]], initializer="ones")
        self.inner = KERAS.Dense(3, dtype=self.dtype)

    def call(self, inputs):
        return self.inner(tf.abs(inputs) ** self.exponents) + tf.reduce_sum(self.exponents)


def assert_rows(forward, variables, x, batch_jacobian, run, rng, atol=1e-10):
    jacobian = batch_jacobian(forward, variables, x)
    a = jacobian.reshape(-1, jacobian.shape[-1]) / np.sqrt(B)
    v, c = rng.normal(size=a.shape[1]), rng.normal(size=len(a))

    def products(x):
        operator = GaussNewton(forward, variables, x)
        return operator.gram(), operator.row_matvec(v), operator.row_rmatvec(c), operator.row_matrix()

    for value, expected in zip(run(products)(x), (a @ a.T, a @ v, a.T @ c, a), strict=True):
        np.testing.assert_allclose(value, expected, atol=atol, rtol=1e-8)


def image_network(*layers):
    inputs = KERAS.Input([6, 6, 2], dtype="float64")
    hidden = KERAS.Conv2D(3, 3, activation="tanh", dtype="float64")(inputs)
    for layer in layers:
        hidden = layer(hidden)
    outputs = KERAS.Dense(2, dtype="float64")(KERAS.Flatten(dtype="float64")(hidden))
    return tf.keras.Model(inputs, outputs), tf.constant(np.random.default_rng(5).normal(size=[B, 6, 6, 2]))


def test_a_layer_without_a_rule_is_differentiated_alone(run, batch_jacobian, rng, caplog):
    model, x = image_network(Powers(dtype="float64", name="odd"), Powers(dtype="float64", name="odder"))
    with caplog.at_level(logging.WARNING, logger="ngrl"):
        assert_rows(model, model.trainable_variables, x, batch_jacobian, run, rng)
        operator = GaussNewton(model, model.trainable_variables, x)

    assert operator.unruled == ("layer 'odd' (Powers)", "layer 'odder' (Powers)")
    told = [record.message for record in caplog.records if "layer 'odd' (Powers)" in record.message]
    assert len(told) <= 1  # once a process


UNRULED = {
    "overridden": lambda: type("Own", (KERAS.Dense,), {"call": lambda self, x: x @ self.kernel**3})(3, dtype="float64"),
    "time distributed": lambda: KERAS.TimeDistributed(KERAS.Conv1D(2, 2, dtype="float64"), dtype="float64"),
    "recurrence on rows": lambda: KERAS.TimeDistributed(KERAS.GRU(2, dtype="float64"), dtype="float64"),
}


@pytest.mark.parametrize("name", list(UNRULED))
def test_what_a_rule_does_not_cover_is_differentiated_alone(name, batch_jacobian, rng):
    model, x = image_network(UNRULED[name]())

    assert_rows(model, model.trainable_variables, x, batch_jacobian, tf.function, rng)
    (unruled,) = GaussNewton(model, model.trainable_variables, x).unruled
    assert unruled.startswith("layer ")


def test_masked_recurrence_is_differentiated_alone(batch_jacobian, rng):
    inputs = KERAS.Input([5, 2], dtype="float64")
    hidden = KERAS.GRU(3, dtype="float64")(KERAS.Masking(dtype="float64")(inputs))
    model = tf.keras.Model(inputs, KERAS.Dense(2, dtype="float64")(hidden))
    x = rng.normal(size=[B, 5, 2])
    x[1, 3:] = x[2, :2] = 0.0

    assert_rows(model, model.trainable_variables, tf.constant(x), batch_jacobian, tf.function, rng)
    assert "GRU" in GaussNewton(model, model.trainable_variables, tf.constant(x)).unruled[0]


def test_variables_outside_of_layers_and_weights_used_behind_a_layers_back(run, batch_jacobian, rng):
    model, x = image_network(KERAS.LayerNormalization(dtype="float64"))
    free = tf.Variable(rng.normal(size=[2]), name="log_std")
    last = model.layers[-1]

    def forward(inputs):
        # `free` shifts the outputs, and the last layer's kernel is used once more.
        outputs = model(inputs)
        return outputs * tf.exp(free) + tf.tanh(outputs @ last.kernel[:2])

    variables = [free, *model.trainable_variables]
    network = LayeredNetwork(forward, model)
    assert_rows(network, variables, x, batch_jacobian, run, rng)
    assert set(GaussNewton(network, variables, x).unruled) == {free.name, last.kernel.name}


def many_positions():
    """Layers whose rows are formed as they are: a kernel has fewer numbers than the Gram matrix of its positions."""
    inputs = KERAS.Input([9, 9], dtype="int32")
    hidden = KERAS.Embedding(3, 2, dtype="float64")(inputs)
    hidden = KERAS.Conv2D(3, 3, activation="tanh", padding="same", dtype="float64")(hidden)
    hidden = KERAS.Conv2DTranspose(2, 2, dtype="float64")(hidden)
    outputs = KERAS.Dense(2, dtype="float64")(KERAS.Flatten(dtype="float64")(hidden))
    return tf.keras.Model(inputs, outputs), tf.constant(np.random.default_rng(6).integers(0, 3, size=[B, 9, 9]))


@pytest.mark.parametrize("chunk_size", [1, 4, 6])
def test_rows_of_layers_in_chunks(chunk_size, run, batch_jacobian, rng):
    model, x = many_positions()
    variables = model.trainable_variables
    jacobian = batch_jacobian(model, variables, x)
    a = jacobian.reshape(-1, jacobian.shape[-1]) / np.sqrt(B)
    v, c = rng.normal(size=a.shape[1]), rng.normal(size=len(a))

    def products(x):
        operator = GaussNewton(model, variables, x, chunk_size=chunk_size)
        rows = operator.row_blocks()
        by_block = (tf.add_n(rows.grams()), tf.add_n(rows.matvecs(tf.constant(v))))
        return operator.gram(), operator.diag_part(), operator.row_matvec(v), operator.row_rmatvec(c), *by_block

    expected = (a @ a.T, np.sum(a**2, axis=0), a @ v, a.T @ c, a @ a.T, a @ v)
    for value, wanted in zip(run(products)(x), expected, strict=True):
        np.testing.assert_allclose(value, wanted, atol=1e-11, rtol=1e-9)


def test_rows_of_layers_that_would_not_fit_are_formed_in_chunks(monkeypatch):
    model, x = many_positions()
    variables = model.trainable_variables
    conv = model.layers[2].kernel
    rows = 2 * B

    def largest(function):
        sizes = [
            output.shape.num_elements() or 0
            for graph in (function.graph, *function.graph._functions.values())
            for operation in getattr(graph, "graph", graph).get_operations()
            for output in operation.outputs
            if output.shape.rank == 2 and output.shape[1] == conv.shape.num_elements()
        ]
        return max(sizes, default=0)

    gram = tf.function(lambda x: GaussNewton(model, variables, x).gram())
    assert largest(gram.get_concrete_function(x)) == rows * conv.shape.num_elements()

    row = conv.shape.num_elements() * 8
    monkeypatch.setattr(ngrl.curvature.layer_jacobian, "MATRIX_BYTES", rows * row - 1)
    monkeypatch.setattr(ngrl.curvature.jacobian, "_CHUNK_BYTES", 2 * row)
    chunked = tf.function(lambda x: GaussNewton(model, variables, x).gram())
    assert largest(chunked.get_concrete_function(x)) == 2 * conv.shape.num_elements()
    np.testing.assert_allclose(chunked(x), gram(x), rtol=1e-10)


def test_steps_of_time_folded_into_the_batch_are_not_taken_for_examples(batch_jacobian, rng):
    inner, last = KERAS.Dense(3, "tanh", dtype="float64"), KERAS.Dense(2, dtype="float64")

    class Folded(tf.keras.Model):
        def __init__(self):
            super().__init__(dtype="float64")
            self.inner, self.last = inner, last

        def call(self, inputs):
            hidden = self.inner(tf.reshape(inputs, [-1, 2]))
            return self.last(tf.reshape(hidden, [-1, 15]))

    model, x = Folded(), tf.constant(rng.normal(size=[B, 5, 2]))
    model(x)

    assert_rows(model, model.trainable_variables, x, batch_jacobian, tf.function, rng)
    assert GaussNewton(model, model.trainable_variables, x).unruled == (inner.kernel.name, inner.bias.name)
    unknown = tf.function(
        lambda x: GaussNewton(model, model.trainable_variables, x).gram(),
        input_signature=[tf.TensorSpec([None, 5, 2], tf.float64)],
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="another number of examples than the network"):
        unknown(x)
    sums = [op for op in unknown.get_concrete_function().graph.get_operations() if op.type == "AddN"]
    assert sums
    assert all(waits_for(op, "Assert") for op in sums)  # none may fail first, in words of its own


def waits_for(op, kind):
    """Whether an operation runs after one of that kind, as far as its graph says."""
    seen, ahead = set(), [op]
    while ahead:
        before = ahead.pop()
        if before.type == kind:
            return True
        if before not in seen:
            seen.add(before)
            ahead += [*before.control_inputs, *(tensor.op for tensor in before.inputs)]
    return False


@pytest.mark.parametrize("kind", [KERAS.SimpleRNN, KERAS.LSTM, KERAS.GRU])
def test_steps_of_time_before_the_examples_are_not_taken_for_examples(kind, batch_jacobian, rng):
    """As many steps as examples: the sizes don't tell them apart."""
    layer, last = kind(3, time_major=True, dtype="float64"), KERAS.Dense(2, dtype="float64")
    x = tf.constant(rng.normal(size=[B, B, 2]))
    network = LayeredNetwork(lambda x: last(layer(tf.transpose(x, [1, 0, 2]))), layer, last)
    network(x)

    variables = [*layer.trainable_variables, *last.trainable_variables]
    assert_rows(network, variables, x, batch_jacobian, tf.function, rng)
    assert set(GaussNewton(network, variables, x).unruled) == {weight.name for weight in layer.trainable_variables}


def test_layers_called_in_a_function_of_their_own_go_the_general_way(batch_jacobian, rng):
    inner, last = KERAS.Dense(3, "tanh", dtype="float64"), KERAS.Dense(2, dtype="float64")

    class Compiled(tf.keras.Model):
        def __init__(self):
            super().__init__(dtype="float64")
            self.inner, self.last = inner, last
            self.traced = tf.function(lambda inputs: self.inner(inputs))

        def call(self, inputs):
            return self.last(self.traced(inputs))

    inner.build([None, 2]), last.build([None, 3])
    model, x = Compiled(), tf.constant(rng.normal(size=[B, 2]))
    operator = GaussNewton(LayeredNetwork(model, model), [inner.kernel, last.kernel, last.bias], x)  # traced here
    assert operator.unruled == (inner.kernel.name,)
    for _ in range(2):
        assert_rows(model, model.trainable_variables, x, batch_jacobian, tf.function, rng)


def test_layer_of_mixed_precision_is_named_with_its_dtypes(rng):
    model = tf.keras.Sequential([KERAS.Dense(3, dtype="mixed_float16", name="half"), KERAS.Dense(2, dtype="float32")])
    x = tf.constant(rng.normal(size=[B, 4]), tf.float32)
    model(x)
    operator = GaussNewton(LayeredNetwork(model, model), model.trainable_variables, x)
    with pytest.raises(ValueError, match=r"layer 'half' \(Dense\) computes in float16 with float32 variables"):
        operator.gram()


def test_batch_normalisation_in_training_has_products_and_no_rows(batch_jacobian, rng):
    norm, dense = KERAS.BatchNormalization(dtype="float64", name="norm"), KERAS.Dense(2, dtype="float64")
    x = tf.constant(rng.normal(size=[B, 3]))
    network = LayeredNetwork(lambda inputs: dense(norm(inputs, training=True)), norm, dense)
    network(x)
    variables = [norm.gamma, norm.beta, dense.kernel]
    a = batch_jacobian(network, variables, x).reshape(B * 2, -1) / np.sqrt(B)
    v = rng.normal(size=a.shape[1])
    operator = GaussNewton(network, variables, x)

    np.testing.assert_allclose(operator.matvec(v), a.T @ (a @ v), rtol=1e-9)
    GaussNewton(network, variables, x, CHOSEN).matvec(v)
    with pytest.raises(ValueError, match=r"'norm' .*over the batch.*LayerNormalization") as caught:
        operator.gram()
    assert "\n" not in str(caught.value)


def test_a_layer_that_can_not_be_differentiated_alone_is_named():
    class Wide(KERAS.Layer):
        """Takes whole batches of four alone."""

        def build(self, shape):
            self.weight = self.add_weight("weight", [3])

        def call(self, inputs):
            return tf.ensure_shape(inputs, [B, None, None, 3]) * self.weight

    model, x = image_network(Wide(dtype="float64", name="wide"))
    with pytest.raises(ValueError, match=r"layer 'wide' .*no rule.*register a rule") as caught:
        GaussNewton(model, model.trainable_variables, x).gram()
    assert "\n" not in str(caught.value)


def test_a_rule_from_outside_serves_its_layer(batch_jacobian, rng, monkeypatch):
    monkeypatch.setattr(registry, "_RULES", dict(registry._RULES))

    class Gain(KERAS.Layer):
        def build(self, shape):
            self.gain = self.add_weight("gain", [shape[-1]], initializer="ones")

        def call(self, inputs):
            return inputs * self.gain

    @layer_rule(Gain)
    def gain(layer, record, inputs):
        return record(ScaleShift(layer.gain, None, inputs))

    model, x = image_network(Gain(dtype="float64"))
    assert GaussNewton(model, model.trainable_variables, x).unruled == ()
    assert_rows(model, model.trainable_variables, x, batch_jacobian, tf.function, rng)


def test_the_network_is_run_once_and_left_as_it_was(rng):
    model, x = image_network()
    calls = []
    network = LayeredNetwork(lambda inputs: calls.append(1) or model(inputs), model)
    operator = GaussNewton(network, model.trainable_variables, x, CHOSEN)
    operator.gram()
    operator.row_rmatvec(tf.ones([B], tf.float64))
    operator.matvec(tf.ones([operator.shape[0]], tf.float64))

    assert calls == [1]
    assert isinstance(operator._jacobian, LayerJacobian)
    assert not any("call" in vars(layer) for layer in model.layers)

    def failing(inputs):
        model(inputs)
        raise RuntimeError("no outputs")

    with pytest.raises(RuntimeError, match="no outputs"):
        GaussNewton(LayeredNetwork(failing, model), model.trainable_variables, x)
    assert not any("call" in vars(layer) for layer in model.layers)


def test_rows_made_in_a_loop_of_a_compiled_function(rng, batch_jacobian):
    model, x = image_network()
    a = batch_jacobian(model, model.trainable_variables, x).reshape(B * 2, -1) / np.sqrt(B)
    c = rng.normal(size=B * 2)

    @tf.function(jit_compile=True)
    def power(c):
        operator = GaussNewton(model, model.trainable_variables, x)
        step = lambda i, c: (i + 1, operator.row_matvec(operator.row_rmatvec(c)))  # noqa: E731
        return tf.while_loop(lambda i, _: i < 2, step, (0, c))[1]

    np.testing.assert_allclose(power(tf.constant(c)), a @ (a.T @ (a @ (a.T @ c))), rtol=1e-8)


@pytest.mark.parametrize("compiled", [False, True])
def test_rows_of_large_kernels_are_blocks_of_their_own_and_the_others_one(rng, batch_jacobian, monkeypatch, compiled):
    monkeypatch.setattr(ngrl.curvature.row_blocks, "SMALL", 20)
    inputs = KERAS.Input([5, 2], dtype="float64")
    outputs = KERAS.Dense(2, dtype="float64")(
        KERAS.LayerNormalization(dtype="float64")(KERAS.GRU(3, dtype="float64")(inputs))
    )
    model = tf.keras.Model(inputs, outputs)
    x = tf.constant(rng.normal(size=[B, 5, 2]))

    jacobian = GaussNewton(model, model.trainable_variables, x)._jacobian
    explicit = jacobian.rows(tf.ones([B, 1, 2], tf.float64)).joined
    # Of kernel [2, 9], recurrent kernel [3, 9], biases [2, 9], scale and offset [3] the second alone is large.
    assert [block.slots for block in explicit] == [(1,), (0, 2, 3, 4)]
    run = tf.function(jit_compile=True) if compiled else lambda function: function
    assert_rows(model, model.trainable_variables, x, batch_jacobian, run, rng)


def test_variables_that_nothing_uses_have_a_jacobian_of_zeros(run):
    model = tf.keras.Sequential([tf.keras.Input([3]), KERAS.Dense(2)])
    unused = [tf.Variable(tf.ones([2, 2])), tf.Variable(tf.ones([3]))]

    def everything(x):
        operator = GaussNewton(LayeredNetwork(model, model), unused, x)
        v, c = tf.ones([7]), tf.ones([10])
        products = [operator.row_matvec(v), operator.row_rmatvec(c), operator.matvec(v), operator.diag_part()]
        return [operator.gram(), operator.row_matrix(), *products, *operator.row_blocks().grams()]

    found = run(everything)(tf.ones([5, 3]))
    assert [value.shape for value in found[:6]] == [(10, 10), (10, 7), (10,), (7,), (7,), (7,)]
    assert not any(np.any(value) for value in found)
