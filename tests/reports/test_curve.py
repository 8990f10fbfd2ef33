"""Learning curves of runs that are over and of runs that go on."""

import math

import numpy as np
import pytest

from ngrl.reports.curve import Curve
from ngrl.runs.episodes import WINDOW, Episodes, EpisodeTail
from ngrl.runs.files import ReadError

HEADER = "episode,env_steps,train_steps,return,length,wall_s\n"


@pytest.fixture
def returns():
    return np.random.default_rng(0).normal(np.linspace(0, 300, 1500), 40).round(3)


def rows(returns):
    return [f"{n + 1},{10 * (n + 1)},{n},{value},10,{0.01 * (n + 1):.3f}\n" for n, value in enumerate(returns)]


def write(path, returns):
    path.write_text(HEADER + "".join(rows(returns)))


def test_means_are_those_of_every_hundred_consecutive_episodes(tmp_path, returns):
    write(tmp_path / "episodes.csv", returns)
    curve = Curve.read(tmp_path)
    expected = [np.mean(returns[end - WINDOW : end]) for end in range(WINDOW, len(returns) + 1)]
    np.testing.assert_allclose(curve.means, expected, rtol=1e-9)
    np.testing.assert_array_equal(curve.env_steps, 10 * curve.episodes)
    first = next(n for n, mean in enumerate(expected) if mean >= 150)
    assert curve.first_at_least(150.0) == (10 * (first + WINDOW), pytest.approx(0.01 * (first + WINDOW)))
    assert curve.first_at_least(1000.0) is None


def test_return_that_is_not_finite_spoils_the_means_that_it_is_in_alone(tmp_path, returns):
    returns = np.array(returns, float)
    returns[5] = np.nan
    write(tmp_path / "episodes.csv", returns)
    means = Curve.read(tmp_path).means
    assert np.isnan(means[:6]).all()
    assert np.isfinite(means[6:]).all()


def test_thinned_curve_keeps_the_best_mean_and_when_each_score_was_first_reached(tmp_path, returns):
    write(tmp_path / "episodes.csv", returns)
    curve = Curve.read(tmp_path)
    thin = curve.thinned()
    assert len(thin) < len(curve) / 2
    for score in np.linspace(curve.means[0], curve.means.max(), 50):
        assert thin.first_at_least(score) == curve.first_at_least(score)
    kept = tmp_path / "kept"
    kept.mkdir()
    thin.write(kept / "curve.csv")
    again = Curve.read(kept)
    for column in ("episodes", "env_steps", "wall_s", "means"):
        np.testing.assert_array_equal(getattr(again, column), getattr(thin, column))


def test_short_run_has_an_empty_curve(tmp_path):
    write(tmp_path / "episodes.csv", np.arange(99))
    assert len(Curve.read(tmp_path).thinned()) == 0
    (tmp_path / "episodes.csv").write_text(HEADER)
    assert len(Episodes.read(tmp_path / "episodes.csv")) == 0


@pytest.mark.parametrize(
    ("content", "expected"),
    [("a,b\n1,2\n", "has other columns"), (HEADER + "1,2,3,x,5,6\n", "can't read"), (None, "can't")],
)
def test_damaged_episodes_are_named(tmp_path, content, expected):
    if content is not None:
        (tmp_path / "episodes.csv").write_text(content)
    with pytest.raises(ReadError, match=expected) as caught:
        Curve.read(tmp_path)
    assert "episodes.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tail_follows_a_growing_file_and_one_that_is_cut_back(tmp_path, returns):
    path = tmp_path / "episodes.csv"
    tail = EpisodeTail(path)
    assert not tail.read()
    lines = rows(returns)
    path.write_text(HEADER + "".join(lines[:50]) + lines[50][:9])  # the last line isn't complete yet
    assert tail.read()
    assert tail.figures()["episodes"] == 50
    assert math.isnan(tail.figures()["best"])
    write(path, returns[:400])
    assert tail.read()
    means = [np.mean(returns[end - WINDOW : end]) for end in range(WINDOW, 401)]
    figures = tail.figures()
    assert (figures["episodes"], figures["env_steps"]) == (400, 4000)
    assert figures["mean"] == pytest.approx(means[-1])
    assert figures["best"] == pytest.approx(max(means))
    assert figures["rate"] == pytest.approx(1000)
    write(path, returns[:120])  # resumed from a checkpoint
    assert tail.read()
    assert tail.figures()["episodes"] == 120
    assert tail.figures()["best"] == pytest.approx(max(means[:21]))
