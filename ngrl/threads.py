"""How many threads a process's numerical libraries take.

TensorFlow takes as many as there are cores unless it is told otherwise. On networks of a few hundred units that gains
nothing and costs waiting for one another, and sums in another order have other last digits.
"""

import os

#: Threads that `ngrl.launch` takes unless it is told otherwise.
DEFAULT = 1


def variables(threads: int) -> dict[str, str]:
    """The environment variables from which the libraries learn it, before they start."""
    return dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"), str(threads))


def environment(threads: int = DEFAULT) -> dict[str, str]:
    """This process's environment variables, and those of `variables` that it lacks: what the user set stays."""
    return {**variables(threads), **os.environ}
