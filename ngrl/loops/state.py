"""What a loop hands to whoever saves it."""

from typing import Any, NamedTuple

import numpy as np


class LoopState(NamedTuple):
    """What a training loop needs beside the variables to go on exactly where it was."""

    values: dict[str, Any]  # JSON values
    arrays: dict[str, np.ndarray]
