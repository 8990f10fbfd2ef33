"""How a target network follows the online network."""

import abc
from collections.abc import Sequence

import tensorflow as tf

from ngrl.checks import check_count, check_number
from ngrl.configurable import configurable


class TargetUpdate(abc.ABC):
    """A rule that moves target variables towards online variables after a train step.

    Attributes:
      copies: Whether it is due at certain train steps, whatever they did: then it isn't put off where one was skipped,
        which left the online variables as they were.
    """

    copies: bool = False

    @abc.abstractmethod
    def apply(self, online: Sequence[tf.Variable], target: Sequence[tf.Variable], step: tf.Tensor) -> None:
        """Move `target`; `step` (scalar) counts the train steps finished, this one included."""


@configurable
class HardUpdate(TargetUpdate):
    """Copy every `period` train steps (Mnih et al. 2015).

    Args:
      period: Train steps between copies, positive.

    Raises:
      ValueError: `period` is not positive.
    """

    copies = True

    def __init__(self, period: int = 500):
        self.period = check_count("period", period)

    def apply(self, online: Sequence[tf.Variable], target: Sequence[tf.Variable], step: tf.Tensor) -> None:
        """Copy when `step` is a multiple of the period."""
        due = tf.equal(step % self.period, 0)
        for source, destination in zip(online, target, strict=True):
            destination.assign(tf.where(due, source, destination))


@configurable
class SoftUpdate(TargetUpdate):
    """θ_target ← (1 − τ) θ_target + τ θ every train step (Lillicrap et al. 2016).

    Args:
      tau: τ in (0, 1].

    Raises:
      ValueError: τ is out of its range.
    """

    def __init__(self, tau: float = 0.005):
        self.tau = check_number("tau", tau, "(0, 1]")

    def apply(self, online: Sequence[tf.Variable], target: Sequence[tf.Variable], step: tf.Tensor) -> None:
        """Move by a fraction τ."""
        del step
        for source, destination in zip(online, target, strict=True):
            destination.assign((1 - self.tau) * destination + self.tau * source)


@configurable
class FunctionalRegularisation(TargetUpdate):
    """Use the network that follows to hold the online one back, instead of bootstrapping from it (Piché et al. 2022).

    Targets come from the online network, and the loss gains `κ · ½ (Q_θ(s, a) − Q_θ̄(s, a))²` (eq. 6 there), θ̄ being
    the weights that follow.

    Args:
      update: How θ̄ follows; `HardUpdate()` by default.
      weight: κ.

    Raises:
      ValueError: κ is out of its range.
    """

    def __init__(self, update: TargetUpdate | None = None, weight: float = 1.0):
        self._update = HardUpdate() if update is None else update
        self.copies = self._update.copies
        self.weight = check_number("FunctionalRegularisation: weight", weight, "(0, inf)")

    def apply(self, online: Sequence[tf.Variable], target: Sequence[tf.Variable], step: tf.Tensor) -> None:
        """Move `target` as `update` says."""
        self._update.apply(online, target, step)


def check_follower(owner: str, update: TargetUpdate) -> None:
    """Refuse a rule by which an average can't follow: it has no loss that could hold the online network back.

    Raises:
      ValueError: It is none, or functional regularisation.
    """
    if not isinstance(update, TargetUpdate):
        raise ValueError(f"{owner}: an average follows by HardUpdate or SoftUpdate, got {update!r}")
    if isinstance(update, FunctionalRegularisation):
        raise ValueError(
            f"{owner}: FunctionalRegularisation is for DqnAgent.target_update, an average follows by SoftUpdate"
        )


def follow_update(
    rule: TargetUpdate,
    online: Sequence[tf.Variable],
    target: Sequence[tf.Variable],
    train_step_counter: tf.Variable,
    skipped: tf.Tensor,
    num_steps: int = 1,
) -> None:
    """Apply a rule after an update that is not yet counted, unless all of it was skipped.

    Args:
      rule: How the target follows.
      online: The variables just updated.
      target: Those that follow them.
      train_step_counter: The train steps finished before this one, a scalar.
      skipped: How many of the update's steps were skipped, a scalar; where it is all of them the target stays as it is,
        but for a rule that copies.
      num_steps: How many there were.
    """

    def follow() -> tf.Tensor:
        rule.apply(online, target, tf.cast(train_step_counter, tf.int64) + 1)
        return tf.zeros([])

    if rule.copies:
        follow()
        return
    tf.cond(tf.less(skipped, num_steps), follow, lambda: tf.zeros([]))
