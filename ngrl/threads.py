"""How many threads a process's numerical libraries take.

TensorFlow takes as many as there are cores unless it is told otherwise. On networks of a few hundred units that gains
nothing and costs waiting for one another, and sums in another order have other last digits.
"""

import os

from ngrl.checks import check_optional_count

#: Threads that `ngrl.launch` takes unless it is told otherwise.
DEFAULT = 1
#: The most that can be asked for: TensorFlow's memory for them grows with the square, and its start with it.
MOST = 1024


def variables(threads: int) -> dict[str, str]:
    """The environment variables from which the libraries learn it, before they start."""
    return dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"), str(threads))


def check(threads: int | None) -> None:
    """Check the number of threads that a command was asked for.

    Raises:
      ValueError: It is no positive integer, or more than `MOST`.
    """
    check_optional_count("--threads", threads)
    if threads is not None and threads > MOST:
        raise ValueError(f"--threads must be at most {MOST:,}, got {threads:,}")


def environment(threads: int = DEFAULT) -> dict[str, str]:
    """This process's environment variables, and those of `variables` that it lacks: what the user set stays."""
    return {**variables(threads), **os.environ}
