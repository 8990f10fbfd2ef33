"""Targets of action values that look several steps ahead."""

import tensorflow as tf

from ngrl import losses
from ngrl.checks import check_count, check_number
from ngrl.configurable import configurable


@configurable
class QLambda:
    """Q(λ) over at most n steps, Peng's or Watkins'; n-step Q-learning with λ = 1 (Peng & Williams 1996; Watkins 1989).

    Targets end with the episode, at a truncation bootstrapped from its last observation, and after n steps.

    Args:
      num_steps: n.
      trace_lambda: λ, 1 for n-step returns, 0 for one-step targets.
      watkins: Stop before the first action that is not greedy (Watkins); Peng's returns go on.

    Raises:
      ValueError: An argument is out of its range.
    """

    def __init__(self, num_steps: int = 5, trace_lambda: float = 1.0, watkins: bool = False):
        self.num_steps = check_count("QLambda: num_steps", num_steps)
        self._trace_lambda = check_number("QLambda: trace_lambda", trace_lambda, "[0, 1]")
        self._watkins = watkins

    def __call__(
        self,
        r_t: tf.Tensor,
        discount_t: tf.Tensor,
        continues_t: tf.Tensor,
        v_t: tf.Tensor,
        q_t: tf.Tensor,
        a_t: tf.Tensor,
        gamma: float,
    ) -> tf.Tensor:
        """Targets [T, B]; arguments as `losses.q_lambda_returns`."""
        arguments = (r_t, discount_t, continues_t, v_t, q_t, a_t, gamma, self._trace_lambda)
        return losses.q_lambda_returns(*arguments, watkins=self._watkins)
