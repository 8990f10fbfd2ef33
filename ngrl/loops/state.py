"""What a loop hands to whoever saves it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np


class LoopState(NamedTuple):
    """What a training loop needs beside the variables to go on exactly where it was."""

    values: dict[str, Any]  # JSON values
    arrays: dict[str, np.ndarray]
    #: Parts of large arrays, of which most stay as they are from save to save; what differs has another name.
    blocks: Mapping[str, np.ndarray] = MappingProxyType({})
