"""What reaches the terminal, or a notebook's cell, of what ngrl and libraries write."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# A notebook's sys.stdout and sys.stderr send text to the browser; file descriptors 1 and 2 are another matter.
CELL = """
import io, logging, os, sys
from pathlib import Path
from ngrl.terminal import LibraryOutput

shown, errors = sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
log = logging.getLogger("library")
log.addHandler(logging.StreamHandler(sys.stderr))
output = LibraryOutput()
output.move_to(Path("log.txt"))
print("printed by a library")
print("warned by a library", file=sys.stderr)
log.warning("logged by a library")
os.write(2, b"written by a compiled library\\n")
print("progress", file=output.terminal)
print("result", file=output.stdout)
output.close()
print("after")
log.warning("logged after")
os.write(1, repr((shown.getvalue(), errors.getvalue())).encode())
"""


def test_notebook_shows_ngrls_own_lines_and_libraries_write_into_the_log(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{CELL}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout == repr(("result\nafter\n", "progress\nlogged after\n"))
    logged = (tmp_path / "log.txt").read_text().splitlines()
    assert sorted(logged) == [
        "logged by a library",
        "printed by a library",
        "warned by a library",
        "written by a compiled library",
    ]


DEAF = """
from ngrl.terminal import LibraryOutput

output = LibraryOutput()
for line in range(3):
    print(line, file=output.terminal)
    print("result", file=output.stdout)
output.close()
print("after")
"""


def test_command_whose_reader_has_gone_goes_on_without(tmp_path):
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{DEAF}"]
    for deaf, heard in (("stdout", "stderr"), ("stderr", "stdout")):
        done = subprocess.run(command, **{deaf: theirs, heard: subprocess.PIPE}, cwd=tmp_path, text=True, timeout=60)
        assert done.returncode == 0
        assert getattr(done, heard).split() == (["0", "1", "2"] if deaf == "stdout" else ["result"] * 3 + ["after"])
    os.close(theirs)
