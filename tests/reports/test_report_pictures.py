"""What pictures of a report show, read off the figure before it is drawn."""

import matplotlib.text
import numpy as np
import pytest
from support.report_runs import HEADER, write_run

from ngrl import figures
from ngrl.reports import pictures, runs, statistics


@pytest.fixture
def figure_of(monkeypatch):
    """Draws a picture of the runs of a folder and returns its figure, or None where there is none."""
    monkeypatch.setattr(figures, "as_png", lambda figure: figure)

    def draw(name, folder):
        cells = statistics.cells(runs.collect([folder])[0])
        return pictures.draw_all(cells, [], []).get(name)

    return draw


def test_curves_of_methods_whose_names_differ_in_punctuation_are_two_pictures(tmp_path):
    for name in ("my-x-seed0", "my_x-seed0"):
        write_run(tmp_path, name, "CartPole-v1", (1.0, 2.0, 3.0))
    drawn = pictures.draw_all(statistics.cells(runs.collect([tmp_path])[0]), [], [])
    assert {name for name in drawn if name.startswith("curves_")} == {"curves_my_x", "curves_my_x_2"}


def test_methods_on_an_environment_are_drawn_beside_each_other(tmp_path, figure_of):
    for seed, level in enumerate((10.0, 20.0, 30.0, 400.0)):
        write_run(tmp_path, f"ngdqn_cartpole_v1-seed{seed}", "CartPole-v1", (0.0, level))
    write_run(tmp_path, "dqn_cartpole_v1-seed0", "CartPole-v1", (0.0, 50.0, 50.0))
    write_run(tmp_path, "dqn_cartpole_v1-seed1", "CartPole-v1", (0.0, 70.0))
    write_run(tmp_path, "dqn_cartpole_v1-batch_size=8-seed0", "CartPole-v1", (0.0, 1.0))  # of a grid
    write_run(tmp_path, "dqn_acrobot-seed0", "Acrobot-v1", (0.0, 1.0))  # nothing beside it
    (axis,) = figure_of("methods", tmp_path).axes
    assert axis.get_title() == "CartPole-v1"
    natural, plain = axis.lines
    assert [line.get_label() for line in axis.lines] == ["NGDQN, trust region (4)", "DQN, target network (2)"]
    # Without the lowest and the highest of four; a mean of two. Steps are in thousands, and all trials have two.
    assert (natural.get_xdata()[-1], natural.get_ydata()[-1]) == (2.0, 25.0)
    assert (plain.get_xdata()[-1], plain.get_ydata()[-1]) == (2.0, 60.0)
    (band,) = axis.collections
    (bounds,) = [path.vertices for path in band.get_paths()]
    at_the_end = bounds[bounds[:, 0] == 2.0, 1]
    assert 10 <= at_the_end.min() < 25 < at_the_end.max() <= 400


@pytest.mark.parametrize("other", ["dqn_acrobot", "ngdqn_acrobot-batch_size=8"])
def test_one_method_an_environment_is_not_compared(tmp_path, figure_of, other):
    write_run(tmp_path, "ngdqn_lunar-seed0", "LunarLander-v3", (1.0, 2.0))
    write_run(tmp_path, f"{other}-seed0", "Acrobot-v1", (1.0, 2.0))
    assert figure_of("methods", tmp_path) is None


def test_trials_without_a_step_in_common_have_their_method_named(tmp_path, figure_of):
    for seed, episodes in enumerate((100, 100, 300)):
        write_run(tmp_path, f"dqn_cartpole_v1-seed{seed}", "CartPole-v1", (1.0,) * (episodes // 100))
    write_run(tmp_path, "ngdqn_cartpole_v1-seed0", "CartPole-v1", (1.0, 2.0))
    (axis,) = figure_of("methods", tmp_path).axes
    assert "DQN, target network (3)" in [line.get_label() for line in axis.lines]


def test_settings_of_a_grid_stand_below_each_other_by_what_their_trials_play(tmp_path, figure_of):
    for name, levels in (
        ("dqn_cartpole_v1", (100.0, 300.0, 200.0)),
        ("dqn_cartpole_v1-activation=relu", (100.0, 120.0, 110.0)),
        ("dqn_cartpole_v1-layer_norm=True", (400.0, 430.0, 410.0, 420.0)),
        ("dqn_cartpole_v1-batch_size=8", (500.0, 500.0)),  # too few for an interval
        ("ngdqn_cartpole_v1", (1.0, 2.0, 3.0)),  # nothing beside it
    ):
        for seed, level in enumerate(levels):
            write_run(tmp_path, f"{name}-seed{seed}", "CartPole-v1", (level, level))
    (axis,) = figure_of("settings", tmp_path).axes
    assert axis.get_title() == "CartPole-v1, DQN, target network"
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels == ["layer_norm=True (4)", "as it is (3)", "activation=relu (3)"]
    by_row = {}
    for line in axis.lines:
        by_row.setdefault(round(-line.get_ydata()[0]), []).append(line.get_xdata())
    ends, middle, dots, mean = by_row[0]
    greedy = np.array([400.0, 430.0, 410.0, 420.0]) + 1  # as the runs of these tests end
    np.testing.assert_array_equal(dots, greedy)
    assert (middle, mean) == (pytest.approx([416.0]), pytest.approx([416.0]))
    assert 401 <= ends[0] < 416 < ends[1] <= 431


@pytest.mark.parametrize("cells", [{"x": 3}, {"x": 3, "x-b=1": 2}, {"x-b=1": 1, "x-b=2": 1}])
def test_without_a_setting_that_has_trials_enough_there_is_no_such_picture(tmp_path, figure_of, cells):
    for name, seeds in cells.items():
        for seed in range(seeds):
            write_run(tmp_path, f"{name}-seed{seed}", "CartPole-v1", (1.0, 1.0))
    assert figure_of("settings", tmp_path) is None


def test_scores_are_drawn_where_a_cell_is_of_no_grid(tmp_path, figure_of):
    write_run(tmp_path, "dqn_cartpole_v1-batch_size=8-seed0", "CartPole-v1", (1.0, 1.0))
    assert figure_of("scores", tmp_path) is None
    write_run(tmp_path, "dqn_cartpole_v1-seed0", "CartPole-v1", (1.0, 1.0))
    assert "Grids are left out" in _captions(figure_of("scores", tmp_path))


@pytest.mark.parametrize(("env_id", "told"), [("CartPole-v1", True), ("Pendulum-v1", False)])
def test_what_was_published_is_explained_where_it_is_drawn(tmp_path, figure_of, env_id, told):
    write_run(tmp_path, "dqn_x-seed0", env_id, (1.0, 1.0))
    figure = figure_of("scores", tmp_path)
    assert ("as published" in _captions(figure)) == told
    assert any("published" in label.get_text() for label in figure.axes[0].get_yticklabels()) == told


def test_times_have_the_room_that_they_need(tmp_path, figure_of):
    """Seconds and hours, and no panel without either."""
    write_run(tmp_path, "ppo_x-seed0", "CartPole-v1", (500.0,))
    write_run(tmp_path, "ppo_y-seed0", "Acrobot-v1", (-500.0,))
    figure = figure_of("time_to_published", tmp_path)
    (axis,) = figure.axes
    (dot,) = axis.lines
    low, high = axis.get_xlim()
    assert low < dot.get_xdata()[0] < high < 60
    assert "strokes" not in _captions(figure)
    write_run(tmp_path, "ngdqn_cartpole_v1-seed0", "CartPole-v1", (500.0,))
    figure = figure_of("time_to_published", tmp_path)
    assert figure.axes[0].get_xlim()[1] > 9 * 60
    assert "strokes" in _captions(figure)


@pytest.mark.parametrize("name", ["scores", "time_to_published"])
def test_pictures_of_what_no_trial_has_are_left_out(tmp_path, figure_of, name):
    final = {"env_steps": 0, "episodes": 0, "wall_s": 1.0}
    final |= {"best_100_episode_mean": None, "final_100_episode_mean": None}
    root_dir = write_run(tmp_path, "ppo_x-seed0", "CartPole-v1", (1.0,), final=final)
    (root_dir / "episodes.csv").write_text(HEADER)
    assert figure_of(name, tmp_path) is None


def _captions(figure):
    return " ".join(text.get_text() for text in figure.findobj(matplotlib.text.Text)).replace("\n", " ")


def test_environment_without_a_score_has_no_panel_and_a_trial_without_one_has_its_row(tmp_path, figure_of):
    short = {"env_steps": 10, "episodes": 1, "wall_s": 1.0, "best_100_episode_mean": None}
    short["final_100_episode_mean"] = 1.0
    for name, env_id in (("a", "Ant-v5"), ("a", "Hopper-v5"), ("c", "Hopper-v5")):
        root_dir = write_run(tmp_path, f"{name}_{env_id[:3]}-seed0", env_id, (1.0,), final=short)
        (root_dir / "episodes.csv").write_text(HEADER + "1,10,1,1.0,10,1.0\n")
    write_run(tmp_path, "b_Hop-seed0", "Hopper-v5", (1.0,))
    (axis,) = figure_of("scores", tmp_path).axes
    assert "Hopper-v5" in axis.get_title()
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a_Hop (0 of 1)", "b_Hop (1)", "c_Hop (0 of 1)"]
    assert axis.get_ylim() == (-2.5, 0.5)
