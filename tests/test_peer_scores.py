"""`tools/peer_scores.py`, without the peers: what it runs, keeps, refuses and prints."""

import json
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "tools"
sys.path.append(str(TOOLS))

import peer_scores  # noqa: E402

RESULT = {"final_100_episode_mean": 10.0, "greedy": 20.0, "train_s": 60.0}


@pytest.fixture
def python(tmp_path):
    """Stands for the peers' Python: prints the result, and leaves its arguments in a file."""
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\necho \"$@\" >> {tmp_path}/called\necho a notice\necho '{json.dumps(RESULT)}'\n")
    script.chmod(0o755)
    return script


def test_a_run_is_kept_and_not_run_again(python, tmp_path):
    first, second = (peer_scores.run(python, "Hopper-v5", 3, 100, 2, tmp_path) for _ in range(2))
    assert first == second == {"env_id": "Hopper-v5", "seed": 3, "env_steps": 100, "episodes": 2, **RESULT}
    called = (tmp_path / "called").read_text().splitlines()
    assert called == [f"{peer_scores.WORKER} Hopper-v5 --seed=3 --steps=100 --episodes=2"]


def test_a_result_of_other_settings_is_refused_and_stays(python, tmp_path):
    peer_scores.run(python, "Hopper-v5", 3, 100, 2, tmp_path)
    kept = next(tmp_path.glob("*.json")).read_text()
    with pytest.raises(RuntimeError, match=r"Hopper-v5-seed3.json is not of 200 steps and 2 episodes: move it away"):
        peer_scores.run(python, "Hopper-v5", 3, 200, 2, tmp_path)
    assert next(tmp_path.glob("*.json")).read_text() == kept


def test_a_run_that_fails_says_why_in_a_line_and_leaves_nothing(tmp_path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho Traceback >&2\necho 'ValueError: no such robot' >&2\nexit 1\n")
    script.chmod(0o755)
    with pytest.raises(RuntimeError, match=r"^Robot-v5 seed 0: ValueError: no such robot$"):
        peer_scores.run(script, "Robot-v5", 0, 100, 2, tmp_path)
    assert not list(tmp_path.glob("*.json"))


def test_the_table_has_every_seed_and_the_means():
    results = [
        {"env_id": "Ant-v5", "greedy": greedy, "final_100_episode_mean": greedy - 1} for greedy in (100.0, 200.04)
    ]
    assert peer_scores.table(results).splitlines()[-1] == "| Ant-v5 | 100.0, 200.0 | **150.0** | 149.0 |"
