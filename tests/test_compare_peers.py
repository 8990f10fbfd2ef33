"""`tools/compare_peers.py`, without the peers: turns, ratios, the workers' protocol, installation, ngrl's own side."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import gin
import numpy as np
import pytest

from ngrl import configuration
from ngrl.training import configurables  # noqa: F401  (the first tells gin the names)

TOOLS = Path(__file__).parents[1] / "tools"
sys.path += [str(TOOLS), str(TOOLS / "peers")]

import compare_peers  # noqa: E402
import ngrl_worker  # noqa: E402
from peers import installation, networks, report, worker_protocol  # noqa: E402
from peers.contestants import Contestant, WorkerError, ngrl_contestant, worker_environment  # noqa: E402
from peers.rows import PEERS, ROWS  # noqa: E402
from peers.worker_protocol import Settings  # noqa: E402

ANY = Settings("trpo", "CartPole-v1", (64, 64), "tanh", minibatch=128)


@pytest.fixture(autouse=True)
def _empty_gin():
    gin.clear_config()
    yield
    gin.clear_config()


def segments(rates, updates=None):
    """What a contestant says that makes so many steps in a second, round by round."""
    updates = updates or [None] * len(rates)
    return [
        {"env_steps": rate, "seconds": 1.0, "update_seconds": seconds}
        for rate, seconds in zip(rates, updates, strict=True)
    ]


def test_ratios_are_taken_within_each_round():
    # The machine halts in the second round, for both alike: the ratio of the medians would be 1000 / 450.
    figures = report.summarise({"1": {"ngrl": segments([1000, 10, 1200]), "sb3-1": segments([500, 5, 450])}})["1"]
    assert figures["sb3-1"]["ngrl_speedup"]["median"] == 2.0
    assert figures["sb3-1"]["env_steps_per_second"] == {"median": 450.0, "q1": 227.5, "q3": 475.0}
    assert "ngrl_speedup" not in figures["ngrl"]


def test_update_ratio_is_of_the_rounds_median_times_and_only_where_both_are_known():
    ngrl = segments([10, 10], [[0.010, 0.012, 0.5], [0.010, 0.010]])
    peer = segments([10, 10], [[0.036], [0.030, 0.030]])
    figures = report.summarise({"1": {"ngrl": ngrl, "told": peer, "untold": segments([10, 10])}})["1"]
    assert figures["ngrl"]["update_ms"]["median"] == pytest.approx(11.0)
    assert figures["told"]["ngrl_update_speedup"]["median"] == pytest.approx(3.0)
    assert "ngrl_update_speedup" not in figures["untold"]
    assert "ngrl_speedup" in figures["untold"]


def test_default_threads_are_related_to_one_thread_of_the_same_contestant():
    measured = {
        "1": {"ngrl": segments([100, 100]), "sb3-1": segments([10, 10])},
        "default": {"ngrl": segments([150, 150]), "sb3-1": segments([5, 5])},
    }
    figures = report.summarise(measured)
    assert figures["default"]["ngrl"]["over_one_thread"]["median"] == 1.5
    assert figures["default"]["sb3-1"]["over_one_thread"]["median"] == 0.5
    assert "over_one_thread" not in figures["1"]["ngrl"]


def test_table_shows_each_contestant_and_says_what_was_not_measured():
    figures = report.summarise({"1": {"ngrl": segments([4000, 4000]), "sb3-8": segments([1000, 1000])}})
    names = {"ngrl": {"name": "ngrl", "num_envs": 8}, "sb3-8": {"name": "SB3", "num_envs": 8}}
    good = {"env_id": "CartPole-v1", "note": "a note", "contestants": names, "figures": figures}
    text = report.table({"rounds": 2, "rows": {"good": good, "bad": {"error": "no gin file"}}})
    assert "| good | 1 | SB3 | 8 | 1,000 (1,000–1,000) | – | 4 (4–4) | – | – |" in text
    assert "good: CartPole-v1, a note" in text
    assert "bad: not measured: no gin file" in text


def test_a_row_of_steps_has_no_environments():
    row = next(row for row in ROWS if row.name == "step-4-64-1-egn_mse")
    settings = compare_peers.settings_of(row, [1, 8], processor_time=True)
    assert {name: each.num_envs for name, each in settings.items()} == {"ngrl": 0, "egn_mse-0": 0}
    assert all(each.processor_time for each in settings.values())
    steps = segments([500, 500], [[0.002], [0.002]])
    row_report = {
        "env_id": "4-64-1",
        "note": "B = 128",
        "contestants": {"ngrl": {"name": "ngrl", "num_envs": 0}},
        "figures": report.summarise({"1": {"ngrl": steps}}),
    }
    text = report.table({"rounds": 2, "rows": {row.name: row_report}})
    assert f"| {row.name} | 1 | ngrl | – | 500 (500–500) | 2 (2–2) | – | – | – |" in text


def test_networks_have_the_known_numbers_of_parameters():
    def count(name):
        return sum(np.prod(shape) + shape[-1] for shape in networks.shapes(networks.NETWORKS[name]))

    # MinAtar's with six outputs has 132,566, the Nature network with four 1,686,180.
    assert count("minatar") == 132_566 - 5 * 129
    assert count("nature") == 1_686_180 - 3 * 513
    assert count("8-256-128-1") == 9 * 256 + 257 * 128 + 129


def test_the_quickest_way_is_timed_after_its_first_call(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr(worker_protocol, "now", lambda: clock[0])

    def way(name, first, later):
        def call():
            clock[0] += later if name in calls else first
            calls.append(name)

        return call

    run = worker_protocol.quickest([way("slow", 0.1, 2.0), way("quick", 9.0, 1.0)], steps=4)
    assert calls == ["slow", "slow", "quick", "quick"]
    assert run(6) == (8, [0.25])
    assert calls[4:] == ["quick", "quick"]


def test_ngrls_steps_are_made_many_in_a_call():
    """By `ngrl_steps_worker`."""
    contestant = ngrl_contestant(Settings("egn_mse", "4-64-1", (), "", 128, threads=1))
    try:
        contestant.wait_until_ready()
        result = contestant.run(33)
    finally:
        contestant.close()
    assert result["env_steps"] == 64
    assert 0 < result["update_seconds"][0] <= result["seconds"] / 64


def test_an_update_takes_what_a_training_step_takes_beyond_the_others():
    steps = [(0.1, False), (0.3, False), (0.2, False), (5.2, True), (0.2, False), (7.2, True)]
    assert ngrl_worker.update_seconds(steps) == pytest.approx([5.0, 7.0])
    assert ngrl_worker.update_seconds([(1.0, True), (1.0, True)]) is None


def test_contestants_take_turns_of_about_the_asked_length():
    order = []

    class Fake:
        def __init__(self, name, rate):
            self.name, self.rate = name, rate

        def run(self, env_steps):
            order.append((self.name, env_steps))
            return {"env_steps": env_steps, "seconds": env_steps / self.rate, "update_seconds": None}

    contestants = {
        ("1", "ngrl"): Fake("a", 1000.0),
        ("1", "sb3-1"): Fake("b", 10.0),
        ("default", "ngrl"): Fake("c", 450),
    }
    measured = compare_peers.interleave(contestants, rounds=3, seconds=2.0, unit=100)
    assert order == [("a", 100), ("b", 100), ("c", 100)] + [("a", 2000), ("b", 100), ("c", 900)] * 3
    assert [len(of) for of in (measured["1"]["ngrl"], measured["1"]["sb3-1"], measured["default"]["ngrl"])] == [3] * 3


def worker(tmp_path, body):
    """The command of a worker whose `make` has this body."""
    path = tmp_path / "worker.py"
    path.write_text(
        f"import os, sys\nsys.path.append({str(TOOLS / 'peers')!r})\nfrom worker_protocol import serve\n"
        f"def make(settings):\n{body}\nserve(make)\n"
    )
    return [sys.executable, str(path)]


def test_what_a_worker_prints_does_not_reach_the_protocol(tmp_path):
    body = (
        "    print('noise'); os.write(1, b'noise from C\\n')\n"
        "    def run(n):\n        print('more noise')\n        return n + settings.num_envs, [0.5]\n"
        "    return run"
    )
    contestant = Contestant("fake", worker(tmp_path, body), ANY)
    try:
        contestant.wait_until_ready()
        for asked in (5, 7):
            result = contestant.run(asked)
            assert (result["env_steps"], result["update_seconds"]) == (asked + 8, [0.5])
            assert result["seconds"] >= 0
    finally:
        contestant.close()


def test_a_failed_worker_is_reported_with_its_last_line(tmp_path):
    contestant = Contestant("fake", worker(tmp_path, "    raise KeyError('no such thing')"), ANY)
    try:
        with pytest.raises(WorkerError, match=r"fake ended with exit code 1: KeyError: 'no such thing'"):
            contestant.wait_until_ready()
    finally:
        contestant.close()


def test_a_worker_has_one_thread_or_its_librarys_default(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert "OMP_NUM_THREADS" not in worker_environment(0)
    one = worker_environment(1)
    assert one["OMP_NUM_THREADS"] == one["TF_NUM_INTRAOP_THREADS"] == "1"


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """Lets pip find one tiny package, and no index."""
    wheel = tmp_path / "wheels" / "ngrl_tiny-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("ngrl_tiny.py", "")
        archive.writestr("ngrl_tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: ngrl-tiny\nVersion: 1.0\n")
        archive.writestr("ngrl_tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("ngrl_tiny-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))


def test_installation_is_done_once_and_a_failed_one_does_not_count(offline, tmp_path, monkeypatch):
    venv = tmp_path / "venv"
    with pytest.raises(installation.InstallationError, match=r"installing the peers failed: ERROR: .*ngrl-absent") as e:
        installation.ensure(venv, ["ngrl-absent==1.0"])
    assert "\n" not in str(e.value)
    assert not installation.is_complete(venv, ["ngrl-absent==1.0"])

    python = installation.ensure(venv, ["ngrl-tiny==1.0"])
    assert subprocess.run([python, "-c", "import ngrl_tiny"], check=False).returncode == 0

    monkeypatch.setattr(installation.subprocess, "run", lambda *args, **kwargs: pytest.fail("installed again"))
    assert installation.ensure(venv, ["ngrl-tiny==1.0"]) == python
    assert not installation.is_complete(venv, ["ngrl-tiny==1.1"])
    assert [installation.folder(venv, name) for name in ("torch", "sbx")] == [venv, tmp_path / "venv-sbx"]


def stub(path, script):
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_uv_makes_the_environment_where_python_has_no_venv(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", stub(tmp_path / "python", "exit 1"))
    monkeypatch.setattr(installation.shutil, "which", lambda name: None)
    with pytest.raises(installation.InstallationError, match=r"can't make a virtual environment: install .* or uv"):
        installation.ensure(tmp_path / "venv", ["any"])

    # This uv makes a Python whose pip accepts everything.
    made = r'for last; do :; done; cd "$last"; mkdir bin; printf "#!/bin/sh\n" >bin/python; chmod +x bin/python'
    monkeypatch.setattr(installation.shutil, "which", lambda name: stub(tmp_path / name, made))
    assert installation.ensure(tmp_path / "venv", ["any"]) == tmp_path / "venv" / "bin" / "python"
    assert installation.is_complete(tmp_path / "venv", ["any"])


def test_a_folder_of_something_else_is_refused_in_one_line_and_left_alone(tmp_path):
    treasure = tmp_path / "thesis.tex"
    treasure.write_text("years of work")
    command = [sys.executable, str(TOOLS / "compare_peers.py"), "--only", "ppo-cartpole-sb3", "--venv", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        f"compare_peers: {tmp_path} exists and is no environment of this tool: name another folder with --venv"
    ]
    assert treasure.read_text() == "years of work"


def test_only_selects_rows_and_refuses_what_matches_none(capsys):
    assert [row.name for row in compare_peers.parse(["--only", "^dqn"]).rows] == [
        "dqn-cartpole-sb3",
        "dqn-lunar-sb3",
        "dqn-cartpole-sbx",
        "dqn-cartpole-rejax",
    ]
    for wrong, message in (
        (["--only", "dqm"], "no row matches"),
        (["--peer_envs", "3"], "must divide"),
        (["--clock", "processor"], "goes with --threads 1"),
        (["--output", "/nowhere/at/all.json"], "no such folder"),
    ):
        with pytest.raises(SystemExit):
            compare_peers.parse(wrong)
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_rows_gin_file_and_bindings_are_accepted_and_its_worker_is_there(row):
    assert (TOOLS / "peers" / PEERS[row.peer].worker).exists()
    assert PEERS[row.peer].environment in ("", *installation.REQUIREMENTS)
    if row.is_steps:
        return
    configuration.parse([row.settings.gin_file], ngrl_worker.bindings(row.settings))
    environment = ngrl_worker.bound("environment")
    assert (environment.env_id, environment.num_envs) == (row.settings.env_id, row.settings.num_envs)
    assert (type(environment.backend).__name__ == "CompiledEnvironments") == row.settings.compiled


def test_what_is_bound_on_the_command_line_reaches_ngrls_worker_after_the_rows_own():
    (row,) = compare_peers.parse(["--only", "hopper", "--gin_bindings", "OnPolicyLoop.act_on_host = True"]).rows
    ngrl, peer = compare_peers.settings_of(row, [8], processor_time=False).values()
    lines = ngrl_worker.bindings(Settings.from_json(ngrl.to_json()))
    assert lines[-2:] == ["GeneralisedAdvantage.reward_normaliser = None", "OnPolicyLoop.act_on_host = True"]
    assert peer.env_id == "Hopper-v5"


def test_ngrls_worker_trains_whole_batches_and_times_their_updates():
    row = next(row for row in ROWS if row.name == "ppo-cartpole-sb3")
    changed = {"hidden": (8,), "batch_steps": 64, "minibatch": 32, "epochs": 1, "threads": 1}
    contestant = ngrl_contestant(Settings(**{**vars(row.settings), **changed}))
    try:
        contestant.wait_until_ready()
        result = contestant.run(128)
    finally:
        contestant.close()
    updates = len(result["update_seconds"])
    assert updates >= 2
    # Resets between episodes take a row of the batch each, and are no environment steps.
    assert 128 <= result["env_steps"] <= 64 * updates
    assert all(0 < seconds < result["seconds"] for seconds in result["update_seconds"])


def test_tf_agents_worker_trains_whole_batches():
    settings = {"hidden": (8,), "batch_steps": 64, "minibatch": 64, "epochs": 1, "num_envs": 2, "threads": 1}
    code = f"""
import json, tf_agents_worker
from worker_protocol import Settings
run = tf_agents_worker.make(Settings("ppo", "CartPole-v1", activation="tanh", **{settings!r}))
print(json.dumps(run(100)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TOOLS.parent), str(TOOLS / "peers")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    env_steps, seconds = json.loads(done.stdout.splitlines()[-1])
    assert env_steps == 128
    assert len(seconds) == 2
    assert min(seconds) > 0


def test_settings_survive_the_command_line():
    assert Settings.from_json(ANY.to_json()) == ANY
    assert json.loads(ANY.to_json())["algorithm"] == "trpo"
