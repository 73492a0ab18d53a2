#!/usr/bin/env bash
# The first minutes of this project on a machine with a graphics card and no network: from a checkout, everything that matters.
#
#   tests/gpu/run.sh OUT [--rehearse] [--files FOLDER] [--seconds N]
#
# tests/gpu/wheels holds wheels of packages that are missing there (the log names them), FOLDER MNIST's four files, raw or .gz
# (default: tests/gpu/mnist). It ends within N seconds (default 700). Results come into OUT as they are made, in at most eight
# files: killed at any second, it leaves what was finished. The same command on the same OUT goes on with what was not. A set that
# is not finished is in spcN.unfinished.tar or in a folder spcN, with a checkpoint that gives its noise away: not to be published.
# --rehearse: the same in two to four minutes on a CPU, with scikit-learn's digits and tiny sizes.
set -uo pipefail # and not -e: one stage that fails must not keep the others from running
out=$(realpath -m "$1")
shift
rehearse="" files=$(realpath -m "$(dirname "$0")/mnist") seconds=700
while [ $# -gt 0 ]; do
  case $1 in
    --rehearse) rehearse=--rehearse && shift ;;
    --files) files=$(realpath -m "$2") && shift 2 ;;
    --seconds) seconds=$2 && shift 2 ;;
    *) echo "$1: unknown; see the head of $0" >&2 && exit 2 ;;
  esac
done
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
work=$(mktemp -d)
running=""
trap 'rm -rf "$work"' EXIT
# A stage is in a process group of its own: nothing but this ends it. A stage that has ended is no longer there to be ended.
trap '[ -z "$running" ] || { kill -TERM "$running" && wait "$running"; } 2>/dev/null; exit 143' TERM INT
mkdir -p "$out"
exec > >(tee -a "$out/run.log") 2>&1
export PYTHONPATH=$PWD/workflow_scripts:$PWD/tests:$work/site PYTHONUNBUFFERED=1 TORCHINDUCTOR_CACHE_DIR=$work/inductor
# A rehearsal traces what a card would compile and does not make it into C++, which takes minutes beside other work.
[ -z "$rehearse" ] || export PRIVSET_REHEARSE=1 TORCH_COMPILE_DISABLE=1

left() { echo $((seconds - SECONDS)); }
stage() { # stage NAME LIMIT COMMAND...: within LIMIT seconds and those that are left
  local name=$1 limit=$2 begin=$SECONDS
  shift 2
  [ "$limit" -lt "$(left)" ] || limit=$(left)
  [ "$limit" -gt 5 ] || { echo "== $name: no time left" && return 1; }
  echo "== $name (at most $limit s, $(left) s left)"
  timeout --signal=TERM --kill-after=5 "$limit" "$@" &
  running=$!
  wait "$running"
  local status=$?
  echo "== $name: exit status $status after $((SECONDS - begin)) s"
  return $status
}
stages() { "$python" tests/gpu/stages.py "$@" $rehearse; }
synthesize() { # synthesize SPC: PSG's cell of the paper preset, MNIST, eps = 10; goes on where an earlier run stopped
  local words
  words=$(stages settings --spc "$1") || return 1
  # shellcheck disable=SC2086 # the settings are words
  exec "$python" -m privset synthesize --data "$work/data" --method psg --epsilon 10 --delta 1e-5 --spc "$1" $words --out "$out/spc$1"
}
put_away() { # put_away FOLDER FILE: a folder of OUT becomes one file
  tar -C "$out" -cf "$out/$2.part" "$1" && mv "$out/$2.part" "$out/$2" && rm -rf "${out:?}/$1"
}
cell() { # cell SPC LIMIT: OUT/spcN.tar is the set with its certificate, log and timing
  rm -f "$out"/*.part # of a put_away that was killed
  [ ! -e "$out/spc$1.tar" ] || { rm -rf "${out:?}/spc$1" && return 0; }
  if [ -e "$out/spc$1.unfinished.tar" ]; then
    tar -C "$out" -xf "$out/spc$1.unfinished.tar" && rm "$out/spc$1.unfinished.tar"
  fi
  if [ -e "$out/spc$1/certificate.json" ]; then # killed between the set and its tar
    rm -rf "${out:?}/spc$1/private"
    put_away "spc$1" "spc$1.tar"
    return 0
  fi
  if stage "spc $1" "$2" bash -c "synthesize $1"; then
    put_away "spc$1" "spc$1.tar"
  elif [ -d "$out/spc$1" ]; then
    put_away "spc$1" "spc$1.unfinished.tar"
  fi
}
export -f stages synthesize
export python out work rehearse
git rev-parse HEAD 2>/dev/null
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null
compgen -G "tests/gpu/wheels/*.whl" >/dev/null &&
  stage wheels 60 "$python" -m pip install --quiet --no-index --no-deps --target "$work/site" tests/gpu/wheels/*.whl
stage environment 60 bash -c 'stages environment --out "$out"' || exit 1
stage data 60 bash -c "stages data --data '$work/data' --files '$files'" || exit 1
cell 1 180
if [ -e "$out/spc1.tar" ]; then
  tar -C "$work" -xf "$out/spc1.tar"
  stage verify 60 "$python" -m privset verify "$work/spc1"
  stage evaluation 240 bash -c 'stages evaluation --out "$out" --set "$work/spc1/set.npz" --data "$work/data"'
fi
stage steps 150 bash -c 'stages steps --out "$out"'
stage tests 180 "$python" -m pytest -q -o addopts= --junitxml="$out/tests.xml" tests/gpu
cell 10 "$(left)" # the rest of the time
echo "== done after $SECONDS s"
