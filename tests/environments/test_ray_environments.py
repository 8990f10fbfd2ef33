"""Members in the actors of a real Ray cluster: two nodes on this machine, of which the last test kills one."""

import contextlib
import functools
import os
import re
import signal
import sys
import time
from pathlib import Path

import bench_ray
import numpy as np
import pytest
import tensorflow as tf
from run_contents import assert_identical, rows, variables
from small_runs import train

from ngrl import agents, environments, loops, networks, training
from ngrl.environments import AsyncEnvironments, EnvironmentFault, RayEnvironments, SyncEnvironments
from ngrl.environments.ray_actors import _slots
from ngrl.training.final_evaluation import Evaluation, FinalEvaluation
from ngrl.training.progress import Progress

STEP, RAISE, HANG = 0, 1, 3  # what test/Obedient-v0 is told


@pytest.fixture(scope="module")
def cluster():
    with pytest.MonkeyPatch.context() as patch:
        # As `ngrl.cluster` sets it, before Ray is imported.
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # or the actors would wait for the other tests
        patch.setenv("RAY_prestart_worker_first_driver", "0")  # there are enough actors to start
        import ray
        from ray.cluster_utils import Cluster

        lean = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **lean})
        cluster.add_node(num_cpus=1)
        terminate = signal.getsignal(signal.SIGTERM)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        signal.signal(signal.SIGTERM, terminate)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


def processes(environment):
    """The actors' process ids."""
    import ray

    actors = environment._vector._actors
    return [ray.get(actors[index].__ray_call__.remote(lambda members: os.getpid())) for index in sorted(actors)]


def kill_node(cluster):
    """End the cluster's second node, and with it its programs, which else would go on until they miss it."""
    (node,) = cluster.worker_nodes
    raylet = node.all_processes["raylet"][0].process.pid
    children = Path(f"/proc/{raylet}/task").glob("*/children")
    programs = [int(pid) for task in children for pid in task.read_text().split()]
    assert programs
    cluster.remove_node(node, allow_graceful=False)
    for pid in programs:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def assert_same_steps(environment, other, count, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        actions = rng.integers(2, size=environment.batch_size)
        for one, another in zip(environment.step_arrays(actions), other.step_arrays(actions), strict=True):
            np.testing.assert_array_equal(one, another)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a small agent on CartPole, in a directory of a name, without the export, which takes longer than the run."""
    monkeypatch.setattr(FinalEvaluation, "export", lambda *_: None)

    def agent(time_step_spec, action_spec, seed):
        network = networks.QNetwork(time_step_spec.observation, 2, (), seed=seed)
        return agents.DqnAgent(time_step_spec, action_spec, network, tf.keras.optimizers.Adam(0.01))

    def run(name, backend, num_env_steps, **options):
        loop = functools.partial(loops.OffPolicyLoop, batch_size=16, warmup_steps=64, jit_compile=False)
        counts = {"num_env_steps": num_env_steps, "checkpoint_every": 100, "episodes": 0}
        return train(tmp_path / name, "CartPole-v1", agent, loop, backend=backend, seed=1, **counts, **options)

    return run


def test_run_leaves_what_worker_processes_leave_and_is_resumed_bit_for_bit(cluster, run, tmp_path):
    run("whole", AsyncEnvironments(), 400, num_envs=2)
    run("parts", RayEnvironments(actors=2), 210, num_envs=2)
    run("parts", RayEnvironments(actors=1), 400, num_envs=2)  # whatever the number of actors
    assert_identical(variables(tmp_path / "whole"), variables(tmp_path / "parts"))
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")


def test_evaluation_plays_the_same_episodes_and_reserves_no_processors(cluster):
    def play(backend):
        settings = environments.Environment("CartPole-v1", backend=backend)
        return training.evaluate(lambda step: (step.observation[:, 2] > 0).astype(np.int64), settings, 3, num_envs=2)

    assert play(RayEnvironments(actors=1, cpus=100.0, timeout=60.0)) == play(SyncEnvironments())


def test_time_limit_of_evaluation_is_asked_for_beside_the_actors_that_hold_all_processors(cluster, load):
    backend = RayEnvironments(actors=1, cpus=100.0, timeout=30.0)
    settings = environments.Environment("CartPole-v1", backend=backend, training_time_limit=10)
    assert FinalEvaluation(Evaluation(), settings, 0).warnings(load("CartPole-v1", max_episode_steps=10)) == []


def test_lost_actor_is_replaced_its_episodes_begun_anew_and_the_state_then_comes_back(cluster, load):
    said = []
    environment = load("CartPole-v1", 3, seed=4, backend=RayEnvironments(actors=2, max_replacements=1, timeout=np.inf))
    environment.on_warning(said.append)
    same = load("CartPole-v1", 3, seed=4)
    for one, another in zip(environment.reset_arrays(), same.reset_arrays(), strict=True):
        np.testing.assert_array_equal(one, another)
    assert_same_steps(environment, same, 50)
    for pid in processes(environment):
        os.kill(pid, signal.SIGINT)  # as Ctrl-C sends it to all
    assert_same_steps(environment, same, 1)
    before = environment.get_state()
    for name, array in same.get_state().items():
        np.testing.assert_array_equal(before[name], array)
    os.kill(processes(environment)[0], signal.SIGKILL)  # of members 0 and 1
    step = environment.step_arrays(np.zeros(3, np.int64))
    after = environment.get_state()
    assert (after["episode"] - before["episode"]).tolist() == [1, 1, 0]
    assert after["length"].tolist() == [0, 0, before["length"][2] + 1]
    assert step.step_type[:2].tolist() == [0, 0]
    assert step.reward[:2].tolist() == [0, 0]
    assert re.fullmatch(
        r"CartPole-v1: Ray actor 0 \(members 0 to 1\) on [\d.]+ \(\w{8}\) is gone, since its worker process has died; "
        r"another on [\d.]+ \(\w{8}\) has taken its place, and 2 episodes were lost and are begun anew",
        *said,
    )
    # What is saved then comes back in any backend.
    same.set_state(after)
    assert_same_steps(environment, same, 3)
    os.kill(processes(environment)[0], signal.SIGKILL)
    message = (
        r"^CartPole-v1: Ray actor 0 \(members 0 to 1\) was lost 2 times without an end of an episode of its between: "
    )
    with pytest.raises(EnvironmentFault, match=message):
        environment.step_arrays(np.zeros(3, np.int64))
    with pytest.raises(EnvironmentFault, match="its Ray actors have ended: load it anew"):
        environment.reset_arrays()


def test_fault_names_the_member_and_an_actor_that_hangs_is_ended(cluster, load):
    environment = load("test/Obedient-v0", 3, backend=RayEnvironments(actors=1))
    environment.reset_arrays()
    environment.step_arrays(np.array([STEP, STEP, STEP]))
    with pytest.raises(
        EnvironmentFault,
        match=r"v0, member 1, step 2 of its episode: KeyError: 'told to' \(scripted_environments.py:\d+\)$",
    ) as caught:
        environment.step_arrays(np.array([STEP, RAISE, STEP]))
    assert (caught.value.member, caught.value.step) == (1, 2)
    assert environment.step_arrays(np.zeros(3, np.int64)).step_type.tolist() == [0, 0, 0]
    (pid,) = processes(environment)
    environment._vector._timeout = 0.5
    message = r"v0: Ray actor 0 \(members 0 to 2\) did not answer within 0.5 s; it was ended$"
    with pytest.raises(EnvironmentFault, match=message):
        environment.step_arrays(np.array([STEP, STEP, HANG]))
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


def test_member_that_cannot_be_closed_is_told_of(cluster, load):
    environment = load("test/Unclosable-v0", 2, backend=RayEnvironments(actors=1))
    said = []
    environment.on_warning(said.append)
    environment.reset_arrays()
    environment.close()
    assert [line.partition(": it can't be closed: ")[0] for line in said] == [
        f"test/Unclosable-v0, member {n}" for n in (0, 1)
    ]


def test_missing_ray_and_a_wrong_address_are_answered_with_a_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"^backend 'ray' needs the package ray: pip install 'ngrl\[sweep\]'$"):
        environments.load("CartPole-v1", backend="ray")
    monkeypatch.undo()
    with pytest.raises(EnvironmentFault, match=r"^CartPole-v1: no Ray at 127.0.0.1:1: .*refused"):
        environments.load("CartPole-v1", backend=RayEnvironments(address="127.0.0.1:1"))


@pytest.mark.parametrize("wrong", [{"actors": 0}, {"cpus": -1.0}, {"timeout": 0.0}, {"max_replacements": -1}])
def test_settings_out_of_their_range_are_refused(wrong):
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} must "):
        RayEnvironments(**wrong)


def test_actors_are_shared_out_in_proportion_to_processors():
    nodes = [("a", True, 2), ("b", True, 4), ("c", False, 8), ("d", True, 0)]
    slots = _slots({"NodeID": node, "Alive": alive, "Resources": {"CPU": cpus}} for node, alive, cpus in nodes)
    assert sorted(slots) == ["a", "a", "b", "b", "b", "b"]
    assert sorted(slots[:3]) == ["a", "b", "b"]


def test_bench_compares_actors_with_one_process(cluster, monkeypatch):
    monkeypatch.setattr(bench_ray, "MEMBERS", 1)
    (result,) = bench_ray.measure_ray(2, 0.05).values()
    for rate in result["env_steps_per_second"].values():
        assert 0 < rate["median"] < 50  # of 20 ms each
    assert result["ray_over_process"]["goal"] == ">= 8.0"


def test_run_goes_on_when_a_node_of_its_cluster_is_killed(cluster, run, tmp_path):
    """The last test here: the node is gone then."""
    import ray

    killed, said = [], []

    class Killing(Progress):
        def update(self, env_steps, episodes, scalars):
            if env_steps >= 128 and not killed:
                killed.append(env_steps)
                kill_node(cluster)

        def warn(self, line):
            said.append(line)

    backend = RayEnvironments(actors=2, address=cluster.address)
    result = run("run", backend, 512, num_envs=4, log_every=64, progress=Killing())
    assert killed
    assert result["env_steps"] >= 512
    assert result["train_steps"] > 300
    (line,) = said
    (left,) = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    assert f"({left[:8]}) has taken its place" in line
    assert "2 episodes were lost and are begun anew" in line
    # In CartPole a step is worth 1; no episode has steps of one that was lost.
    episodes = rows(tmp_path / "run")
    assert episodes
    assert all(float(row["return"]) == float(row["length"]) for row in episodes)
