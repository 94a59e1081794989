#!/bin/bash
# Trains on one node of a SLURM cluster or on several, and goes on after a pre-emption or a time limit.
#
#   sbatch --nodes=2 --gpus-per-node=4 examples/slurm_train.sh --dataset.repo_id=me/so101_pick --policy.type=act \
#       --output_dir=/shared/act_pick
#
# The words after the script's name are the flags of lerobot-train; --output_dir must be a folder that all nodes see.
# Before the end of its time, or when it is pre-empted, the run finishes its step and saves; the job queues again and
# continues from there. --batch_size counts per GPU.

#SBATCH --job-name=lerobot-train
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@180
#SBATCH --open-mode=append
#SBATCH --output=%x_%j.log

set -euo pipefail

run=
for word in "$@"; do
  case "$word" in --output_dir=*) run=${word#*=} ;; esac
done
if [ -z "$run" ]; then
  echo "error: give --output_dir=FOLDER, by which the job finds its run when it starts again." >&2
  exit 2
fi
flags=("$@")
if [ -e "$run/checkpoints/last" ]; then
  flags=(--resume=true "--output_dir=$run")
fi

processes=${PROCESSES_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}
first_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=150 # seconds for a last save, below those of --signal
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((${SLURM_CPUS_PER_TASK:-$processes} / processes))}

srun --ntasks-per-node=1 --kill-on-bad-exit=0 python -m torch.distributed.run \
  --nnodes="$SLURM_NNODES" --nproc-per-node="$processes" --max-restarts=0 \
  --rdzv-id="$SLURM_JOB_ID" --rdzv-backend=c10d --rdzv-endpoint="$first_node:$((20000 + SLURM_JOB_ID % 20000))" \
  -m lerobot.scripts.train "${flags[@]}" &
training=$!

stopped=
trap 'stopped=yes; kill -TERM $training' TERM # srun passes it on to every process
wait $training && status=0 || status=$?
while kill -0 $training 2>/dev/null; do # a signal ended `wait` before the training has ended
  wait $training && status=0 || status=$?
done
if [ -n "$stopped" ]; then
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
fi
exit $status
