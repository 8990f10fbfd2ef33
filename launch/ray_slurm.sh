#!/bin/bash
# A run whose environments are stepped in Ray actors on all nodes of a SLURM job; what learns is on the first of them.
#
#   sbatch --nodes=4 launch/ray_slurm.sh --gin_file=gin/ppo_hopper.gin --gin_bindings='Environment.num_envs = 64'
#
# Submit it from the root of the clone, which all nodes share. A job that was cut short goes on when it is submitted again.
# Ray's ports belong into a network of the cluster's own: whoever reaches them can run programs there.
#SBATCH --job-name=ngrl-ray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=48:00:00
#SBATCH --requeue
# The job goes on when one of its nodes fails.
#SBATCH --no-kill
# Told in time, the run writes a last checkpoint.
#SBATCH --signal=B:TERM@120
#SBATCH --output=slurm-%x-%j.log

set -euo pipefail
: "${1:?give what ngrl.launch takes, such as --gin_file=gin/ppo_hopper.gin}"
python=${NGRL_PYTHON:-.venv/bin/python}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
others=$((SLURM_JOB_NUM_NODES - 1))
ray=("$python" -m ray.scripts.scripts)
export RAY_USAGE_STATS_ENABLED=0

trap '"${ray[@]}" stop' EXIT
"${ray[@]}" start --head --port=6379 --num-cpus="$SLURM_CPUS_PER_TASK" --include-dashboard=false
if ((others)); then
    srun --nodes="$others" --ntasks="$others" --exclude="$head" --no-kill --kill-on-bad-exit=0 \
        "${ray[@]}" start --address="$head:6379" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
fi
# Actors are shared out among the nodes that are there.
"$python" -c '
import ray, sys, time
ray.init(address=sys.argv[1], log_to_driver=False)
for _ in range(300):
    if sum(node["Alive"] for node in ray.nodes()) >= int(sys.argv[2]):
        sys.exit()
    time.sleep(1)
sys.exit(f"not all of the {sys.argv[2]} nodes have joined the cluster at {sys.argv[1]} within 300 s")
' "$head:6379" "$SLURM_JOB_NUM_NODES"
"$python" -m ngrl.launch --noprogress "$@" --gin_bindings='Environment.backend = @RayEnvironments()' \
    --gin_bindings="RayEnvironments.address = '$head:6379'" &
run=$!
trap 'kill -TERM "$run"' TERM
# The trap ends the first wait; the second gives the run's own exit code.
wait "$run" || wait "$run"
