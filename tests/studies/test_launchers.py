"""What is in `launch/` beside studies runs the same command, as dry runs show."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ngrl.configuration import stand_ins

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"


def run(command, **environment):
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def shells(text):
    """Whether bash can parse it."""
    return subprocess.run(["bash", "-n", "-c", text], check=False, timeout=20).returncode == 0


def listed(result):
    assert result.returncode == 0, result.stderr
    return [line.split()[2].rstrip(":") for line in result.stdout.splitlines()[1:]]


def test_slurm_task_runs_its_share_of_the_study(command):
    script = LAUNCH / "slurm.sh"
    assert shells(script.read_text())
    task = {"SLURM_ARRAY_TASK_ID": "8", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "40"}
    more = ["launch/paper.gin", "--dry_run", "--runs=nowhere"]
    option, module, *arguments = run(["bash", str(script), *more], NGRL_PYTHON="echo", **task).stdout.split()
    assert (option, module) == ("-m", "ngrl.sweep")
    result = command("sweep", *arguments, cwd=ROOT)
    # Trials 7, 47, 87 and 127 of 160: ten seeds each of four environments for each method.
    assert listed(result) == [
        "ngdqn_cartpole_v0-seed7",
        "dqn_cartpole_v0-seed7",
        "paper-ngdqn_cartpole_v0-seed7",
        "paper-dqn_cartpole_v0-seed7",
    ]


def test_slurm_tasks_that_are_submitted_again_have_the_shards_that_they_had():
    script = str(LAUNCH / "slurm.sh")
    again = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_MAX": "7"}
    again |= {"SLURM_ARRAY_TASK_COUNT": "2", "NGRL_PYTHON": "echo"}
    result = run(["bash", script, "launch/paper.gin"], **again)
    assert result.returncode == 2
    assert result.stderr == "slurm.sh: set NGRL_SHARDS for an array with gaps\n"
    result = run(["bash", script, "launch/paper.gin"], **again, NGRL_SHARDS="40")
    assert result.stdout.split()[-1] == "--shard=7/40"


def test_slurm_script_without_a_study_says_what_is_missing():
    result = run(["bash", str(LAUNCH / "slurm.sh")], SLURM_ARRAY_TASK_ID="0")
    assert result.returncode != 0
    assert "give a study" in result.stderr


def test_kubernetes_pod_runs_its_share_of_the_study(command):
    job = yaml.safe_load((LAUNCH / "kubernetes_job.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed"
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    words = [word.replace("$(JOB_COMPLETION_INDEX)", "39") for word in container["command"]]
    (*start, module), arguments = words[:3], words[3:]
    assert (start, module) == ([".venv/bin/python", "-m"], "ngrl.sweep")
    result = command("sweep", *arguments, "--dry_run", "--runs=nowhere", cwd=ROOT)
    # The pods' shares make up the whole study: as many as there are completions, and the last has the last trial.
    assert f"--shard=39/{spec['completions']}" in arguments
    assert listed(result)[-1] == "paper-dqn_lunar-seed9"


def test_ray_cluster_file_is_one_that_ray_takes_and_its_commands_parse(command):
    jsonschema = pytest.importorskip("jsonschema")
    ray = pytest.importorskip("ray")
    text = (LAUNCH / "ray_cluster.yaml").read_text()
    cluster = yaml.safe_load(text)
    jsonschema.validate(cluster, json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text()))
    starts = [*cluster["head_start_ray_commands"], *cluster["worker_start_ray_commands"]]
    assert len(starts) > 2
    assert all(map(shells, starts))
    options = run([sys.executable, "-m", "ray.scripts.scripts", "start", "--help"]).stdout
    for start in starts:
        for word in start.split():
            if word.startswith("--"):
                assert word.split("=")[0] in options, word
    # The comment's command is a sweep that this version understands.
    line = next(line for line in text.splitlines() if "ngrl.sweep" in line)
    words = line.partition(".venv/bin/python ")[2].partition(" -m ngrl.sweep ")[2] or line.partition("ngrl.sweep ")[2]
    result = command("sweep", *words.rstrip("'").split(), "--dry_run", "--runs=nowhere", cwd=ROOT)
    assert len(listed(result)) == 160


def test_slurm_job_starts_ray_on_its_nodes_and_the_run_on_the_first(tmp_path):
    """With SLURM's commands and Python in the places of which stand others, that tell how they are called."""
    text = (LAUNCH / "ray_slurm.sh").read_text()
    assert shells(text)
    calls = tmp_path / "calls.txt"
    does = {
        "scontrol": r"printf 'n1\nn2\nn3\n'",
        "srun": "",  # in the background, so that the run may well begin before
        "python": f"[[ $2 != ngrl.launch ]] || {{ until grep -q ^srun {calls}; do sleep 0.05; done; exit 3; }}",
    }
    for name, command in does.items():
        (tmp_path / name).write_text(f'#!/bin/bash\necho "{name}" $* >> {calls}\n{command}\n')
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_NODELIST": "n[1-3]", "SLURM_JOB_NUM_NODES": "3", "SLURM_CPUS_PER_TASK": "16"}
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "NGRL_PYTHON": str(tmp_path / "python")}
    arguments = ["--gin_file=gin/ppo_hopper.gin", "--gin_bindings=Environment.num_envs = 64"]
    script = ["bash", str(LAUNCH / "ray_slurm.sh")]
    assert run([*script, *arguments], **job, **path).returncode == 3  # the run's
    first, *called, last = calls.read_text().splitlines()
    assert first == "scontrol show hostnames n[1-3]"
    assert last == "python -m ray.scripts.scripts stop"
    assert [line.endswith(" n1:6379 3") for line in called if line.startswith("python -c")] == [True]
    ray = "-m ray.scripts.scripts start"
    assert f"python {ray} --head --port=6379 --num-cpus=16 --include-dashboard=false" in called
    (join,) = [line for line in called if line.startswith("srun")]
    assert join.startswith("srun --nodes=2 --ntasks=2 --exclude=n1 ")
    assert join.endswith(f"{ray} --address=n1:6379 --num-cpus=16 --block")
    (launch,) = [line for line in called if "ngrl.launch" in line]
    bindings = [word.partition(" --")[0].strip() for word in launch.split("--gin_bindings=")[1:]]
    stand_ins.check(["gin/ppo_hopper.gin"], bindings, [], {})
    assert bindings == [
        "Environment.num_envs = 64",
        "Environment.backend = @RayEnvironments()",
        "RayEnvironments.address = 'n1:6379'",
    ]
    result = run(script, **job, **path)
    assert result.returncode != 0
    assert "give what ngrl.launch takes" in result.stderr
