"""The plan that tells what can be reached on Pendulum-v1."""

import gymnasium
import numpy as np
import pendulum_optimum
import pytest

from ngrl.environments import Environment
from ngrl.training import evaluate


def test_transition_is_gymnasiums():
    environment = gymnasium.make("Pendulum-v1").unwrapped
    environment.reset(seed=0)
    draw = np.random.default_rng(0)
    for state in draw.uniform([-np.pi, -8, -2], [np.pi, 8, 2], (50, 3)):
        environment.state = state[:2].copy()
        observation, reward, *_ = environment.step(state[2:].astype(np.float32))
        angle, speed, expected = pendulum_optimum.transition(*state)
        np.testing.assert_allclose(observation, [np.cos(angle), np.sin(angle), speed], atol=1e-5)
        np.testing.assert_allclose(reward, expected, rtol=1e-5)


def test_a_coarse_plan_swings_up_from_everywhere():
    planner = pendulum_optimum.Planner(angles=121, speeds=121, torques=7)
    returns = evaluate(planner, Environment("Pendulum-v1"), 20, seed=7).returns
    assert min(returns) > -450  # an episode that hangs costs some 1,500
    assert -200 < np.mean(returns) < -100


@pytest.fixture
def _coarse(monkeypatch):
    """A grid of a fortieth of the points."""
    coarse = pendulum_optimum.Planner(angles=61, speeds=61, torques=5)
    monkeypatch.setattr(pendulum_optimum, "Planner", lambda: coarse)


@pytest.mark.usefixtures("_coarse")
def test_table_has_a_line_for_each_seed_and_their_mean(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["pendulum_optimum.py", "--seeds", "3", "4", "--episodes", "2"])
    pendulum_optimum.main()
    three, four, mean = (float(line.split("|")[2].strip(" *")) for line in capsys.readouterr().out.splitlines()[2:])
    assert mean == pytest.approx((three + four) / 2, abs=0.1)


@pytest.mark.usefixtures("_coarse")
def test_bad_input_is_answered_in_a_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["pendulum_optimum.py", "--episodes", "0"])
    with pytest.raises(SystemExit) as caught:
        pendulum_optimum.main()
    assert caught.value.code == 2
    assert "episodes must be a positive integer, got 0" in capsys.readouterr().err
