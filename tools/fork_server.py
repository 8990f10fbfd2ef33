"""Runs `ngrl.launch` in processes that can be killed, without loading TensorFlow for each.

`Server` starts it. Started as a program, it loads everything, then forks a process for each line it reads, a JSON
object with:

    cwd, output    the process's folder, and the file that gets what it prints
    errors         the file for what it prints to standard error, where that is to be another
    argv, command  what is run: `python -m ngrl.<command> <argv>`, by default ngrl.launch
    script         instead of a command: a Python file
    save           instead of these: arguments of `save_one`
    die            when it is to be killed, see below
    export         False leaves out the export of policies, which takes longer than a short run; the live one is played

It answers with the process's id; to `{"wait": id}` it answers with the exit code of that process, negative where a
signal ended it. Nothing of TensorFlow has run before the fork, so that the processes are as good as new.

`die` names a moment at which the process sends itself SIGKILL, with no chance to do anything more:
`["step", n]` before the n-th step of the loop, `["save", n, k]` at the k-th file operation of the n-th save.
"""

import importlib
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]

FILE_OPERATIONS = (
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.listdir",
    "os.scandir",
    "shutil.rmtree",
)


class Death:
    """Kills the process at the k-th file operation from now on.

    Args:
      operations: k, from 0.
    """

    def __init__(self, operations: int):
        self._left = operations
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple) -> None:
        """Count an operation; an audit hook."""
        if event in FILE_OPERATIONS:
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self._left -= 1


def arm(die: list) -> None:
    """Have the process die at a moment of its run."""
    from ngrl.loops import loop
    from ngrl.training import checkpoints

    kind, number, *operations = die
    counts = {"step": 0, "save": 0}

    def counted(owner, name, what, act):
        before = getattr(owner, name)

        def method(*arguments):
            counts[what] += 1
            if what == kind and counts[what] == number:
                act()
            return before(*arguments)

        setattr(owner, name, method)

    counted(loop.TrainingLoop, "_advance", "step", lambda: os.kill(os.getpid(), signal.SIGKILL))
    counted(checkpoints.CheckpointStore, "save", "save", lambda: Death(*operations))


def save_one(folder: str, step: int, keep: int) -> int:
    """Resume from a folder of checkpoints and save one more, in which every number is the step; the exit code."""
    import numpy as np
    import tensorflow as tf

    from ngrl.loops import LoopState
    from ngrl.training import CheckpointStore

    module = tf.Module()
    module.v = tf.Variable(0.0)
    store = CheckpointStore(pathlib.Path(folder), module, keep)
    store.restore_latest()
    module.v.assign(step)
    store.save(step, LoopState({"step": step}, {"step": np.array(step)}))
    return 0


def play_live_policies(setattr: Callable[[Any, str, Any], None] = setattr) -> None:
    """From now on, export no policy, and play those that would have been exported; `setattr` changes the module."""
    from ngrl.training import export, final_evaluation

    live: dict[str, Any] = {}
    setattr(final_evaluation, "export_policy", lambda policy, folder, description: live.update({folder.name: policy}))
    setattr(final_evaluation, "load_policy", lambda folder: (export.as_actor(live[folder.name]), {}))


def work(request: dict) -> int:
    """Do what a request asks; the exit code of the command."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    output = os.open(request["output"], flags)
    os.dup2(output, 1)
    os.dup2(os.open(request["errors"], flags) if "errors" in request else output, 2)
    os.chdir(request["cwd"])
    if request.get("die"):
        arm(request["die"])
    if "save" in request:
        return save_one(*request["save"])
    if not request.get("export", True):
        play_live_policies()
    try:
        if "script" in request:
            sys.argv = [request["script"], *request["argv"]]
            runpy.run_path(request["script"], run_name="__main__")
            code = 0
        else:
            code = importlib.import_module(f"ngrl.{request.get('command', 'launch')}").main(request["argv"])
    except SystemExit as stop:  # of argparse
        code = stop.code or 0
    except Exception:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def serve() -> None:
    """Answer requests until there are no more."""
    from ngrl.configuration.registration import register_all

    register_all()  # imports everything

    # A shell's background jobs ignore Ctrl-C, and so would those that are forked here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    print("ready", file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            print(os.waitstatus_to_exitcode(status), file=answers)
            continue
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                code = work(request)
            finally:
                os._exit(code)
        print(pid, file=answers)


class Server:
    """A fork server in a process of its own.

    Args:
      errors: A file for what it prints itself.
      paths: Folders of modules that gin files may import.
    """

    def __init__(self, errors: pathlib.Path, paths: Sequence[pathlib.Path] = ()):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_CPP")}
        environment |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(map(str, [ROOT, *paths]))
        with errors.open("w") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        if self._read() != "ready":
            raise RuntimeError(errors.read_text())

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def ask(self, **request: Any) -> int:
        """Its answer to a request."""
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return int(self._read())

    def close(self) -> None:
        """End it; processes that it has forked go on."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def has_ended(pid: int) -> bool:
    """Whether a process has ended, whoever is to wait for it."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


if __name__ == "__main__":
    serve()
