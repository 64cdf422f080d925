#!/usr/bin/env bash
# usage: tools/demo.sh [FOLDER]   (default demo-out)
# Fine-tunes the embedded base on black and white drawings, draws before | after | real, then kills and
# resumes a short run at other numbers of ranks and compares its weights with those of an undisturbed one.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-demo-out}
trireme=build/trireme
deadline_s=600

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

[ -x "$trireme" ] || fail "$trireme is not built. Run ./bootstrap demo."
[ -f demo/base/unet/diffusion_pytorch_model.safetensors ] || fail "demo/base is missing from this checkout."

fine_tune() {
  say "fine-tuning the base on 1,016 drawings of the Symbola font, on 2 ranks (a few minutes)"
  "$trireme" launch configs/demo.toml -n 2 --run-dir "$out/run"
  say "drawing 24 captions whose characters were never trained in this style, chosen by a fixed rule"
  "$trireme" sample "$out/run/checkpoints/latest" --ema --compare --count 24 --out "$out/before_after_real.png"
}

weights_of() { sha256sum "$1/checkpoints/latest/unet/diffusion_pytorch_model.safetensors" | cut -d' ' -f1; }

# on_ranks N RUN_DIR: the short run.
on_ranks() {
  exec mpirun --allow-run-as-root --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 \
    -np "$1" "$trireme" train configs/demo_signature.toml --run-dir "$2"
}

# start N: the interrupted run, in the background and in a session of its own.
start() {
  export -f on_ranks
  export trireme
  setsid bash -c 'on_ranks "$@"' on_ranks "$1" "$out/interrupted" >>"$out/interrupted.log" 2>&1 &
  runner=$!
}

# kill_all: SIGKILL to mpirun and every rank.
kill_all() {
  local file line fields
  for file in /proc/[0-9]*/stat; do
    { read -r line <"$file"; } 2>/dev/null || continue
    read -r -a fields <<<"${line##*) }"
    [ "${fields[3]}" = "$runner" ] || continue
    kill -KILL "${line%% *}" 2>/dev/null || true
  done
  wait "$runner" 2>/dev/null || true
}

# until_step N: returns when the checkpoint of step N is there, or fails when the run ends without it.
until_step() {
  local checkpoint ends
  checkpoint=$(printf '%s/interrupted/checkpoints/step-%08d' "$out" "$1")
  ends=$((SECONDS + deadline_s))
  until [ -d "$checkpoint" ]; do
    if ! kill -0 "$runner" 2>/dev/null && ! [ -d "$checkpoint" ]; then
      fail "the run ended before step $1: see $out/interrupted.log"
    fi
    ((SECONDS < ends)) || fail "the run did not reach step $1 in $deadline_s s: see $out/interrupted.log"
    sleep 0.05
  done
}

signature() {
  rm -rf "$out/whole" "$out/interrupted" "$out/interrupted.log"
  say "the signature: 12 steps on 2 ranks, undisturbed"
  (on_ranks 2 "$out/whole") >"$out/whole.log" 2>&1 || fail "the undisturbed run failed: see $out/whole.log"
  say "the same on 4 ranks, killed (SIGKILL) after step 4"
  start 4
  until_step 4
  kill_all
  say "resumed on 2 ranks, killed after step 8"
  start 2
  until_step 8
  kill_all
  say "resumed on 1 rank, to the end"
  start 1
  wait "$runner" || fail "the last part failed: see $out/interrupted.log"
  local whole interrupted
  whole=$(weights_of "$out/whole")
  interrupted=$(weights_of "$out/interrupted")
  printf 'undisturbed, on 2 ranks          %s\n' "$whole"
  printf 'killed twice, on 4, 2 and 1 rank %s\n' "$interrupted"
  [ "$whole" = "$interrupted" ] || fail "the weights differ"
  echo "the weights are equal to the bit"
}

mkdir -p "$out"
fine_tune
signature
say "the picture: $out/before_after_real.png"
