"""Trials as processes: their names, commands, environment, and that they end with who started them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from ngrl.runs.record import is_running, read_record
from ngrl.studies.trials import Trial, TrialProcess, environment, experiment_name, seeds_of, sharing

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("gin_file", "name"),
    [
        ("gin/ngdqn_lunar.gin", "ngdqn_lunar"),
        ("gin/paper/dqn_lunar.gin", "paper-dqn_lunar"),
        ("my.gin", "somewhere-my"),
    ],
)
def test_experiment_is_called_after_its_file_and_folder(gin_file, name, tmp_path, monkeypatch):
    (tmp_path / "somewhere").mkdir()
    monkeypatch.chdir(tmp_path / "somewhere")
    assert experiment_name(gin_file) == name


def test_command_for_people_asks_for_the_threads_that_the_trial_gets(tmp_path):
    trial = Trial("x", "gin/x.gin", 3)
    command = f"python -m ngrl.launch --gin_file=gin/x.gin --root_dir={tmp_path}/x --seed=3 --noprogress"
    assert trial.command(tmp_path / "x", 1) == command
    assert trial.command(tmp_path / "x", 2) == f"{command} --threads=2"


def test_threads_are_set_where_the_user_did_not_set_them(monkeypatch):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    for name in ("TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    assert environment(1)["TF_NUM_INTRAOP_THREADS"] == "3"
    assert environment(2)["TF_NUM_INTEROP_THREADS"] == environment(2)["OMP_NUM_THREADS"] == "2"


def test_trials_share_compiled_code_unless_the_user_has_a_folder_for_it_or_there_is_no_room(tmp_path, monkeypatch):
    flag, folder = "--tf_xla_persistent_cache_directory", str(tmp_path / "x")
    assert sharing({"TF_XLA_FLAGS": f"{flag}=mine"}, folder) == {"TF_XLA_FLAGS": f"{flag}=mine"}
    assert sharing({"TF_XLA_FLAGS": "--a=b"}, folder)["TF_XLA_FLAGS"] == f"--a=b {flag}={folder}"
    assert sharing({}, folder) == {"TF_XLA_FLAGS": f"{flag}={folder}"}
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=2**27))
    assert sharing({}, folder) == {}


def test_trials_of_other_seeds_run_what_the_first_compiled_and_their_numbers_stay(tmp_path):
    bindings = ("run.num_env_steps = 128", "OnPolicyLoop.batch_size = 64", "Evaluation.episodes = 0")
    gin_file, compiled = str(ROOT / "gin" / "ppo_cartpole_v1.gin"), tmp_path / "compiled"

    def run(name, seed, folder):
        trial = Trial("x", gin_file, seed, bindings)
        with TrialProcess(trial, tmp_path / name, 1, ROOT, folder) as process:
            assert process.wait() == 0
        return {path: path.stat().st_mtime_ns for path in compiled.glob("*")}

    first = run("first", 0, str(compiled))
    both = run("second", 1, str(compiled))
    # TensorFlow's own order now and then makes another name for the same function.
    assert first.items() <= both.items()
    assert len(both) < 2 * len(first)
    run("alone", 1, None)
    variables = [next((tmp_path / name / "checkpoints").glob("*/variables.data*")) for name in ("second", "alone")]
    assert variables[0].read_bytes() == variables[1].read_bytes()


@pytest.mark.parametrize("seeds", [0, (), (1, 1), (-1,), (2**31,)])
def test_impossible_seeds_are_refused(seeds):
    with pytest.raises(ValueError, match=r"^seeds must (be|lie)"):
        seeds_of(seeds)


def test_number_of_seeds_counts_from_zero():
    assert seeds_of(3) == (0, 1, 2)
    assert seeds_of((5, 2)) == (5, 2)


def test_wrong_input_ends_the_process_with_its_complaint(tmp_path):
    trial = Trial("x", str(ROOT / "gin" / "ngdqn_cartpole_v1.gin"), 0, ("run.num_env_stps = 1",))
    with TrialProcess(trial, tmp_path / "x-seed0", 1, ROOT) as process:
        assert process.wait() == 2
        assert 'no parameter "num_env_stps" on run; did you mean "num_env_steps"?' in process.complaint()
    assert read_record(tmp_path / "x-seed0") is None


def test_trial_ends_with_a_checkpoint_when_what_started_it_is_killed(tmp_path):
    root_dir = tmp_path / "x-seed0"
    code = (
        "import time\n"
        "from pathlib import Path\n"
        "from ngrl.studies.trials import Trial, TrialProcess\n"
        f"trial = Trial('x', {str(ROOT / 'gin' / 'ngdqn_cartpole_v1.gin')!r}, 0)\n"
        f"process = TrialProcess(trial, Path({str(root_dir)!r}), 1, {str(ROOT)!r})\n"
        "print(process.pid, flush=True)\n"
        "time.sleep(300)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    end = time.monotonic() + 120
    while (read_record(root_dir) or {}).get("status") != "training":
        assert time.monotonic() < end
        time.sleep(0.1)
    assert is_running(root_dir)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    while is_running(root_dir):
        assert time.monotonic() < end
        time.sleep(0.1)
    record = json.loads((root_dir / "run.json").read_text())
    assert record["checkpointed"]
    assert record["processes"][0]["command"].split()[0].endswith("launch.py")
    assert record["processes"][0]["command"].endswith("--seed=0 --noprogress")
    while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < end
        time.sleep(0.1)
    assert not os.path.exists(root_dir / "policy")
