"""`ngrl.launch` in a process that doesn't outlive the one that started it.

The parent holds the other end of standard input. However it ends, that end closes, and this process stops as on
SIGTERM: it writes a checkpoint first.
"""

import os
import runpy
import signal
import threading
import time

# How long writing the last checkpoint may take.
_GRACE_S = 60.0


def _follow_parent() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_follow_parent, name="follow_parent", daemon=True).start()
    # By name: this package holds nothing that imports a command.
    runpy.run_module("ngrl.launch", run_name="__main__", alter_sys=True)
