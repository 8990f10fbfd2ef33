"""`ngrl.sweep` as a user runs it: a real sweep on Ray with two small trials, interrupted and with workers killed."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from ngrl import cluster, report
from ngrl import sweep as command
from ngrl.studies.study import Plan, PlannedTrial, Study
from ngrl.studies.trials import Trial

ROOT = Path(__file__).parents[1]
INTERVAL = 500  # environment steps between checkpoints
NUM_ENVS = 8
STUDY = f"""
Study.parts = (@small/Part(),)
small/Part.experiments = ("gin/ngdqn_cartpole_v1.gin",)
small/Part.seeds = 2
small/Part.bindings = {{
    "run.num_env_steps": 6000,
    "Environment.num_envs": {NUM_ENVS},
    "run.checkpoint_every": {INTERVAL},
    "run.log_every": 200,
    "Evaluation.episodes": 2,
    # Without XLA, whose compiling each of six processes would repeat, an update is slow: there are few.
    "OffPolicyLoop.jit_compile": False,
    "OffPolicyLoop.updates_per_step": 0.1,
    "ExponentialEpsilon.decay": 1.0,  # short episodes, and many of them
}}
"""
CELL = "ngdqn_cartpole_v1"


def arguments(study, *options):
    return [sys.executable, "-m", "ngrl.sweep", f"--study={study}", f"--runs={study.parent / 'runs'}", *options]


def environment():
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "RAY_"))}
    return kept | {"RAY_worker_niceness": "0"}  # 15 by default, and the trials would wait for the other tests


@pytest.fixture
def sweep(command):
    """Runs a sweep that starts no trial."""
    return lambda study, *options: command("sweep", *arguments(study, *options)[3:], cwd=ROOT)


def start(study, *options):
    return subprocess.Popen(
        arguments(study, *options),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("sweep") / "small.gin"
    path.write_text(STUDY)
    return path


def parents():
    """Process id to that of the parent, of all that run."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = entry.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            found[int(entry.parent.name)] = int(parent)
    return found


def descendants(pid):
    tree, running = {pid}, parents()
    while more := {child for child, parent in running.items() if parent in tree} - tree:
        tree |= more
    return tree


def listening_addresses(pids):
    """Where the processes listen for connections; hexadecimal, as the kernel shows it."""
    sockets = set()
    for pid in pids:
        for handle in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                sockets.update(re.findall(r"socket:\[(\d+)\]", os.readlink(handle)))
            except OSError:
                continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                found.add(fields[1].rpartition(":")[0])
    return found


def until(condition, seconds=200):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)
    return value


def episodes(run):
    """The rows of a run so far; wall-clock times are the last column."""
    path = run / "episodes.csv"
    return path.read_text().splitlines()[1:] if path.exists() else []


def env_steps(row):
    return int(row.split(",")[1]) if row.count(",") == 5 else 0


def safe_rows(seen):
    """The rows that no kill after the last of them was seen may cost.

    A checkpoint is written at the first step of the environments at or past each multiple of the interval. A kill
    before or inside a save falls back to the checkpoint before it: by an interval, and the step of all environments
    that came to the save. Between two checkpoints there may be no episode's end at all: of later rows nothing is said.
    """
    return [row for row in seen if env_steps(row) <= env_steps(seen[-1]) - INTERVAL - NUM_ENVS]


def run_again(rows, after):
    """Those of the rows that aren't there any more with the same wall-clock time, at which they were run."""
    return [row for row in rows if row not in after]


def has_come_to(run, steps):
    rows = episodes(run)
    return len(rows) > 1 and env_steps(rows[-2]) >= steps and rows


def trainer(run):
    """The process that trains there now; the file names the latest, which the sweep before may have stopped."""
    pid = int((run / "run.lock").read_text() or 0)
    return pid if pid in parents() else None


@pytest.fixture(scope="module")
def story(study):
    """A sweep that is stopped by Ctrl-C; then the same with a worker killed, and the process of another trial."""
    runs = [study.parent / "runs" / "small" / f"{CELL}-seed{seed}" for seed in range(2)]
    told = {"runs": runs}
    process = start(study, "--jobs=2")
    # Whichever is first: while one compiles, the other may come to its end, and would have no process to kill.
    until(lambda: any(has_come_to(run, 2 * INTERVAL) for run in runs))
    told["processes"] = descendants(process.pid)
    told["addresses"] = listening_addresses(told["processes"])
    process.send_signal(signal.SIGINT)
    told["interrupted"] = (*process.communicate(timeout=100), process.returncode)
    told["left"] = told["processes"] & parents().keys()

    process = start(study, "--jobs=2")
    told["killed"] = {}
    victims = {runs[0]: ("worker", 2_500), runs[1]: ("trial", 3_500)}
    while victims:  # whichever comes first: neither is to reach its end unkilled while the other is waited for
        run = until(lambda: next((run for run, (_, steps) in victims.items() if has_come_to(run, steps)), None))
        victim, _ = victims.pop(run)
        pid = until(lambda run=run: trainer(run))
        if victim == "worker":
            pid = parents()[pid]
            assert Path(f"/proc/{pid}/cmdline").read_text().startswith("ray::")
        told["killed"][run] = episodes(run)[:-1]
        os.kill(pid, signal.SIGKILL)
    told["finished"] = (*process.communicate(timeout=280), process.returncode)
    return told


def test_interrupted_sweep_leaves_no_process_and_says_that_the_same_command_goes_on(story):
    stdout, stderr, code = story["interrupted"]
    assert code == 130
    assert stdout == ""
    assert stderr.splitlines()[-1] == "ngrl.sweep: stopped; the same command goes on"
    assert len(story["processes"]) > 4  # Ray's own, the workers and the trials
    assert not story["left"]


def test_ray_listens_on_the_loopback_address_alone(story):
    assert story["addresses"]
    for address in story["addresses"]:
        assert address in ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")


def test_killed_worker_and_killed_trial_cost_at_most_one_checkpoint_interval(story):
    _, stderr, code = story["finished"]
    assert code == 0, stderr
    assert f"{CELL}-seed0: its worker died; it goes on from its last checkpoint" in stderr
    assert f"{CELL}-seed1: the process ended with signal 9; it goes on from its last checkpoint" in stderr
    for run in story["runs"]:
        before, after = story["killed"][run], episodes(run)
        assert safe_rows(before)
        assert not run_again(safe_rows(before), after)
        assert [int(row.split(",")[0]) for row in after] == list(range(1, len(after) + 1))


def test_kill_is_judged_by_what_a_checkpoint_held_not_by_where_episodes_happened_to_end():
    rows = ["1,3000,0,9,9,1.0", "2,5767,0,9,9,2.0", "3,7166,0,9,9,3.0", "4,7595,0,9,9,4.0"]
    # Back to the checkpoint of step 7000, before which the last episode had ended 1233 steps earlier.
    assert not run_again(safe_rows(rows), [*rows[:2], "3,7166,0,9,9,5.0", "4,7595,0,9,9,6.0"])
    # Back to the checkpoint of step 5000, though those of 6000 and 7000 had been written.
    assert run_again(safe_rows(rows), [rows[0], "2,5767,0,9,9,4.0"]) == [rows[1]]
    assert run_again(safe_rows(rows), rows[:1]) == [rows[1]]


def test_terminal_shows_the_sweeps_own_lines_alone(story):
    stdout, stderr, _ = story["finished"]
    assert all(line.startswith("small: ") for line in stderr.splitlines()), stderr
    assert re.search(
        rf"small: {CELL}-seed0: best 100-episode mean [\d.]+, final [\d.]+, greedy [\d.]+, 6,00\d steps", stderr
    )
    assert stdout.splitlines()[0] == "small: 2 trials: 2 finished"


def test_trials_are_in_the_hparams_tab_with_their_scores(story):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    for seed, run in enumerate(story["runs"]):
        events = EventAccumulator(str(run / "hparams")).Reload()
        tags = events.PluginTagToContent(metadata.PLUGIN_NAME)
        start = plugin_data_pb2.HParamsPluginData.FromString(tags[metadata.SESSION_START_INFO_TAG]).session_start_info
        assert start.hparams["experiment"].string_value == CELL
        assert start.hparams["seed"].number_value == seed
        assert metadata.SESSION_END_INFO_TAG in tags
        (steps,) = events.Tensors("env_steps")
        assert steps.tensor_proto.float_val[0] >= 6_000


def test_sweep_started_again_runs_nothing(story, study, sweep):
    before = {path: path.stat().st_mtime_ns for run in story["runs"] for path in run.rglob("*")}
    result = sweep(study, "--jobs=2")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == "small: 2 trials: 2 finished"
    assert {path: path.stat().st_mtime_ns for run in story["runs"] for path in run.rglob("*")} == before


def test_dry_run_tells_how_each_trial_stands_and_the_commands_of_a_shard(story, study, sweep):
    result = sweep(study, "--dry_run", "--seeds", "1", "2", "--seeds", "3", "--shard=1/2")
    assert result.returncode == 0, result.stderr
    first, *lines = result.stdout.splitlines()
    assert first.startswith("small: 1 trial in ")
    assert first.endswith(": 1 not begun")
    (line,) = lines
    assert line.startswith(f"not begun    {CELL}-seed2: python -m ngrl.launch --gin_file=gin/ngdqn_cartpole_v1.gin ")
    assert line.endswith("--seed=2 --noprogress")
    assert not (study.parent / "runs" / "small" / f"{CELL}-seed2").exists()
    result = sweep(study, "--dry_run", "--only", "*_v1")
    assert result.stdout.splitlines()[1:] == [f"finished     {CELL}-seed0", f"finished     {CELL}-seed1"]


def test_dry_run_builds_each_experiment_and_refuses_what_its_run_would_refuse(sweep, tmp_path):
    study = tmp_path / "ranges.gin"
    grid = '{"NaturalGradient.max_kl": (0.01, -1.0), "DqnAgent.gamma": (0.9, 2.0)}'
    study.write_text(STUDY.replace("small/Part.seeds", f"small/Part.grid = {grid}\nsmall/Part.seeds"))
    result = sweep(study, "--dry_run")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "ranges: building what its trials run"
    first, *lines = result.stdout.splitlines()
    assert first.endswith(": 2 not begun, 6 refused")
    told = {line.split()[1].rstrip(":"): line.partition(": ")[2] for line in lines if line.startswith("refused")}
    assert len(told) == 6
    assert "NaturalGradient.max_kl must be positive" in told[f"{CELL}-max_kl=-1.0-gamma=0.9-seed0"].replace(
        ": max", ".max"
    )
    assert "gamma must lie in [0, 1]" in told[f"{CELL}-max_kl=0.01-gamma=2.0-seed1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ranges.gin"]


def test_scores_that_cannot_be_written_for_tensorboard_end_no_sweep(story, study, sweep, tmp_path):
    shutil.copytree(study.parent / "runs", tmp_path / "runs")
    shutil.copy(study, tmp_path)
    folder = tmp_path / "runs" / "small" / f"{CELL}-seed0" / "hparams"
    shutil.rmtree(folder)
    folder.write_text("in the way")
    result = sweep(tmp_path / study.name)
    assert result.returncode == 0, result.stderr
    assert f"small: can't write {folder}" in result.stderr
    assert result.stdout.splitlines()[0] == "small: 2 trials: 2 finished"


def hparams(run):
    return {path.name: path.read_bytes() for path in (run / "hparams").iterdir()}


def test_run_of_another_experiment_is_named_and_the_rest_goes_on(story, study, sweep):
    other = study.with_name("small.gin.d") / "small.gin"
    other.parent.mkdir()
    other.write_text(STUDY.replace('"Evaluation.episodes": 2', '"NaturalGradient.damping": 2.0'))
    (other.parent / "runs").symlink_to(study.parent / "runs")
    before = {run: hparams(run) for run in story["runs"]}
    for run in before:
        os.utime(run / "run.json")  # newer than what was written of it
    result = sweep(other)
    assert result.returncode == 1
    for seed in range(2):
        assert f"small: {CELL}-seed{seed} is left out: " in result.stderr
    assert "NaturalGradient.damping (1.0 there, 2.0 here)" in result.stderr
    assert result.stdout.splitlines()[0] == "small: 2 trials: 2 refused"
    for run in story["runs"]:
        assert hparams(run) == before[run]


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [("mine-cp", "mine-cp-*"), ("mine-cp-rate=0.2", "mine-cp-rate=0.1"), ("mine-s", "mine-st")],
)
def test_experiment_named_without_the_settings_of_its_grid_is_told_how_to_name_it(pattern, meant):
    cells = ("mine-cp-rate=0.1", "mine-cp-rate=0.01", "mine-st")
    trials = [PlannedTrial(Trial(cell, "mine/cp.gin", 0), {}, {}) for cell in cells]
    with pytest.raises(command.UsageError, match=re.escape(f'no cell "{pattern}"; did you mean "{meant}"?')):
        command._choose(Plan("small", Study(parts=()), trials), [pattern])
    chosen = command._choose(Plan("small", Study(parts=()), trials), ["mine-cp-*"])
    assert [planned.trial.cell for planned in chosen] == list(cells[:2])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--study=nowhere.gin"], "no such study: nowhere.gin"),
        ([f"--study={'x' * 300}.gin"], "no such study: xxx"),
        ([f"--runs={'x' * 300}"], "File name too long"),
        (["--shard=²/3"], "--shard must be I/N"),
        (["--jobs=0"], "--jobs must be a positive integer"),
        (["--shard=2/2"], "--shard must be I/N"),
        (["--only", "ngdqn_cartpol_v1"], f'small has no cell "ngdqn_cartpol_v1"; did you mean "{CELL}"?'),
    ],
)
def test_wrong_command_line_gets_one_line(study, options, expected, sweep):
    result = sweep(study, "--noprogress", *options)
    assert result.returncode == 2
    assert expected in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_sweep_that_a_signal_ends_says_so_and_tells_the_shell_which(study, number, code):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        process = start(study, f"--ray_address=127.0.0.1:{silent.getsockname()[1]}")
        connection, _ = silent.accept()  # it now waits for an answer
        with connection:
            process.send_signal(number)
            assert process.communicate(timeout=60) == ("", "ngrl.sweep: stopped; the same command goes on\n")
    assert process.returncode == code


def test_address_where_nothing_or_no_ray_answers_is_named(study, monkeypatch, sweep):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        result = sweep(study, f"--ray_address={address}")
        assert result.returncode == 1
        assert result.stderr.startswith(f"ngrl.sweep: no Ray at {address}: ")
        assert len(result.stderr.splitlines()) == 1
        free.listen()
        monkeypatch.setattr(cluster, "_CONNECT_S", 0.5)
        with pytest.raises(cluster.RayUnavailableError, match=f"no Ray at {address}: timed out"):
            cluster.check_address(address)


def test_option_that_is_repeated_adds_to_itself():
    options = command.build_parser().parse_args(["--study=x", "--only", "a", "--only", "b", "c"])
    assert options.only == ["a", "b", "c"]
    assert report.build_parser().parse_args(["--runs=a", "--runs", "b", "--out=x"]).runs == ["a", "b"]


def test_help_needs_neither_tensorflow_nor_ray():
    code = (
        "import runpy, sys\n"
        "for name in ('sweep', 'report'):\n"
        "    sys.argv = [name, '--help']\n"
        "    try:\n"
        "        runpy.run_module(f'ngrl.{name}', run_name='__main__')\n"
        "    except SystemExit as end:\n"
        "        assert end.code == 0\n"
        "heavy = {'tensorflow', 'ray', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ngrl.sweep")


def test_commands_that_a_sweep_prints_can_be_pasted():
    _, report, tensorboard = command._summary("small", [], Counter(), Path("my runs/small")).splitlines()
    assert shlex.split(report)[1:] == ["python", "-m", "ngrl.report", "--runs", "my runs/small", "--out", "report"]
    assert shlex.split(tensorboard)[-2:] == ["--logdir", "my runs/small"]
