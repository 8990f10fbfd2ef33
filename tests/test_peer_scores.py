"""`tools/peer_scores.py`, without the peers: what it runs, keeps, refuses and prints."""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest

TOOLS = Path(__file__).parents[1] / "tools"
sys.path += [str(TOOLS), str(TOOLS / "peers")]

import peer_scores  # noqa: E402
import pqn_scores_worker  # noqa: E402
from peers import installation  # noqa: E402

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
    assert called == [f"{peer_scores.WORKERS}/sb3_scores_worker.py Hopper-v5 --seed=3 --steps=100 --episodes=2"]


def test_minatars_games_are_another_peers(python, tmp_path):
    peer_scores.run(python, "MinAtar/Breakout-v1", 0, 100, 2, tmp_path)
    (path,) = tmp_path.glob("*.json")
    assert path.name == "pqn_MinAtar_Breakout-v1-seed0.json"
    called = (tmp_path / "called").read_text().split()
    assert called[:2] == [f"{peer_scores.WORKERS}/pqn_scores_worker.py", "MinAtar/Breakout-v1"]
    assert peer_scores.peer_of("MinAtar/Breakout-v1").environment in installation.REQUIREMENTS


def test_pqns_targets_are_mixtures_of_its_n_step_returns():
    rng = np.random.default_rng(0)
    steps, games = 6, 3
    rewards, next_values = rng.normal(size=(2, steps, games))
    done = rng.random((steps, games)) < 0.3
    found = pqn_scores_worker.lambda_returns(rewards, done, next_values)
    discount, trace = pqn_scores_worker.DISCOUNT, pqn_scores_worker.TRACE
    for start, game in itertools.product(range(steps), range(games)):
        ends = [t for t in range(start, steps) if done[t, game] or t == steps - 1]
        longest = ends[0] - start + 1
        expected = 0.0
        for n in range(1, longest + 1):
            last = start + n - 1
            value = sum(discount**k * rewards[start + k, game] for k in range(n))
            if not done[last, game]:
                value += discount**n * next_values[last, game]
            expected += value * trace ** (n - 1) * ((1 - trace) if n < longest else 1.0)
        assert found[start, game] == pytest.approx(expected)


def test_games_of_pqn_begin_anew_and_count_their_own_return():
    pytest.importorskip("minatar")
    games = pqn_scores_worker.Games("breakout", 3, 0, max_frames=40)
    total, ended = np.zeros(3), []
    for _ in range(45):
        assert games.observations().shape == (3, 10, 10, 4)
        rewards, done, finished = games.step(np.zeros(3, int))
        total += rewards
        assert [number for number, _ in finished] == list(np.flatnonzero(done))
        for number, gained in finished:
            assert gained == total[number]
            total[number] = 0
            ended.append(number)
    assert set(ended) == {0, 1, 2}


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
