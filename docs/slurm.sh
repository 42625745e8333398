#!/bin/bash
# A training under SLURM that outlives its time limit: sbatch docs/slurm.sh
#SBATCH --job-name=decoder_video
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=USR1@300

# The folder is the run: the same command again goes on from its newest checkpoint.
run=runs/decoder_video

srun --kill-on-bad-exit=1 python -m lightning_mav fit --config configs/decoder_video.yaml --run "$run" \
    --trainer configs/trainer/slurm.yaml --trainer.num_nodes "$SLURM_NNODES" \
    --trainer.devices "$SLURM_NTASKS_PER_NODE" --data.num_workers "$((SLURM_CPUS_PER_TASK - 1))"
code=$?

# 138: SIGUSR1 came 300 seconds before the limit, and the last step is saved.
if [ "$code" = 138 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
