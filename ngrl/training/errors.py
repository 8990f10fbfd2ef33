"""The errors that a command answers with one line instead of a traceback."""

from ngrl import configuration
from ngrl.configuration.binding import ConfigurationError
from ngrl.environments import EnvironmentFault
from ngrl.loops.loop import NonFiniteError
from ngrl.messages import reason
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


def one_line(error: BaseException) -> str:
    """What a command says of an error.

    Gin appends where one passed through; only one made of a wrong value is explained by that.
    """
    return reason(error) if isinstance(error, EXPLAINED) else configuration.one_line(error)


__all__ = ["EXPLAINED", "FAILURES", "USAGE", "WHILE_BUILDING", "Interrupted", "one_line"]
