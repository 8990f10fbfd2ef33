"""SIGTERM, Ctrl-C, and two runs in one directory."""

import os
import signal
import time

import pytest
from experiments import arguments


def checkpoints(folder):
    return sorted(int(path.name[5:]) for path in (folder / "checkpoints").glob("step_*"))


@pytest.mark.parametrize(("agent", "number", "code"), [("ngdqn", signal.SIGTERM, 143), ("trpo", signal.SIGINT, 130)])
def test_signal_leaves_a_checkpoint_and_says_how_to_resume(start, tmp_path, agent, number, code):
    forever = arguments(agent, "CartPole-v1", "run", steps=10**9)
    run = start(*forever)
    run.wait_until(lambda: checkpoints(tmp_path / "run"))
    second = start(*forever)
    assert second.wait() == 2
    assert second.lines[-1] == f"ngrl.launch: run is in use by process {run.pid}"
    assert run.kill(number) == code
    assert "a checkpoint is written and the same command resumes run" in run.lines[-1]
    newest = checkpoints(tmp_path / "run")[-1]
    resumed = start(*arguments(agent, "CartPole-v1", "run", steps=newest + 100), export=False)
    assert resumed.wait() == 0
    assert any(f"resuming at {newest:,} environment steps" in line for line in resumed.lines)


def test_second_ctrl_c_ends_a_run_that_the_first_could_not(start, tmp_path):
    # The environment hangs in the run's own process, so that no step ever ends.
    run = start(*arguments("ngdqn", "test/Hanging-v0", "run", "Environment.kwargs={'patience': 60}", steps=10**9))
    run.wait_until(lambda: (tmp_path / "hanging").exists())
    os.kill(run.pid, signal.SIGINT)
    time.sleep(0.5)  # two signals at once would be one
    assert run.kill(signal.SIGINT) == 130
    assert run.lines[-1] == (
        "ngrl.launch: stopped at once; the same command resumes run from its last checkpoint, if it has one"
    )
    assert checkpoints(tmp_path / "run")


def test_run_is_stopped_amid_the_first_episode_of_its_evaluation(start, tmp_path):
    run = start(*arguments("ngdqn", "test/Endless-v0", "run"))
    run.wait_until(lambda: (tmp_path / "run" / "policy_collect").exists())
    time.sleep(1.0)  # into the episode, which never ends
    assert run.kill(signal.SIGTERM) == 143
    assert "the same command resumes run" in run.lines[-1]


@pytest.fixture(scope="module")
def exported(server, tmp_path_factory):
    """The folder of an exported policy."""
    folder = tmp_path_factory.mktemp("exported")
    argv = arguments("ngdqn", "CartPole-v1", folder / "run", steps=100)
    pid = server.ask(argv=argv, cwd=str(folder), output=str(folder / "output.txt"))
    assert server.ask(wait=pid) == 0, (folder / "output.txt").read_text()
    return folder / "run" / "policy"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_evaluate_is_stopped_with_a_line_and_no_traceback(start, tmp_path, exported, number, code):
    before = sorted(exported.parent.iterdir())
    evaluation = start(f"--policy_dir={exported}", "--trust", "--episodes=100000000", command="evaluate")
    time.sleep(2.0)  # into loading the policy or playing with it
    assert evaluation.kill(number) == code
    assert evaluation.lines[-1] == "ngrl.evaluate: stopped; nothing was written"
    assert not any("Traceback" in line for line in evaluation.lines)
    assert sorted(exported.parent.iterdir()) == before
