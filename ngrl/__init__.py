"""ngrl: natural-gradient reinforcement learning in TensorFlow.

Importing this package is cheap: it selects Keras 2 for TensorFlow and loads nothing else. Subpackages
(`ngrl.curvature`, `ngrl.solvers`, `ngrl.optimizers`, ...) are imported when first used.
"""

import importlib
import os
import sys
from types import ModuleType

__version__ = "0.1.0"

_SUBPACKAGES = frozenset(
    {
        "agents",
        "curvature",
        "environments",
        "examples",
        "experiments",
        "keras",
        "losses",
        "networks",
        "optimizers",
        "replay",
        "solvers",
        "training",
    }
)


def _select_keras_2() -> None:
    """Make `tf.keras` mean Keras 2, which TF-Agents needs.

    Raises:
      ImportError: TensorFlow is already imported with Keras 3, which can't be undone.
    """
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and not getattr(tensorflow, "_tf_uses_legacy_keras", True):
        raise ImportError(
            "ngrl needs Keras 2 (tf-keras), but TensorFlow is already imported with Keras 3: "
            "import ngrl before tensorflow, or set TF_USE_LEGACY_KERAS=1 in the environment"
        )
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


_select_keras_2()


def __getattr__(name: str) -> ModuleType:
    if name in _SUBPACKAGES:
        return importlib.import_module(f"ngrl.{name}")
    raise AttributeError(f"module 'ngrl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | _SUBPACKAGES)
