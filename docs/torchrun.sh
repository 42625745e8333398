#!/bin/bash
# A training under torchrun that starts again by itself when a process dies: docs/torchrun.sh [options of fit]
# On several machines add --nnodes 2 --rdzv-backend c10d --rdzv-endpoint FIRST_MACHINE:29400, and run it on each.

# The folder is the run: every start goes on from its newest checkpoint.
run=runs/decoder_video

exec torchrun --nproc-per-node "${GPUS:-8}" --max-restarts 3 -m -- lightning_mav fit \
    --config configs/decoder_video.yaml --run "$run" --trainer configs/trainer/ddp.yaml \
    --trainer.devices "${GPUS:-8}" "$@"
