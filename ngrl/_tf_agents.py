"""TF-Agents, or one line about what to install; how Python imports it is `ngrl._importing`'s."""

from ngrl import _releases  # (ngrl selects Keras 2 before TensorFlow is imported)

if not _releases.has_tf_agents():
    raise ImportError(_releases.TF_AGENTS_MISSING)

import tf_agents
from tf_agents.environments import py_environment
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step

__all__ = ["array_spec", "py_environment", "tf_agents", "time_step"]
