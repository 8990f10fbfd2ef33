"""ngrl: natural-gradient reinforcement learning in TensorFlow.

Importing this package is cheap: it selects Keras 2 for TensorFlow and loads nothing else. Subpackages
(`ngrl.curvature`, `ngrl.solvers`, `ngrl.optimizers`, ...) are imported when first used.
"""

import importlib
import importlib.util
import os
import pkgutil
import sys
from types import ModuleType

__version__ = "0.1.0"


def _refuse(message: str) -> None:
    """Raise ImportError; where a command of ngrl's is being started, end with that line and without a traceback."""
    if sys.argv and os.path.basename(sys.argv[0]) in ("-m", "ngrl"):  # "-m" while Python looks for ngrl.launch
        sys.exit(f"ngrl: {message}")
    raise ImportError(message)


# Before anything that older Pythons can't read.
if sys.version_info[:2] not in ((3, 10), (3, 11), (3, 12), (3, 13)):
    _refuse(f"ngrl needs Python 3.10, 3.11, 3.12 or 3.13, and this is {sys.version_info[0]}.{sys.version_info[1]}")

from ngrl import _importing, _releases  # noqa: E402

_started = dict(zip(sys.orig_argv, sys.orig_argv[1:], strict=False)).get("-m", "") if sys.argv[:1] == ["-m"] else ""
if _started.partition(".")[0] == "ngrl" or os.path.basename("".join(sys.argv[:1])) == "ngrl":  # no user's program
    from ngrl.signals import leave_by_ctrl_c

    leave_by_ctrl_c()

_SUBPACKAGES = frozenset(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)


def _select_keras_2() -> None:
    """Make `tf.keras` mean Keras 2, which TF-Agents needs.

    Raises:
      ImportError: TensorFlow's Keras 3 is already in use, which can't be undone.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and not getattr(tensorflow, "_tf_uses_legacy_keras", True):
        # TensorFlow decides when `tf.keras` is first used, by the environment variable; `from tensorflow.keras import`
        # goes by the path.
        loader = vars(tensorflow).get("keras")
        if getattr(loader, "_tfll_initialized", True) or "tensorflow.keras" in sys.modules:
            _refuse(
                "ngrl needs Keras 2 (tf-keras), but TensorFlow's Keras 3 is already in use: "
                "import ngrl before tensorflow.keras, or set TF_USE_LEGACY_KERAS=1 in the environment "
                "(in a notebook: restart the kernel, then import ngrl first)"
            )
        spec = importlib.util.find_spec("tf_keras")
        if spec is not None and spec.submodule_search_locations:
            tensorflow.__path__.insert(0, os.path.join(spec.submodule_search_locations[0], "api", "_v2"))
        vars(tensorflow)["_tf_uses_legacy_keras"] = True
    os.environ["TF_USE_LEGACY_KERAS"] = "1"


if _complaint := _releases.complaint():
    _refuse(_complaint)
_select_keras_2()
_importing.install()


def __getattr__(name: str) -> ModuleType:
    if name in _SUBPACKAGES:
        return importlib.import_module(f"ngrl.{name}")
    raise AttributeError(f"module 'ngrl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | _SUBPACKAGES)
