"""TF-Agents agents: loss, curvature operator and optimizer."""

from ngrl import _tf_agents  # noqa: F401  isort: skip  (or what to install)
from ngrl.agents.acer_agent import AcerAgent, AcerExtra
from ngrl.agents.action_values import ActionValueCritic, DiscreteCritic, DuelingCritic
from ngrl.agents.advantage import GeneralisedAdvantage, RewardNormaliser
from ngrl.agents.compatible import CompatibleCritic, CompatibleRegression, EpisodicCritic, LstdQ
from ngrl.agents.critic import Critic, CriticStats
from ngrl.agents.dqn_agent import DqnAgent, DqnExtra, check_discrete_action
from ngrl.agents.methods import AcktrAgent, NacAgent, NpgAgent, PpoAgent, ReinforceAgent, TrpoAgent
from ngrl.agents.on_policy_agent import OnPolicyAgent, PolicyExtra
from ngrl.agents.policy import Policy, PolicyBatch
from ngrl.agents.pqn_agent import PqnAgent
from ngrl.agents.q_lambda import QLambda
from ngrl.agents.retrace import Retrace
from ngrl.agents.target_update import FunctionalRegularisation, HardUpdate, SoftUpdate, TargetUpdate
from ngrl.agents.trust_region import TrustRegion
from ngrl.agents.updates import (
    ClippedUpdate,
    CompatibleUpdate,
    LineSearchedUpdate,
    NaturalUpdate,
    PlainUpdate,
    PolicyUpdate,
)

__all__ = [
    "AcerAgent",
    "AcerExtra",
    "AcktrAgent",
    "ActionValueCritic",
    "ClippedUpdate",
    "CompatibleCritic",
    "CompatibleRegression",
    "CompatibleUpdate",
    "Critic",
    "CriticStats",
    "DiscreteCritic",
    "DqnAgent",
    "DqnExtra",
    "DuelingCritic",
    "EpisodicCritic",
    "FunctionalRegularisation",
    "GeneralisedAdvantage",
    "HardUpdate",
    "LineSearchedUpdate",
    "LstdQ",
    "NacAgent",
    "NaturalUpdate",
    "NpgAgent",
    "OnPolicyAgent",
    "PlainUpdate",
    "Policy",
    "PolicyBatch",
    "PolicyExtra",
    "PolicyUpdate",
    "PpoAgent",
    "PqnAgent",
    "QLambda",
    "ReinforceAgent",
    "Retrace",
    "RewardNormaliser",
    "SoftUpdate",
    "TargetUpdate",
    "TrpoAgent",
    "TrustRegion",
    "check_discrete_action",
]
