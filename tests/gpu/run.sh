#!/usr/bin/env bash
# The first minutes of this project on a machine with a graphics card and no network: from a checkout, everything that matters.
#
#   tests/gpu/run.sh OUT [--rehearse] [--files FOLDER] [--seconds N]
#
# tests/gpu/wheels holds wheels of packages that are missing there (the log names them), FOLDER MNIST's four files, raw or .gz
# (default: tests/gpu/mnist). It ends within N seconds (default 700). Results come into OUT as they are made, in at most eight
# files: killed at any second, it leaves what was finished. The same command on the same OUT goes on with what was not. --rehearse: the
# same in a minute or two on a CPU, with scikit-learn's digits and tiny sizes.
set -uo pipefail # and not -e: one stage that fails must not keep the others from running
out=$(realpath -m "$1")
shift
rehearse=() files=$(realpath -m "$(dirname "$0")/mnist") seconds=700
while [ $# -gt 0 ]; do
  case $1 in
    --rehearse) rehearse=(--rehearse) && shift ;;
    --files) files=$(realpath -m "$2") && shift 2 ;;
    --seconds) seconds=$2 && shift 2 ;;
    *) echo "$1: unknown; see the head of $0" >&2 && exit 2 ;;
  esac
done
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
exec > >(tee -a "$out/run.log") 2>&1
export PYTHONPATH=$PWD/workflow_scripts:$PWD/tests:$work/site PYTHONUNBUFFERED=1 TORCHINDUCTOR_CACHE_DIR=$work/inductor

left() { echo $((seconds - SECONDS)); }
stage() { # stage NAME LIMIT COMMAND...: within LIMIT seconds and those that are left
  local name=$1 limit=$2 begin=$SECONDS
  shift 2
  [ "$limit" -lt "$(left)" ] || limit=$(left)
  [ "$limit" -gt 5 ] || { echo "== $name: no time left" && return 1; }
  echo "== $name (at most $limit s, $(left) s left)"
  timeout --signal=TERM --kill-after=5 "$limit" "$@"
  local status=$?
  echo "== $name: exit status $status after $((SECONDS - begin)) s"
  return $status
}
stages() { "$python" tests/gpu/stages.py "$@" "${rehearse[@]}"; }
privset() { "$python" -m privset "$@"; }
synthesize() { # synthesize SPC: PSG's cell of the paper preset, MNIST, eps = 10; goes on where an earlier run stopped
  local words
  words=$(stages settings --spc "$1") || return 1
  # shellcheck disable=SC2086 # the settings are words
  exec "$python" -m privset synthesize --data "$work/data" --method psg --epsilon 10 --delta 1e-5 --spc "$1" $words --out "$out/spc$1"
}
put_away() { # put_away NAME: a finished folder becomes one file
  tar -C "$out" -cf "$out/$1.tar.part" "$1" && mv "$out/$1.tar.part" "$out/$1.tar" && rm -r "${out:?}/$1"
}
export -f stages privset synthesize
export python out work
export rehearse_word=${rehearse[*]:-}

git rev-parse HEAD 2>/dev/null
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null
compgen -G "tests/gpu/wheels/*.whl" >/dev/null &&
  stage wheels 60 "$python" -m pip install --quiet --no-index --no-deps --target "$work/site" tests/gpu/wheels/*.whl
stage environment 60 bash -c 'rehearse=($rehearse_word); stages environment --out "$out"' || exit 1
stage data 60 bash -c "rehearse=(\$rehearse_word); stages data --data '$work/data' --files '$files'" || exit 1
if [ ! -e "$out/spc1.tar" ]; then
  stage "one image per class" 180 bash -c 'rehearse=($rehearse_word); synthesize 1' && put_away spc1
fi
mkdir "$work/sets" && [ -e "$out/spc1.tar" ] && tar -C "$work/sets" -xf "$out/spc1.tar" && stage verify 60 "$python" -m privset verify "$work/sets/spc1"
if [ -e "$work/sets/spc1/set.npz" ] && [ ! -e "$out/evaluation.json" ]; then
  stage evaluation 240 bash -c "rehearse=(\$rehearse_word); stages evaluation --out '$out' --set '$work/sets/spc1/set.npz' --data '$work/data'"
fi
rehearsing=$([ -n "$rehearse_word" ] && echo 1 || echo 0)
[ -e "$out/steps.json" ] || stage steps 150 bash -c 'rehearse=($rehearse_word); stages steps --out "$out"'
PRIVSET_REHEARSE=$rehearsing stage tests 180 "$python" -m pytest -q -o addopts= --junitxml="$out/tests.xml" ${GPU_TESTS:-tests/gpu}
if [ ! -e "$out/spc10.tar" ]; then # the rest of the time; its checkpoint is in OUT/spc10 and is resumed by the next run
  stage "ten images per class" "$(left)" bash -c 'rehearse=($rehearse_word); synthesize 10' && put_away spc10
fi
echo "== done after $SECONDS s"
