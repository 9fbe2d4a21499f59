#!/usr/bin/env bash
# One command from a fresh clone to a report. ./run_all.sh --help
set -euo pipefail
export ROSSAM_CALLED_FROM=$PWD
for name in ROSSAM_CACHE ROSSAM_TEST_DATA; do  # one place each, wherever tests, JupyterLab and kernels run
  case ${!name:-/} in /* | "~"*) ;; *) export "$name=$PWD/${!name}" ;; esac
done
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'HELP'
Usage: ./run_all.sh [OPTION...]

Trains and scores what the tables of a profile show, runs its notebooks and makes a book of them,
reports/PROFILE/index.html. Trained networks and scores are cached: a second run computes only what changed, and a
run that was cut off continues.

  --profile NAME    demo (default): generated satellite video, nothing to download
                    nwpu: real NWPU VHR-10 images, with --data
                    smoke: a few frames, to see that everything runs
                    paper: the paper's datasets and networks, for GPUs; begin with --dry-run
                    full: demo with three seeds, more videos and longer training (hours)
                    or the path of a YAML file of your own, which may say `extends: demo`
  --dry-run         say what of the profile's data and weights is there, what is missing and how to get it, what
                    would be computed and why; run nothing. Exit status 0 if everything is there, else 1
  --two-steps       run every notebook whose data is there, for two training steps on four frames each
  --data DIR        folder that holds the datasets' folders (nwpu: that of "NWPU VHR-10 dataset", or one above it);
                    without it they are looked for in ROSSAM_CACHE/data, where `rossam fetch` puts them
  --only NN         only the notebook whose name begins with NN, e.g. --only 02
  --from NN         that notebook and those after it
  --jobs N          N notebooks at a time, about 3 GiB of memory each (default: one per core, if memory allows; 1 on a
                    GPU); what two of them need is computed once
  --fresh           forget this profile's report and scores first (fine-tuned runs and generated frames are kept)
  --device NAME     cpu, cuda, mps; default: the best there is
  --set KEY=VALUE   override a key of the profile, e.g. --set inference.rate=4 (may be repeated)
  --report DIR      folder to write to (default: reports/PROFILE)
  --list            list profiles and their notebooks
  --test [ARG...]   run the tests instead (further arguments go to pytest)
  --lab             start JupyterLab on the notebooks, in the same environment
  --help            this text

Environment: an active conda environment or venv that has what pyproject.toml asks for is used as it is;
otherwise one is made in .venv (about 6 GB with PyTorch, a few minutes once).
ROSSAM_CACHE       where generated data, results and checkpoints are kept (default: the user's cache folder)
HELP
}

for argument in "$@"; do
  case $argument in -h | --help) usage; exit 0 ;; esac
done
want=
mode=run
case ${1:-} in
  --test) mode=test; want=--test; shift ;;
  --lab) mode=lab; shift ;;
esac

find_python() {
  local candidate
  for candidate in python3.13 python3.12 python3.11 python3 python; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  echo "error: no Python 3.11 or newer with its venv module was found." >&2
  echo "  Remedy: install one (Debian: apt install python3-venv), or activate a conda environment made by" >&2
  echo "          conda env create -f environment.yml" >&2
  return 1
}

# Run a long install quietly, with a sign of life; its output goes to a log that is shown if it fails.
install() {
  local log=.venv/install.log pid started=$SECONDS waited=0 size=""
  "$@" >"$log" 2>&1 &
  pid=$!
  trap 'kill $pid 2>/dev/null; exit 130' INT TERM
  while kill -0 $pid 2>/dev/null; do
    if [ $((SECONDS - started)) -ge $((waited + 15)) ]; then
      waited=$((SECONDS - started))
      size=", $(du -sh .venv 2>/dev/null | cut -f1) so far"
      [ -t 1 ] || echo "  installing packages … $waited s$size"
    fi
    [ -t 1 ] && printf '\r  installing packages … %d s%s ' $((SECONDS - started)) "$size"
    sleep 1
  done
  [ -t 1 ] && printf '\n'
  trap - INT TERM
  if ! wait $pid; then
    tail -n 15 "$log" >&2
    return 1
  fi
}

if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
  active=${VIRTUAL_ENV:-$CONDA_PREFIX}
  if missing=$("$active/bin/python" rossam_kit/environment.py $want 2>/dev/null); then
    python=$active/bin/python
  else
    echo "The active environment $active lacks:"
    echo "${missing:-  (its Python does not start)}" | sed 's/^/  /'
    echo "It is left as it is; .venv is used."
  fi
fi
if [ -z "${python:-}" ]; then
  python=$PWD/.venv/bin/python
  if ! "$python" rossam_kit/environment.py $want >/dev/null 2>&1; then
    echo "Making the environment .venv (once; PyTorch is large)"
    base=$(find_python)
    "$base" -m venv --clear .venv
    if install "$python" -m pip install --disable-pip-version-check -r requirements.lock; then
      install "$python" -m pip install --disable-pip-version-check --no-deps -e .
    else
      echo "The exact versions of requirements.lock do not install here; trying the ranges of pyproject.toml."
      install "$python" -m pip install --disable-pip-version-check -e ".[test]" || {
        echo "error: the packages could not be installed; the log is .venv/install.log" >&2
        echo "  Remedy: check the network and the free disk space (df -h .), then start again." >&2
        exit 1
      }
    fi
  fi
fi

export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
export PATH=$(dirname "$python"):$PATH PYTHONUTF8=1 JUPYTER_PREFER_ENV_PATH=1
# threads that wait give way: on a busy machine spinning ones slow everything down several times
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
if [ $mode = test ]; then  # one process per core, of one thread each, up to four; the tests of a file stay together
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
  exec "$python" -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
fi
if [ $mode = lab ]; then
  exec "$python" -m jupyterlab --notebook-dir=notebooks "$@"
fi
exec "$python" -m rossam_kit.cli run "$@"
