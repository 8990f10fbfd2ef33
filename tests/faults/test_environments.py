"""What an environment does wrong ends a run with one line, and no process outlives it."""

import signal
import time
from pathlib import Path

import pytest
from experiments import arguments


def descendants(pid):
    """Ids of all processes that a process has started, and those of theirs."""
    children = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found, pending = [], [pid]
    while pending:
        pending += (new := children.get(pending.pop(), []))
        found += new
    return found


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def assert_gone(pids):
    deadline = time.monotonic() + 20
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in pids if alive(pid)]


@pytest.mark.parametrize(
    ("agent", "fault", "problem"),
    [
        ("ngdqn", "raise", "KeyError: 'the engine\\nis broken' (scripted_environments.py:"),
        ("ngdqn", "quit", "SystemExit (scripted_environments.py:"),
        ("ngdqn", "shape", "observation has shape (3,), the space says (2,)"),
        ("trpo", "dtype", "observation has dtype <U1, the space says float32"),
        ("trpo", "nan reward", "reward is not finite: nan; check_finite=False lets it pass"),
    ],
)
def test_fault_of_an_environment_ends_a_run_with_one_line_and_its_checkpoints(start, tmp_path, agent, fault, problem):
    # Each member's 41st episode begins after 160 steps: those of two checkpoints.
    settings = {"fault": fault, "at": 2, "first_episode": 40, "max_episode_steps": 4}
    run = start(*arguments(agent, "test/Misbehaving-v0", "run", f"Environment.kwargs={settings}", steps=10**9))
    assert run.wait() == 1
    line = run.lines[-1]
    assert line.startswith("ngrl.launch: test/Misbehaving-v0, member ")
    assert f", step 2 of its episode: {problem}" in line
    assert not any("Traceback" in line for line in run.lines)
    assert len(list((tmp_path / "run" / "checkpoints").glob("step_*"))) == 2


@pytest.mark.parametrize("agent", ["ngdqn", "trpo"])
def test_worker_that_hangs_ends_a_run_after_its_time_and_leaves_no_process(start, tmp_path, agent):
    settings = (
        "Environment.kwargs={'patience': 60}",
        "Environment.backend=@AsyncEnvironments()",
        "AsyncEnvironments.timeout=1.0",
        "Environment.num_envs=2",
    )
    run = start(*arguments(agent, "test/Hanging-v0", "run", *settings, steps=10**9))
    run.wait_until(lambda: (tmp_path / "hanging").exists())
    processes = descendants(run.pid)
    assert len(processes) >= 3  # two workers and what starts them
    assert run.wait() == 1
    assert run.lines[-1] == (
        "ngrl.launch: test/Hanging-v0, member 0, step 1 of its episode: no answer within 1 s; its process was ended"
    )
    assert_gone(processes)


def test_killing_a_run_ends_its_workers_and_the_same_command_resumes_it(start, tmp_path):
    settings = ("Environment.backend=@AsyncEnvironments()", "Environment.num_envs=2")
    run = start(*arguments("trpo", "CartPole-v1", "run", *settings, steps=10**9))
    run.wait_until(lambda: list((tmp_path / "run" / "checkpoints").glob("step_*")))
    processes = descendants(run.pid)
    assert len(processes) >= 3
    run.kill(signal.SIGKILL)
    assert_gone(processes)
    resumed = start(*arguments("trpo", "CartPole-v1", "run", *settings, steps=200), export=False)
    assert resumed.wait() == 0, resumed.lines
    assert any("resuming at " in line for line in resumed.lines)


def test_environment_that_goes_to_another_folder_takes_nothing_of_the_run_along(command, tmp_path):
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    elsewhere.mkdir()
    here.mkdir()
    kwargs = f"Environment.kwargs={{'elsewhere': '{elsewhere}'}}"
    argv = [*arguments("trpo", "test/Wandering-v0", "runs/x", kwargs, steps=200), "--capture_video"]
    done = command("launch", *argv, cwd=here)
    assert done.returncode == 0, done.stderr
    assert "  policy       runs/x/policy\n" in done.stdout
    assert {path.name for path in (here / "runs/x").iterdir()} >= {"run.json", "episodes.csv", "policy", "video.gif"}
    argv = ["--policy_dir=runs/x/policy", "--allow_gin_import=faulty_environments", "--video=film", "--episodes=2"]
    done = command("evaluate", *argv, cwd=here)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (here / "film").iterdir()] == ["test_Wandering-v0.gif"]
    assert list(elsewhere.iterdir()) == []
