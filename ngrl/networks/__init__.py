"""Network builders."""

from ngrl import _tf_agents  # noqa: F401  isort: skip  (quiet import of tf_agents, before anything of it)
from ngrl.networks.q_network import QNetwork, encode_observation

__all__ = ["QNetwork", "encode_observation"]
