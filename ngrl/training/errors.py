"""The errors that a command answers with one line instead of a traceback."""

from ngrl.environments import EnvironmentFault
from ngrl.training.checkpoints import CheckpointError
from ngrl.training.configuration import ConfigurationError
from ngrl.training.export import PolicyError
from ngrl.training.off_policy import NonFiniteError
from ngrl.training.run_directory import RunDirectoryError
from ngrl.training.stopping import Interrupted

#: The input is wrong: a name, a value, a directory, an environment that doesn't fit the agent.
USAGE = (ConfigurationError, RunDirectoryError, PolicyError, ValueError, TypeError, ImportError)
#: Answered with one line: wrong input, or a run that failed in a way ngrl knows.
EXPECTED = (*USAGE, CheckpointError, NonFiniteError, EnvironmentFault)

__all__ = ["EXPECTED", "USAGE", "Interrupted"]
