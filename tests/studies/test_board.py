"""What a person sees of a sweep."""

import io
import json

import pytest

from ngrl import tags
from ngrl.studies.board import Board, describe_final
from ngrl.studies.study import PlannedTrial
from ngrl.studies.trials import Trial
from ngrl.training.progress import describe

FIGURES = {"env_steps": 500, "episodes": 40, "mean": 12.345, "best": float("nan"), "rate": 1234.5}
FINAL = {
    "env_steps": 1000,
    "best_100_episode_mean": 20.04,
    "final_100_episode_mean": 19.0,
    "evaluation": {"mean": 21.0},
    "wall_s": 90.0,
}


class Screen(io.StringIO):
    """A terminal that remembers what was written to it."""

    def isatty(self):
        return True


def planned(seed):
    return PlannedTrial(Trial("cell", "gin/cell.gin", seed), {}, {"run.num_env_steps": "1000"})


@pytest.fixture
def folder(tmp_path):
    for seed in range(3):
        (tmp_path / f"cell-seed{seed}").mkdir()
        (tmp_path / f"cell-seed{seed}" / "run.json").write_text(json.dumps({"final": FINAL}))
    return tmp_path


def play(stream, folder, **options):
    """Two trials run, of which one is finished and one fails; a third waits."""
    over = []
    options = {"on_over": lambda planned, outcome: over.append((planned.trial.seed, outcome)), **options}
    board = Board("study", 3, folder, stream, **options)
    for seed in range(2):
        board.started(planned(seed))
        board.moved(planned(seed), FIGURES)
    board.recovered(planned(1), "its worker died")
    board.started(planned(1))
    board.over(planned(0), "finished", "")
    board.over(planned(1), "failed", "its loss is not finite")
    board.close()
    assert over == [(0, "finished"), (1, "failed")]
    return stream.getvalue()


def test_rate_that_is_not_known_yet_is_a_dash():
    assert describe(0, {}) == "– steps/s, 0 episodes"
    assert describe(1, {}) == "– steps/s, 1 episode"
    assert describe(0, {tags.STEPS_PER_SECOND: float("nan")}) == "– steps/s, 0 episodes"


def test_screen_shows_every_running_trial_and_what_the_finished_reached(folder):
    shown = play(Screen(), folder)
    for expected in (
        "1 finished, 1 running, 1 waiting",
        "cell-seed0  50%",
        "cell-seed1  50%",
        "1,234 steps/s, 40 episodes, mean100 12.3, best100 –",
        "study: cell-seed1: its worker died; it goes on from its last checkpoint",
        "study: cell-seed0: best 100-episode mean 20.0, final 19.0, greedy 21.0, 1,000 steps, 1.5 minutes",
        "study: cell-seed1 failed: its loss is not finite",
    ):
        assert expected in shown
    assert "ε" not in shown  # figures that a sweep doesn't have


def test_log_gets_whole_lines_and_none_of_the_bars(folder):
    lines = play(io.StringIO(), folder, interval=0.0).splitlines()
    assert lines[0] == "study: 1 running, 2 waiting"
    assert all(line.startswith("study: ") for line in lines)
    assert not any("\r" in line or "\x1b" in line for line in lines)


def test_quiet_board_tells_of_failures_alone(folder):
    lines = play(Screen(), folder, quiet=True).splitlines()
    assert lines == [
        "study: cell-seed1: its worker died; it goes on from its last checkpoint",
        "study: cell-seed1 failed: its loss is not finite",
    ]


def test_final_line_leaves_out_what_was_not_measured():
    short = {**FINAL, "best_100_episode_mean": None, "evaluation": {}}
    assert describe_final(short) == "final 19.0, 1,000 steps, 1.5 minutes"
    assert describe_final({"summary": ["an entry"]}) == "finished"
