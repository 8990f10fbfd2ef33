"""The policy as its update sees it: distributions from the inputs of a batch, and the parts of their losses."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from ngrl import losses, seeding
from ngrl.agents.heads import ActionHead
from ngrl.agents.linearisable import linearisable
from ngrl.agents.minibatches import num_minibatches, shuffled_minibatches
from ngrl.agents.schedules import Schedule, weight_at
from ngrl.agents.trajectories import Steps
from ngrl.curvature import EmpiricalFisher, GaussNewton, OverTime
from ngrl.networks import ActorNetwork
from ngrl.seeding import Stream


class PolicyBatch(NamedTuple):
    """N = B·(T − 1) transitions, those of each trajectory one after another."""

    inputs: Any  # what the policy's forward function takes [N, ...], 0 at masked steps
    action: tf.Tensor  # [N] or [N, D], as drawn
    advantage: tf.Tensor  # [N], 0 at masked steps
    weights: tf.Tensor  # [N], 0 at episode boundaries, which are no transitions
    old_parameters: tf.Tensor  # of the distribution that acted [N, K]
    old_log_prob: tf.Tensor  # log π_old(a|s) [N]
    returns: tf.Tensor  # what the critic is to learn [N]
    value: tf.Tensor  # the critic's v [N]
    critic_inputs: Any = ()  # what the critic's forward function takes [N, ...]; () without a critic
    vectors: tf.Tensor | tuple[()] = ()  # encoded observations, not normalised [N, D]; () with a trunk
    steps: Steps | tuple[()] = ()  # the trajectories that they were cut from; () in minibatches

    def minibatch(self, rows: tf.Tensor) -> "PolicyBatch":
        """The transitions with these numbers [b]."""
        return tf.nest.map_structure(lambda leaf: tf.gather(leaf, rows), self._replace(steps=()))


class Policy:
    """A policy under training. It has no variables but its network's.

    Args:
      network: The policy's network, built.
      head: What its distribution's parameters mean.
      entropy_weight: Weight of the entropy bonus: a number, or a Keras schedule over the train steps.
      seed: Seed of whatever an update draws.
      step: Counts train steps.
      sequence_length: L; of a policy with a memory, L rows in a row are a sequence, over which its derivatives reach.

    Raises:
      ValueError: The seed is out of its range, or nobody knows the distribution's parameters.
    """

    def __init__(
        self,
        network: ActorNetwork,
        head: ActionHead,
        entropy_weight: float | Schedule,
        seed: int,
        step: tf.Variable,
        sequence_length: int = 1,
    ):
        self.network = network
        self.head = head
        self.entropy_weight = entropy_weight
        self.encode, self.forward = linearisable(network)
        # Variables, so that a compiled function may serve policies of other seeds; no checkpoint holds them.
        streams = (Stream.POLICY_MINIBATCHES, Stream.CRITIC_MINIBATCHES)
        self.keys = {stream: tf.Variable(seeding.key(seed, stream), trainable=False) for stream in streams}
        self._step = step
        #: L of a policy with a memory, 1 of others.
        self.sequence_length = 1 if network.cell is None else sequence_length

    @property
    def variables(self) -> Sequence[tf.Variable]:
        """What an update changes."""
        return self.network.trainable_weights

    def outputs(self, inputs: Any) -> tf.Tensor:
        """What `forward` gives for inputs [N, ...] of it: the distribution's parameters [N, K], before their bound."""
        return self.by_step(self.forward(self.by_sequence(inputs)))

    def parameters(self, inputs: Any) -> tf.Tensor:
        """The distribution's parameters [N, K] for inputs [N, ...] of `forward`."""
        return self.network.bound(self.outputs(inputs))

    def by_sequence(self, nest: Any) -> Any:
        """With a memory [N, ...] as [S, L, ...], S = N / L; without one as it is."""
        if self.network.cell is None:
            return nest
        length = self.sequence_length
        return tf.nest.map_structure(lambda leaf: tf.reshape(leaf, [-1, length, *leaf.shape[1:]]), nest)

    def by_step(self, outputs: tf.Tensor) -> tf.Tensor:
        """Outputs of `forward` as [N, K]: with a memory it gives [S, L·K]."""
        length = self.sequence_length
        return outputs if length == 1 else tf.reshape(outputs, [-1, outputs.shape[1] // length])

    def surrogate_loss(self, batch: PolicyBatch, parameters: tf.Tensor) -> tf.Tensor:
        """`−Ê[ρ Â] − c Ê[H]`, a scalar."""
        log_prob = self.head.log_prob(parameters, batch.action)
        loss = losses.surrogate_loss(log_prob, batch.old_log_prob, batch.advantage, batch.weights)
        return loss - self.entropy_bonus(batch, parameters)

    def entropy_bonus(self, batch: PolicyBatch, parameters: tf.Tensor) -> tf.Tensor:
        """`c Ê[H]`, a scalar."""
        if self.entropy_weight == 0:
            return tf.zeros([], parameters.dtype)
        weight = tf.cast(weight_at(self.entropy_weight, self._step), parameters.dtype)
        return weight * losses.weighted_mean(self.head.entropy(parameters), batch.weights)

    def mean_kl(self, batch: PolicyBatch, parameters: tf.Tensor) -> tf.Tensor:
        """Mean KL(π_old ‖ π) over the batch, a scalar."""
        return losses.weighted_mean(self.head.kl(batch.old_parameters, parameters), batch.weights)

    def fisher(self, inputs: Any, weights: tf.Tensor, every: int = 1) -> GaussNewton:
        """F over every so many of the inputs [N, ...] with weights [N], or of the sequences of them."""
        inputs, weights = self.by_sequence((inputs, weights))
        if every > 1:
            inputs, weights = tf.nest.map_structure(lambda leaf: leaf[::every], (inputs, weights))
        if self.network.cell is None:
            return GaussNewton(self.forward, self.variables, inputs, self.head.metric, weights=weights)
        return GaussNewton(self.forward, self.variables, inputs, OverTime(self.head.metric, weights))

    def minibatches(self, num_rows: int, batch_size: int, epochs: int) -> tf.Tensor:
        """As `shuffled_minibatches`, by this train step's draw; the rows of a sequence stay together."""
        length, seed = self.sequence_length, self.draw(Stream.POLICY_MINIBATCHES)
        rows = shuffled_minibatches(num_rows // length, batch_size // length, epochs, seed)
        if length == 1:
            return rows
        return tf.reshape(rows[:, :, tf.newaxis] * length + tf.range(length), [rows.shape[0], -1])

    def num_minibatches(self, num_rows: int, batch_size: int, epochs: int) -> int:
        """How many `minibatches` gives."""
        return num_minibatches(num_rows // self.sequence_length, batch_size // self.sequence_length, epochs)

    def scores(self, batch: PolicyBatch) -> EmpiricalFisher:
        """The operator whose row i is `√(w_i/Σw) ∇_θ log π(a_i|s_i)`."""
        return EmpiricalFisher(
            lambda arguments: self.head.log_prob(self.parameters(arguments[0]), arguments[1]),
            self.variables,
            (batch.inputs, batch.action),
            weights=batch.weights,
        )

    def draw(self, stream: Stream) -> tf.Tensor:
        """A seed [2] of one of the streams of `keys` for this train step."""
        return seeding.at(self.keys[stream], tf.cast(self._step, tf.int32))
