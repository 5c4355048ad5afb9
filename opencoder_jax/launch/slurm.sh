#!/usr/bin/env bash
# A training on a GPU cluster with Slurm: one task a node, every GPU of a node belongs to its task.
#
#   sbatch --nodes=4 --gpus-per-node=8 opencoder_jax/launch/slurm.sh train \
#       --gin_file=gin_configs/pretrain/opencoder_8b.gin --data=/shared/tokens --output=/shared/runs/pretrain
#
# --data and --output lie on a file system that all nodes share. The environment was made once, on that file system or on
# every node alike: make .venv && .venv/bin/python -m pip install 'jax[cuda13]'
#
# Before a job's time is up, or when it is preempted, Slurm sends SIGTERM to every task (--signal): the hosts save a
# checkpoint together and leave with exit code 75, and the job puts itself into the queue again. A lost node ends the
# step with another code than 0 or 2; the job requeues then, too, and goes on from the last checkpoint.

#SBATCH --job-name=opencoder
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

set -uo pipefail
cd "${SLURM_SUBMIT_DIR:?start it with sbatch, from the checkout}" || exit 2

# JAX sees one process a node and all of its GPUs; it learns of the others from Slurm (--hosts=auto).
gpus=${SLURM_GPUS_ON_NODE:-8}
JAX_LOCAL_DEVICE_IDS=$(seq -s, 0 $((gpus - 1)))
export JAX_LOCAL_DEVICE_IDS

# --kill-on-bad-exit=0: the supervisors of the other nodes notice by themselves, and wait for the lost one to return.
srun --kill-on-bad-exit=0 .venv/bin/python -u -m opencoder_jax "$@" --hosts=auto
code=$?
if ((code != 0 && code != 2 && code != 130)); then
    echo "stopped from outside (exit code $code): into the queue again"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
