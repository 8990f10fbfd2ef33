"""Worker processes don't outlive the environment or the program."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ngrl.environments import AsyncEnvironments, EnvironmentFault, SyncEnvironments
from ngrl.environments.workers import WorkerVector

ROOT = pathlib.Path(__file__).parents[2]

# Programs of their own do without `load`, which would import TensorFlow.
IMPORTS = f"""import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests" / "support")!r}]
import numpy as np
import scripted_environments
from ngrl.environments.making import MemberMaker
from ngrl.environments.workers import WorkerVector
"""
HANG = """
if __name__ == "__main__":
    scripted_environments.register()
    vector = WorkerVector(MemberMaker("test/Misbehaving-v0", 0, {"fault": "hang", "at": 2}), 2, None)
    vector.reset()
    vector.step(np.array([1, 1]))
    print(*[process.pid for process in vector.processes], flush=True)
    vector.step(np.array([0, 1]))
"""
# Signalled, it takes another step, as a run does for its last checkpoint.
TERMINATED = """
if __name__ == "__main__":
    import signal, threading
    arrived = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: arrived.set())
    vector = WorkerVector(MemberMaker("CartPole-v1", 0, {}), 2, 30.0)
    vector.reset()
    print("ready", flush=True)
    arrived.wait()
    arrived.clear()
    arrived.wait(0.5)
    vector.step(np.array([0, 1]))
    print("stepped", [len(episode.actions) for episode in vector.save()])
    vector.close()
"""
# Its environment's reward is the exit code of a simulator that it has ended.
STARTING = """
if __name__ == "__main__":
    import subprocess, gymnasium
    class Simulated(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,))
        action_space = gymnasium.spaces.Discrete(2)
        def reset(self, *, seed=None, options=None):
            self.simulator = subprocess.Popen(["sleep", "30"])
            return np.zeros(1, np.float32), {}
        def step(self, action):
            self.simulator.terminate()
            return np.zeros(1, np.float32), float(self.simulator.wait()), True, False, {}
    gymnasium.register("Simulated-v0", Simulated)
    vector = WorkerVector(MemberMaker("Simulated-v0", 0, {}), 1, None)
    vector.reset()
    print(vector.step(np.zeros(1, np.int64)).reward.tolist())
    vector.close()
"""
# Its environment's reward is the signal that ended a copy of the worker.
FORKING = """
if __name__ == "__main__":
    import os, signal, time, gymnasium
    class Forking(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,))
        action_space = gymnasium.spaces.Discrete(2)
        def reset(self, *, seed=None, options=None):
            return np.zeros(1, np.float32), {}
        def step(self, action):
            ready, told = os.pipe()
            copy = os.fork()
            if not copy:
                os.write(told, b".")
                time.sleep(5)
                os._exit(0)
            os.read(ready, 1)
            os.kill(copy, signal.SIGTERM)
            return np.zeros(1, np.float32), float(os.WTERMSIG(os.waitpid(copy, 0)[1])), True, False, {}
    gymnasium.register("Forking-v0", Forking)
    vector = WorkerVector(MemberMaker("Forking-v0", 0, {}), 1, None)
    vector.reset()
    print(vector.step(np.zeros(1, np.int64)).reward.tolist())
    vector.close()
"""
OPEN = """
if __name__ == "__main__":
    vector = WorkerVector(MemberMaker("CartPole-v1", 0, {}), 2, None)
    vector.reset()
    print(*[process.pid for process in vector.processes])
"""


def alive(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def pids(env):
    return [process.pid for process in env._vector.processes]


def test_close_ends_every_process_and_may_be_repeated(load):
    env = load("CartPole-v1", 3, backend="async")
    env.reset()
    workers = pids(env)
    assert len(workers) == 3
    assert all(alive(pid) for pid in workers)
    env.close()
    env.close()
    assert not any(alive(pid) for pid in workers)


def test_members_are_shared_out_among_as_many_processes_as_were_asked_for(load):
    for workers, made in ((1, 1), (2, 2), (5, 3)):
        env = load("CartPole-v1", 3, backend=AsyncEnvironments(workers=workers))
        assert len(set(pids(env))) == made
    for cores, besides in ((2, 1), (5, 2)):
        assert len(set(pids(load("CartPole-v1", 3, backend=SyncEnvironments(cores=cores))))) == besides
    for alone in (load("CartPole-v1", 1, backend=SyncEnvironments(cores=2)), load("CartPole-v1", 3)):
        assert not hasattr(alone._vector, "processes")
    with pytest.raises(ValueError, match="cores must be a positive integer, got 0"):
        SyncEnvironments(cores=0)
    with pytest.raises(ValueError, match="workers must be a positive integer, got 0"):
        AsyncEnvironments(workers=0)


def test_close_ends_processes_that_hang_or_are_stopped(load, monkeypatch):
    monkeypatch.setattr("ngrl.environments.workers._CLOSE_TIMEOUT", 0.3)
    env = load("CartPole-v1", 2, backend="async")
    env.reset()
    workers = pids(env)
    os.kill(workers[0], signal.SIGSTOP)
    env.close()
    assert not any(alive(pid) for pid in workers)


def test_a_script_without_a_main_guard_is_told_so(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(IMPORTS + "WorkerVector(MemberMaker('CartPole-v1', 0, {}), 2, None)\n")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True)
    assert done.returncode == 1
    assert 'must start its work under if __name__ == "__main__":' in done.stderr


def test_restoring_may_take_longer_than_a_step_may(load):
    env = load("CartPole-v1", 2, backend=AsyncEnvironments(timeout=60.0))
    env.reset()
    step = env.step(np.array([0, 1]))
    state = env.get_state()
    env._vector._timeout = 1e-9
    env.set_state(state)
    np.testing.assert_array_equal(env.current_time_step().observation, step.observation)
    for pid in pids(env):  # else an answer may be there at once
        os.kill(pid, signal.SIGSTOP)
    with pytest.raises(EnvironmentFault, match="no answer within 1e-09 s"):
        env.step(np.array([0, 1]))


@pytest.mark.parametrize("timeout", [np.inf, 1e9])
def test_any_timeout_can_be_waited_for(load, timeout):
    env = load("CartPole-v1", 1, backend=AsyncEnvironments(timeout=timeout))
    env.reset()
    env.step(np.array([0]))
    assert env.get_state()["length"].tolist() == [1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_leave_ctrl_c_and_sigterm_to_the_parent(load, number):
    env = load("CartPole-v1", 2, backend="async")
    env.reset()
    for pid in pids(env):
        os.kill(pid, number)
    time.sleep(0.1)
    env.step(np.array([0, 1]))
    assert env.get_state()["length"].tolist() == [1, 1]


def test_sigterm_to_all_processes_of_a_program_leaves_it_its_workers(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(IMPORTS + TERMINATED)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, str(program)], start_new_session=True, **pipes)
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert (output, errors) == ("stepped [1, 1]\n", "")


@pytest.mark.parametrize(("text", "reward"), [(STARTING, -signal.SIGTERM), (FORKING, signal.SIGTERM)])
def test_what_an_environment_has_started_ends_by_sigterm(tmp_path, text, reward):
    program = tmp_path / "program.py"
    program.write_text(IMPORTS + text)
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"[{reward}.0]\n"), done.stderr


@pytest.mark.parametrize(("backend", "processes"), [(AsyncEnvironments(), 2), (SyncEnvironments(cores=2), 1)])
def test_members_that_cannot_be_closed_are_told_of_wherever_they_are(load, capfd, backend, processes):
    env = load("test/Unclosable-v0", 2, backend=backend)
    said = []
    env.on_warning(said.append)
    assert len(pids(env)) == processes
    env.reset()
    env.close()
    said = sorted(line.partition(" (scripted_environments.py:")[0] for line in said)
    problem = "it can't be closed: RuntimeError: the port is held"
    assert said == [f"test/Unclosable-v0, member {n}: {problem}" for n in (0, 1)]
    assert "the port is held" not in capfd.readouterr().err


def test_a_program_ends_that_leaves_its_workers_open(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(IMPORTS + OPEN)
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not any(alive(int(pid)) for pid in done.stdout.split())


def test_answers_that_an_interruption_left_behind_are_never_taken_for_later_ones(load, monkeypatch):
    env = load("CartPole-v1", 2, backend="async")
    env.reset()
    monkeypatch.setattr(WorkerVector, "_answer", raising(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        env.step(np.array([0, 1]))
    monkeypatch.undo()
    with pytest.raises(EnvironmentFault, match="its worker processes have ended: load it anew"):
        env.step(np.array([0, 1]))
    assert not any(alive(pid) for pid in pids(env))


def raising(error):
    def answer(*arguments):
        raise error

    return answer


def test_killing_the_program_ends_its_workers_even_one_that_hangs(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(IMPORTS + HANG)
    process = subprocess.Popen(
        [sys.executable, str(program)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert len(workers) == 2
    time.sleep(0.2)  # into the step that hangs
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)
    assert "Traceback" not in process.stderr.read()
