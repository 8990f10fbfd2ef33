"""TF-Agents agents: loss, curvature operator and optimizer."""

from ngrl import _tf_agents  # noqa: F401  isort: skip  (quiet import of tf_agents, before anything of it)
from ngrl.agents.dqn_agent import DqnAgent, DqnExtra, check_discrete_action
from ngrl.agents.target_update import HardUpdate, SoftUpdate, TargetUpdate

__all__ = ["DqnAgent", "DqnExtra", "HardUpdate", "SoftUpdate", "TargetUpdate", "check_discrete_action"]
