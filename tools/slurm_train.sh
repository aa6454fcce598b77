#!/bin/bash
#SBATCH --job-name=petrichor
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@180
#SBATCH --requeue
#
# A training under SLURM that goes on for as many jobs as it takes:
#   sbatch tools/slurm_train.sh --config configs/nerd_rain_rain200h.yml RUN.NAME mine
# Three minutes before a job's time is over, SLURM sends SIGUSR1; train.py saves and ends with status
# 75, and the job goes back into the queue. --resume starts the run the first time.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=29500

srun --kill-on-bad-exit=1 bash -c '
    export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS
    exec python train.py --resume "$@"' train "$@"
status=$?
if [ "$status" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
