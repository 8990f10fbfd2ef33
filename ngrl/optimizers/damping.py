"""Rules that set the damping λ of `(F + λI) x = g` from step to step."""

import abc
import contextlib
import numbers
from collections.abc import Callable
from typing import Any, TypeAlias

import tensorflow as tf

from ngrl.checks import check_number
from ngrl.configurable import configurable

Schedule: TypeAlias = tf.keras.optimizers.schedules.LearningRateSchedule


class DampingRule(abc.ABC):
    """A rule for λ. It holds settings only; the optimizer owns the variable, so that checkpoints carry it."""

    #: Whether `update` reads the reduction ratio, which costs one more evaluation of the loss.
    needs_reduction_ratio: bool = False

    @property
    @abc.abstractmethod
    def initial(self) -> float:
        """λ before the first step."""

    def current(self, value: tf.Tensor, iterations: tf.Tensor) -> tf.Tensor:
        """λ of this step, from the stored value and the number of steps taken; scalars."""
        del iterations
        return value

    def update(self, value: tf.Tensor, reduction_ratio: tf.Tensor) -> tf.Tensor:
        """The value to store after a step with this reduction ratio; scalars."""
        del reduction_ratio
        return value

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """What `from_config` takes, as Keras serialises it."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "DampingRule":
        """Inverse of `get_config`."""
        return cls(**config)


@tf.keras.utils.register_keras_serializable(package="ngrl")
class FixedDamping(DampingRule):
    """A constant λ.

    Args:
      value: λ, not negative.

    Raises:
      ValueError: λ is negative.
    """

    def __init__(self, value: float = 1.0):
        self.value = check_number("damping", value, "[0, inf)")

    @property
    def initial(self) -> float:
        """λ before the first step."""
        return self.value

    def get_config(self) -> dict[str, Any]:
        """What `from_config` takes, as Keras serialises it."""
        return {"value": self.value}


@configurable
@tf.keras.utils.register_keras_serializable(package="ngrl")
class ScheduledDamping(DampingRule):
    """λ as a function of the number of steps taken.

    Args:
      schedule: Any Keras learning-rate schedule; its values are used as λ.
    """

    def __init__(self, schedule: Schedule | dict[str, Any]):
        schedule = schedule_of("schedule", schedule)
        if not isinstance(schedule, tf.keras.optimizers.schedules.LearningRateSchedule):
            raise ValueError(f"schedule must be a Keras learning-rate schedule, got {schedule!r}")
        self.schedule = schedule

    @property
    def initial(self) -> float:
        """λ before the first step."""
        with tf.init_scope():
            return float(self.schedule(0))

    def current(self, value: tf.Tensor, iterations: tf.Tensor) -> tf.Tensor:
        """λ of this step: the schedule at `iterations`."""
        return tf.cast(self.schedule(iterations), value.dtype)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` takes, as Keras serialises it."""
        return {"schedule": tf.keras.optimizers.schedules.serialize(self.schedule)}


@configurable
@tf.keras.utils.register_keras_serializable(package="ngrl")
class LevenbergMarquardt(DampingRule):
    """λ grows where the quadratic model of the loss is poor and shrinks where it is good.

    With the reduction ratio ρ = (actual change of the loss) / (change the model predicted): ρ < `low` multiplies λ
    by `increase`, ρ > `high` by `decrease`, within `minimum` and `maximum`. The defaults are those of Pascanu & Bengio
    (2013), which Knight & Lerner's "adapt damping" uses.

    Where the optimizer has a line search, ρ is that of the length it accepted, and a search that accepted none counts
    as a poor model. So does a solver that breaks down though all numbers are finite: F + λI was not positive definite
    to the dtype's accuracy, and the step is skipped, but the next has a larger λ.

    Args:
      initial: λ at the start.
      minimum: Floor of λ.
      maximum: Ceiling of λ.
      increase: Factor above 1.
      decrease: Factor below 1.
      low: Ratio below which λ grows.
      high: Ratio above which λ shrinks.

    Raises:
      ValueError: An argument is out of its range.
    """

    needs_reduction_ratio = True

    def __init__(
        self,
        initial: float = 6.0,
        minimum: float = 1e-3,
        maximum: float = 1e8,
        increase: float = 1.5,
        decrease: float = 2.0 / 3.0,
        low: float = 0.25,
        high: float = 0.75,
    ):
        check_number("initial", initial, "(0, inf)")
        check_number("minimum", minimum, "(0, inf)")
        if not minimum <= maximum:
            raise ValueError(f"minimum must not exceed maximum, got {minimum} and {maximum}")
        check_number("increase", increase, "(1, inf)")
        check_number("decrease", decrease, "(0, 1)")
        if not low < high:
            raise ValueError(f"low must be below high, got {low} and {high}")
        self._initial = float(initial)
        self.minimum = float(minimum)
        self.maximum = float(maximum)
        self.increase = float(increase)
        self.decrease = float(decrease)
        self.low = float(low)
        self.high = float(high)

    @property
    def initial(self) -> float:
        """λ before the first step."""
        return self._initial

    def update(self, value: tf.Tensor, reduction_ratio: tf.Tensor) -> tf.Tensor:
        """λ after a step; a ratio that is not a number counts as a poor model."""
        good = reduction_ratio > self.high
        poor = tf.logical_not(reduction_ratio >= self.low)
        smaller = tf.maximum(value * self.decrease, tf.minimum(value, self.minimum))
        larger = tf.minimum(value * self.increase, tf.maximum(value, self.maximum))
        return tf.where(poor, larger, tf.where(good, smaller, value))

    def get_config(self) -> dict[str, Any]:
        """What `from_config` takes, as Keras serialises it."""
        return {
            "initial": self._initial,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "increase": self.increase,
            "decrease": self.decrease,
            "low": self.low,
            "high": self.high,
        }


def get(damping: "float | DampingRule | dict[str, Any]") -> DampingRule:
    """A rule from a number (fixed λ), a rule, or a serialised rule.

    Raises:
      ValueError: It is none of these.
    """
    if isinstance(damping, DampingRule):
        return damping
    if isinstance(damping, dict):
        return _described("damping", damping, tf.keras.utils.deserialize_keras_object, DampingRule, "a damping rule")
    if isinstance(damping, numbers.Real) and not isinstance(damping, bool):
        return FixedDamping(damping)
    raise ValueError(f"damping must be a number or a damping rule, got {damping!r}")


def schedule_of(name: str, value: Any) -> Any:
    """The schedule that a dictionary describes, as Keras serialises it; anything else stays as it is.

    Raises:
      ValueError: The dictionary describes no schedule; the message calls it `name`.
    """
    if not isinstance(value, dict):
        return value
    return _described(name, value, tf.keras.optimizers.schedules.deserialize, Schedule, "a learning-rate schedule")


def _described(name: str, value: dict[str, Any], deserialise: Callable[[Any], Any], kind: type, what: str) -> Any:
    found = None
    if "class_name" in value:
        with contextlib.suppress(AttributeError, KeyError, TypeError):  # it is of no class that Keras knows
            found = deserialise(value)
    if not isinstance(found, kind):
        raise ValueError(f"{name} must be or describe {what}, got {value!r}")
    return found
