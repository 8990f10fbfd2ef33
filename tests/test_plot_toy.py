"""tools/plot_toy.py draws every agent and prints their means."""

import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[1] / "tools" / "plot_toy.py"


def plot(*arguments):
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def write_run(folder, offset):
    """30 updates with two episodes each, whose returns rise by 1 an update."""
    folder.mkdir()
    rows = [f"{n},{10 * n},{n // 2},{n // 2 + offset + n % 2},5,0.1" for n in range(60)]
    (folder / "episodes.csv").write_text("\n".join(["episode,env_steps,train_steps,return,length,wall_s", *rows]))


def test_picture_and_table_of_two_kinds_of_agents(tmp_path):
    for seed, offset in enumerate((0, 2)):
        write_run(tmp_path / f"examples-toy_pg-seed{seed}", offset)
        write_run(tmp_path / f"examples-toy_npg-seed{seed}", offset + 100)
    result = plot(*tmp_path.iterdir(), "--out", tmp_path / "pictures" / "toy.png")
    assert result.returncode == 0, result.stderr
    # Updates 0 to 9 have a mean of 4.5, 20 to 29 of 24.5; half an episode's 1 and the agents' mean offset of 1 come on.
    assert "| policy gradient | 2 | 6.00 | 26.00 |" in result.stdout
    assert "| natural policy gradient | 2 | 106.00 | 126.00 |" in result.stdout
    assert (tmp_path / "pictures" / "toy.png").read_bytes()[1:4] == b"PNG"


def test_folder_that_is_no_run_is_named(tmp_path):
    result = plot(tmp_path, "--out", tmp_path / "toy.png")
    assert result.returncode == 1
    assert f"{tmp_path} is no run directory" in result.stderr
