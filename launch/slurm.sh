#!/bin/bash
# A study as a SLURM array: each task runs its share of the trials, one at a time, on one core.
#
#   sbatch launch/slurm.sh launch/paper.gin
#   sbatch --array=0-79 launch/slurm.sh launch/paper_grid.gin --only 'paper-ngdqn_*'
#
# Submit it from the root of the clone, which all nodes share. A task that was cut short goes on when the array is
# submitted again: trials resume from their checkpoints, and those that are over are not run again. For some of its tasks
# alone, say of how many they are:
#
#   NGRL_SHARDS=40 sbatch --array=3,7 launch/slurm.sh launch/paper.gin
#SBATCH --job-name=ngrl-sweep
#SBATCH --array=0-39
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --time=48:00:00
#SBATCH --requeue
# Told in time, trials write a last checkpoint.
#SBATCH --signal=B:TERM@120
#SBATCH --output=slurm-%x-%A_%a.log

set -euo pipefail
study=${1:?give a study, such as launch/paper.gin}
shift
if [ -n "${NGRL_SHARDS:-}" ]; then
    shard=$SLURM_ARRAY_TASK_ID/$NGRL_SHARDS
else
    shard=$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN))/$SLURM_ARRAY_TASK_COUNT
    last=$((SLURM_ARRAY_TASK_MIN + SLURM_ARRAY_TASK_COUNT - 1))
    [ "${SLURM_ARRAY_TASK_MAX:-$last}" = "$last" ] || { echo "slurm.sh: set NGRL_SHARDS for an array with gaps" >&2; exit 2; }
fi
# exec: the signal then reaches the sweep itself.
exec "${NGRL_PYTHON:-.venv/bin/python}" -m ngrl.sweep --study="$study" --jobs=1 --noprogress \
    --shard="$shard" "$@"
