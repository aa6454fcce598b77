#!/bin/bash
#SBATCH --job-name=petrichor
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#
# A training under SLURM that continues over as many jobs as it needs:
#   sbatch tools/slurm_train.sh --config configs/dmsr_rain13k.yml RUN.NAME mine
# OPTIM.BATCH_SIZE must be a multiple of the number of tasks (here 12 and 4). For a recipe with
# batches of one image, such as NeRD-Rain's: sbatch --ntasks-per-node=1 --gpus-per-node=1 ...
#
# Three minutes before a job's time limit SLURM sends SIGUSR1; train.py saves and ends with status
# 75, and this script requeues the job. --resume starts a run that does not exist yet. srun reports
# 75, torchrun would report 1: so this script starts one train.py per task itself.
cd "${SLURM_SUBMIT_DIR:-.}" || exit 1
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# One port per job: two jobs may share a node.
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT

# srun's status is the highest of its tasks'. Killing the others when the first one ends would make
# it 137; they end by themselves, and srun kills what is left after two minutes.
srun --kill-on-bad-exit=0 --wait=120 bash -c '
    export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS
    exec python train.py --resume "$@"' train "$@"
status=$?
if [ "$status" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
