#!/usr/bin/env bash
#SBATCH --job-name=discipline --array=1-8 --requeue
#SBATCH --ntasks=1 --gpus-per-task=1 --cpus-per-task=4 --time=24:00:00
# Every task of the array is one worker: STORAGE=postgresql+psycopg://user@host/name sbatch examples/slurm.sh
set -euo pipefail
srun python examples/cluster.py --storage "${STORAGE:?a database that every node reaches}" \
  --study-name "${STUDY:-discipline}" --trials "${TRIALS:-60}" --objective "${OBJECTIVE:?module:function}"
