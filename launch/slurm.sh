#!/bin/bash
# A study as a SLURM array: each task runs its share of the trials, one at a time, on one core.
#
#   sbatch launch/slurm.sh launch/paper.gin
#   sbatch --array=0-79 launch/slurm.sh launch/paper_grid.gin --only 'paper-ngdqn_*'
#
# Submit it from the root of the clone, which all nodes share. A task that was cut short goes on when it is submitted
# again: trials resume from their checkpoints, and those that are over are not run again.
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
index=$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN))
# exec: the signal then reaches the sweep itself.
exec "${NGRL_PYTHON:-.venv/bin/python}" -m ngrl.sweep --study="$study" --jobs=1 --noprogress \
    --shard="$index/$SLURM_ARRAY_TASK_COUNT" "$@"
