"""What a sweep keeps on the disk for Ray Tune goes with it, however it ends."""

import signal
import subprocess
import sys

from ngrl.studies.engine import _scratch

HOLD = """
import sys
from pathlib import Path
from ngrl.studies.engine import _scratch
with _scratch(Path(sys.argv[1])) as scratch:
    (scratch / "compiled").mkdir()
    print(scratch.name, flush=True)
    sys.stdin.read()
"""


def test_killed_sweeps_folder_is_removed_by_the_next_sweep_and_a_living_ones_is_not(tmp_path):
    def holder():
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return process, process.stdout.readline().strip()

    (tmp_path / ".begun.tune-new").mkdir()  # a sweep that hasn't locked its folder yet
    (killed, left), (living, held) = holder(), holder()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert (tmp_path / left).exists()
    with _scratch(tmp_path) as scratch:
        assert {path.name for path in tmp_path.iterdir()} == {".begun.tune-new", held, scratch.name}
    living.communicate("")
    assert [path.name for path in tmp_path.iterdir()] == [".begun.tune-new"]
