"""The errors that a command answers with one line instead of a traceback."""

from ngrl.configuration.binding import ConfigurationError
from ngrl.environments import EnvironmentFault
from ngrl.loops.loop import NonFiniteError
from ngrl.runs.directory import RunDirectoryError
from ngrl.runs.files import CheckpointError, WriteError
from ngrl.signals import Interrupted
from ngrl.training.export import PolicyError

#: The input is wrong: a name, a value, a directory.
USAGE = (ConfigurationError, RunDirectoryError, PolicyError)
#: What a constructor raises for a wrong value, as long as nothing runs yet; later it is a fault of the program.
WHILE_BUILDING = (*USAGE, ValueError, TypeError, ImportError)
#: A run failed in a way that its message explains.
FAILURES = (CheckpointError, WriteError, NonFiniteError, EnvironmentFault)
#: The message says all that there is to say.
EXPLAINED = (*FAILURES, RunDirectoryError, ConfigurationError)

__all__ = ["EXPLAINED", "FAILURES", "USAGE", "WHILE_BUILDING", "Interrupted"]
