#!/bin/bash
# pre.sh RUN [--set ...]
run=$1; shift

export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE PYTHONPATH=src PATH=.venv/bin:$PATH
exec torchrun --nproc_per_node 2 --master_port ${PORT:-29500} -m rossam_core.cli pretrain $run --set threads=1 --set held_out_scenes=64 "$@" >> $run.out 2>&1
