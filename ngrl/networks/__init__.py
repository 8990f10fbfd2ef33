"""Builders of Q, actor and value networks."""

from ngrl import _autograph, _tf_agents  # noqa: F401  isort: skip  (the latter says what to install)
from ngrl.networks.actor_network import (
    ActorNetwork,
    action_choices,
    action_size,
    describe_actions,
    is_discrete_action,
    num_discrete_actions,
)
from ngrl.networks.conv_network import ConvNetwork
from ngrl.networks.dense_network import DenseNetwork
from ngrl.networks.dueling_network import StochasticDuelingNetwork
from ngrl.networks.encoding import (
    Encoder,
    ObservationNormaliser,
    RunningMoments,
    clip_finite,
    encode_observation,
    scale_observation,
)
from ngrl.networks.gaussian_actor import GaussianActor
from ngrl.networks.memory import MemoryInputs
from ngrl.networks.q_network import QNetwork
from ngrl.networks.value_network import ValueNetwork

__all__ = [
    "ActorNetwork",
    "ConvNetwork",
    "DenseNetwork",
    "Encoder",
    "GaussianActor",
    "MemoryInputs",
    "ObservationNormaliser",
    "QNetwork",
    "RunningMoments",
    "StochasticDuelingNetwork",
    "ValueNetwork",
    "action_choices",
    "action_size",
    "clip_finite",
    "describe_actions",
    "encode_observation",
    "is_discrete_action",
    "num_discrete_actions",
    "scale_observation",
]
