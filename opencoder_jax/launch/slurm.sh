#!/usr/bin/env bash
# A training on a GPU cluster with Slurm: one task a node, every GPU of a node belongs to its task.
#
#   sbatch --nodes=4 --gpus-per-node=8 opencoder_jax/launch/slurm.sh train \
#       --gin_file=gin_configs/pretrain/opencoder_8b.gin --data=/shared/tokens --output=/shared/runs/pretrain
#
# --data and --output lie on a file system that all nodes share. The environment was made once, on that file system or on
# every node alike: make .venv LOCK=requirements-train.txt && .venv/bin/python -m pip install 'jax[cuda13]'
#
# Before a job's time is up, or when it is preempted, Slurm sends SIGTERM to every task (--signal): the hosts save a
# checkpoint together and leave with exit code 75, and the job puts itself into the queue again. A lost node ends the
# step, too; the job then goes on from the last checkpoint. A defect (exit code 1), a mistake in the recipe (2) and the
# keyboard (130) would be the same again: the job ends. So it does after 100 requeues.

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

# srun gives the highest code of its tasks. When one task ends by a defect, the others leave with 75 as its peers: the
# codes that end the job are lifted above all others (signals end at 192), and come down again below.
lifted='trap : TERM; "$@"; code=$?; case $code in 1 | 2) exit $((252 + code)) ;; 130) exit 252 ;; esac; exit "$code"'

# --cpus-per-task: srun doesn't take it over from the job since Slurm 22.05, and a task without it has one CPU.
# --kill-on-bad-exit=0: the supervisors of the other nodes notice by themselves, and wait for the lost one to return.
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-16}" --kill-on-bad-exit=0 \
    bash -c "$lifted" task .venv/bin/python -u -m opencoder_jax "$@" --hosts=auto
code=$?
case $code in
0) exit 0 ;;
252) exit 130 ;;
253 | 254) exit $((code - 252)) ;;
esac
if ((${SLURM_RESTART_COUNT:-0} >= 100)); then
    echo "stopped from outside (exit code $code) for the 101st time: sbatch it again to go on"
else
    echo "stopped from outside (exit code $code): into the queue again"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
