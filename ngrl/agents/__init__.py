"""TF-Agents agents: loss, curvature operator and optimizer."""

from ngrl import _tf_agents  # noqa: F401  isort: skip  (quiet import of tf_agents, before anything of it)
from ngrl.agents.acer_agent import AcerAgent, AcerExtra
from ngrl.agents.action_values import ActionValueCritic, DiscreteCritic, DuelingCritic
from ngrl.agents.advantage import GeneralisedAdvantage, RewardNormaliser
from ngrl.agents.compatible import CompatibleCritic, CompatibleRegression, EpisodicCritic, LstdQ
from ngrl.agents.critic import Critic, CriticStats
from ngrl.agents.dqn_agent import DqnAgent, DqnExtra, check_discrete_action
from ngrl.agents.nac_agent import NacAgent
from ngrl.agents.npg_agent import NpgAgent, TrpoAgent
from ngrl.agents.on_policy_agent import OnPolicyAgent, PolicyExtra
from ngrl.agents.ppo_agent import PpoAgent
from ngrl.agents.reinforce_agent import ReinforceAgent
from ngrl.agents.target_update import HardUpdate, SoftUpdate, TargetUpdate

__all__ = [
    "AcerAgent",
    "AcerExtra",
    "ActionValueCritic",
    "CompatibleCritic",
    "CompatibleRegression",
    "Critic",
    "CriticStats",
    "DiscreteCritic",
    "DqnAgent",
    "DqnExtra",
    "DuelingCritic",
    "EpisodicCritic",
    "GeneralisedAdvantage",
    "HardUpdate",
    "LstdQ",
    "NacAgent",
    "NpgAgent",
    "OnPolicyAgent",
    "PolicyExtra",
    "PpoAgent",
    "ReinforceAgent",
    "RewardNormaliser",
    "SoftUpdate",
    "TargetUpdate",
    "TrpoAgent",
    "check_discrete_action",
]
