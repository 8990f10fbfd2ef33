"""What an environment did wrong, and where."""

from ngrl.messages import raised_at


class EnvironmentFault(RuntimeError):
    """An environment raised, hung, died, or answered with something its spaces don't allow.

    Attributes:
      env_id: The environment's name.
      member: Which member of the vector environment, from 0; None when it can't be told.
      step: Step of that member's episode, from 1; 0 is its reset; None when it can't be told.
    """

    def __init__(self, env_id: str, member: int | None, step: int | None, problem: str):
        """Make the one-line message from the place and the problem."""
        place = env_id
        if member is not None:
            place += f", member {member}"
        if step is not None:
            place += f", step {step} of its episode" if step else ", reset"
        super().__init__(f"{place}: {problem}")
        self.env_id = env_id
        self.member = member
        self.step = step
        self.problem = problem

    def __reduce__(self) -> tuple:
        """Survive the way between processes (an exception is otherwise rebuilt from its message alone)."""
        return EnvironmentFault, (self.env_id, self.member, self.step, self.problem)


def one_line(error: BaseException) -> str:
    """The type and message of an exception as one line, and where in a user's own code it was raised."""
    text = " ".join(str(error).split())
    return (f"{type(error).__name__}: {text}" if text else type(error).__name__) + raised_at(error)
