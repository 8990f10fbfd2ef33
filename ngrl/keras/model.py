"""A functional Keras model that trains with the natural gradient in `fit`."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ngrl.curvature import flatten
from ngrl.keras import losses, network
from ngrl.optimizers import NaturalGradient, NaturalGradientStats, apply_penalised_gradient


@tf.keras.utils.register_keras_serializable(package="ngrl")
class NaturalGradientModel(tf.keras.Model):
    """A functional `tf.keras.Model` whose `fit` takes natural-gradient steps.

        import ngrl
        import tensorflow as tf
        from ngrl.keras import NaturalGradientModel
        from ngrl.optimizers import LevenbergMarquardt, NaturalGradient

        inputs = tf.keras.Input([2])
        hidden = tf.keras.layers.Dense(32, "tanh")(inputs)
        model = NaturalGradientModel(inputs, tf.keras.layers.Dense(1)(hidden))
        model.compile(optimizer=NaturalGradient(damping=LevenbergMarquardt(initial=1.0)), loss="mse")
        model.fit(x, y, batch_size=256, epochs=100)

    The curvature F is the generalised Gauss-Newton matrix of the loss just as Keras reduces it, sample weights and loss
    weight included; it follows from the loss:

    | loss | F = (1/B) Σ_i w_i J_iᵀ H_i J_i, J_i the Jacobian of the i-th example's outputs [K, P] |
    | --- | --- |
    | mse | H = (2/K) I |
    | binary_crossentropy | H = (1/K) diag(p (1 − p)), J of the logits |
    | (sparse_)categorical_crossentropy | H = diag(p) − p pᵀ, J of the logits: F is the Fisher information |

    Where a classifier is sure of itself the crossentropies have next to no curvature, and a step may go far: give the
    optimizer a `max_kl` and a `BacktrackingLineSearch`.

    The losses may be names, functions or objects of `tf.keras.losses`, with or without `from_logits` and
    `label_smoothing`, averaged over the batch or summed. Predictions may be logits or, behind a sigmoid or softmax as
    the model's last activation, probabilities. The model is linearised layer by layer; layers without a rule
    in `ngrl.curvature.rules` are slower. With a NaturalGradient optimizer there is one output [B, K], and no layer may
    be random in training or normalise over the batch.

    Regularisers and `add_loss` count in the loss, its gradient and the reduction ratio, but not in F. Their gradient is
    no function of the outputs: the `Dual` solver then works in its form for any right-hand side, and needs λ > 0.

    Compiled with any other Keras optimizer it is an ordinary model.

    `model.save("name.keras")` keeps everything, optimizer state included, and `tf.keras.models.load_model` needs no
    `custom_objects` once `ngrl.keras` is imported; training goes on as if it had not been interrupted. A SavedModel
    folder keeps weights, loss and the optimizer's settings, but as for every Keras optimizer not its state. HDF5 files
    are refused.

    Metrics of layers (`add_metric`) count each step's batch once, with the weights before the step.

    `fit`'s logs, and so `History` and the TensorBoard callback, gain these numbers of the latest step: `damping`,
    `predicted_kl` (½ Δθᵀ F Δθ), `gradient_norm`, `step_norm`, `solver_iterations`, `solver_residual`; `reduction_ratio`
    with a damping rule that needs it or a line search; `backtracks` and `line_search_kl` with a line search. Besides,
    `skipped_updates` counts the epoch's steps that were skipped, weights untouched, because a number wasn't finite.
    """

    _natural: "_NaturalTraining | None" = None  # set by `compile`; loading may go around `__init__`

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, trainable: bool = True) -> None:
        """Make a model of symbolic tensors, as `tf.keras.Model(inputs, outputs)`.

        Args:
          inputs: `tf.keras.Input` or a nest of them.
          outputs: What layers made of the inputs.
          name: The model's name.
          trainable: Whether its variables are trained.
        """
        super().__init__(inputs=inputs, outputs=outputs, name=name, trainable=trainable)

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        metrics: Any = None,
        loss_weights: Any = None,
        **kwargs: Any,
    ) -> None:
        """Configure training, as `tf.keras.Model.compile`.

        Args:
          optimizer: `ngrl.optimizers.NaturalGradient`, or any Keras optimizer, which trains as usual.
          loss: With NaturalGradient one of the losses above.
          metrics: As Keras'.
          loss_weights: As Keras'.
          **kwargs: Keras' other arguments: `weighted_metrics`, `run_eagerly`, `steps_per_execution`, `jit_compile`, ...

        Raises:
          ValueError: NaturalGradient can't train this model with this loss; the message says what to change.
        """
        if isinstance(optimizer, (str, dict)):
            optimizer = tf.keras.optimizers.get(optimizer)
        natural = None
        if isinstance(getattr(optimizer, "inner_optimizer", optimizer), NaturalGradient):
            natural = _NaturalTraining(self, optimizer, loss, loss_weights)
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, loss_weights=loss_weights, **kwargs)
        self._natural = natural

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile with what `get_compile_config` returned; Keras calls this when it loads a model."""
        self.compile(**tf.keras.saving.deserialize_keras_object(config))
        if isinstance(self.optimizer, tf.keras.optimizers.Optimizer):
            self.optimizer.build(self.trainable_variables)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One step on a batch.

        Args:
          data: (x, y) or (x, y, sample_weight), as Keras hands them over.

        Returns:
          Keras' metrics and the numbers of the step, named as in the class's description.

        Raises:
          ValueError: Targets or sample weights are missing or of a wrong shape.
        """
        if self._natural is None:
            return super().train_step(data)
        x, y, sample_weight = tf.keras.utils.unpack_x_y_sample_weight(data)
        if y is None:
            raise ValueError("the loss needs targets: call fit(x, y) or give a dataset of (x, y) pairs")
        predictions, logs = self._natural.step(self, x, _single(y), _single(sample_weight))
        return {**logs, **self.compute_metrics(x, y, predictions, sample_weight)}

    def train_on_batch(self, *args: Any, return_dict: bool = False, **kwargs: Any) -> Any:
        """One step on a batch, as `tf.keras.Model.train_on_batch`.

        Args:
          *args: As Keras'.
          return_dict: Whether to return a dictionary, which also holds the numbers of the step.
          **kwargs: As Keras'.

        Returns:
          The dictionary, or the numbers that `metrics_names` names, in its order; the number itself if it is one.
        """
        logs = super().train_on_batch(*args, return_dict=True, **kwargs)
        if return_dict:
            return logs
        # Keras would put those of the step behind them, without names.
        named = [logs[name] for name in self.metrics_names if name in logs]
        return named[0] if len(named) == 1 else named

    def save(self, filepath: Any, overwrite: bool = True, save_format: str | None = None, **kwargs: Any) -> None:
        """Save, as `tf.keras.Model.save`.

        Args:
          filepath: A path that ends in ".keras", or a folder for a SavedModel.
          overwrite: Whether to replace what is there.
          save_format: None, "keras" or "tf".
          **kwargs: Keras' other arguments.

        Raises:
          ValueError: The format is HDF5, in which Keras can't describe the model and its optimizer.
        """
        if save_format in ("h5", "hdf5") or str(filepath).endswith((".h5", ".hdf5")):
            raise ValueError(
                "Keras' HDF5 files can't describe a NaturalGradientModel: save to a path that ends in '.keras', or the "
                "weights alone with save_weights"
            )
        super().save(filepath, overwrite=overwrite, save_format=save_format, **kwargs)

    def reset_metrics(self) -> None:
        """Reset metrics, as `tf.keras.Model.reset_metrics`, and the count of skipped steps."""
        super().reset_metrics()
        if self._natural is not None:
            self._natural.skipped.assign(0.0)


def _single(values: Any) -> Any:
    """The one tensor of a list or a dict, as which Keras takes what belongs to a model's one output; else as it is."""
    leaves = tf.nest.flatten(values)
    return leaves[0] if len(leaves) == 1 else values


class _NaturalTraining:
    """What `compile` works out for natural-gradient steps. No Keras object: the model doesn't track or save it."""

    def __init__(self, model: tf.keras.Model, optimizer: Any, loss: Any, loss_weights: Any) -> None:
        if not isinstance(optimizer, NaturalGradient):
            raise ValueError("NaturalGradient can't be wrapped for loss scaling: train in float32 or float64")
        if model.distribute_strategy.num_replicas_in_sync > 1:
            raise ValueError("NaturalGradient solves for the whole batch at once: train without replicas")
        self.objective = losses.from_keras(loss, loss_weights)
        self.network = network.build(model, self.objective)
        self.optimizer = optimizer
        optimizer.build(list(self.network.variables))
        self.skipped = tf.Variable(0.0, trainable=False, name="skipped_updates")

    def step(
        self, model: tf.keras.Model, x: Any, y: tf.Tensor, sample_weight: tf.Tensor | None
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The model's predictions before the step, and what the step did."""
        variables = self.network.variables
        num_outputs = model.output_shape[-1]
        targets = self.objective.loss.targets(y, num_outputs, variables[0].dtype)
        weights = self.objective.weights(sample_weight, targets)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            penalty = _penalty(model, x)
        # The one call of the model that the layers' own metrics count.
        counted = [(variable, tf.identity(variable)) for variable in _metric_variables(model)]
        operator = self.network.linearise(x, self.objective.metric(targets, weights))
        old = operator.outputs
        loss = self.objective.value(targets, weights, old)
        predictions = self.network.activation(old)
        # Keras' own value, for the logs: from probabilities it is clipped, which the loss of the step is not.
        model.compute_loss(x, y, predictions, sample_weight)

        def loss_fn() -> tf.Tensor:
            value = self.objective.value(targets, weights, self.network.outputs(x))
            return value if penalty is None else value + tf.cast(_penalty(model, x), value.dtype)

        def divergence_fn() -> tf.Tensor:
            return self.objective.divergence(targets, weights, old, self.network.outputs(x))

        output_gradient = self.objective.gradient(targets, weights, old)
        functions: dict[str, Callable[[], tf.Tensor]] = {"loss_fn": loss_fn, "divergence_fn": divergence_fn}
        if penalty is None:
            stats = self.optimizer.apply_output_gradient(output_gradient, operator, loss, **functions)
        else:
            pull = tape.gradient(penalty, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            loss += tf.cast(penalty, loss.dtype)
            stats = apply_penalised_gradient(
                self.optimizer, output_gradient, operator, flatten(pull), loss, **functions
            )
        for variable, value in counted:
            variable.assign(value)
        self.skipped.assign_add(stats.skipped)
        return predictions, self._logs(stats)

    def _logs(self, stats: NaturalGradientStats) -> dict[str, tf.Tensor]:
        names = ["damping", "predicted_kl", "gradient_norm", "step_norm", "solver_iterations", "solver_residual"]
        searches = self.optimizer.line_search is not None
        if searches or self.optimizer.damping_rule.needs_reduction_ratio:
            names.append("reduction_ratio")
        if searches:
            names += ["backtracks", "line_search_kl"]
        return {**{name: getattr(stats, name) for name in names}, "skipped_updates": tf.identity(self.skipped)}


def _metric_variables(model: tf.keras.Model) -> list[tf.Variable]:
    """Those of the metrics that layers update when they are called (`add_metric`), not of those given to `compile`."""
    metrics = [part for part in model.submodules if isinstance(part, tf.keras.metrics.Metric)]
    return [variable for metric in metrics for variable in metric.variables]


def _penalty(model: tf.keras.Model, x: Any) -> tf.Tensor | None:
    """The sum of the model's own losses (regularisers, `add_loss`), or None if it has none.

    In graphs TensorFlow removes the call where nothing uses its outputs.
    """
    model(x, training=True)
    parts = [tf.convert_to_tensor(part) for part in model.losses]
    return tf.add_n(parts) if parts else None
