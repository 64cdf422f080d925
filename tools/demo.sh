#!/usr/bin/env bash
# usage: tools/demo.sh [FOLDER]   (default demo-out)
# Fine-tunes the embedded base on black and white drawings, draws before | after | real, then kills and
# resumes a short run at other numbers of ranks and compares its weights with those of an undisturbed one.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-demo-out}
trireme=build/trireme
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
launch_deadline_s=600

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

[ -x "$trireme" ] || fail "$trireme is not built. Run ./bootstrap demo."
[ -f demo/base/unet/diffusion_pytorch_model.safetensors ] || fail "demo/base is missing from this checkout."

fine_tune() {
  say "fine-tuning the base on 1,016 drawings of the Symbola font, on 2 ranks (a few minutes)"
  "$trireme" launch configs/demo.toml -n 2 --run-dir "$out/run"
  say "drawing 8 captions whose characters were never trained in this style, chosen by a fixed rule"
  "$trireme" sample "$out/run/checkpoints/latest" --ema --compare --out "$out/before_after_real.png"
}

weights_of() { sha256sum "$1/checkpoints/latest/unet/diffusion_pytorch_model.safetensors" | cut -d' ' -f1; }

# start RANKS: the interrupted run, in the background and in a process group of its own.
start() {
  setsid "$trireme" launch configs/demo_signature.toml -n "$1" --run-dir "$out/interrupted" \
    >>"$out/interrupted.log" 2>&1 &
  runner=$!
}

# until_step N: returns when the checkpoint of step N is there, or fails when the run ends without it.
until_step() {
  local checkpoint ends
  checkpoint=$(printf '%s/interrupted/checkpoints/step-%08d' "$out" "$1")
  ends=$((SECONDS + launch_deadline_s))
  until [ -d "$checkpoint" ]; do
    kill -0 "$runner" 2>/dev/null || [ -d "$checkpoint" ] || fail "the run ended before step $1: see $out/interrupted.log"
    ((SECONDS < ends)) || fail "the run did not reach step $1 in $launch_deadline_s s: see $out/interrupted.log"
    sleep 0.05
  done
}

signature() {
  rm -rf "$out/whole" "$out/interrupted" "$out/interrupted.log"
  say "the signature: 12 steps on 2 ranks, undisturbed"
  "$trireme" launch configs/demo_signature.toml -n 2 --run-dir "$out/whole" >"$out/whole.log" 2>&1 ||
    fail "the undisturbed run failed: see $out/whole.log"
  say "the same on 4 ranks, killed (SIGKILL) after step 4"
  start 4
  until_step 4
  kill -KILL -- "-$runner"
  wait "$runner" || true
  say "resumed on 2 ranks, killed after step 8"
  start 2
  until_step 8
  kill -KILL -- "-$runner"
  wait "$runner" || true
  say "resumed on 1 rank, to the end"
  start 1
  wait "$runner" || fail "the last part failed: see $out/interrupted.log"
  local whole interrupted
  whole=$(weights_of "$out/whole")
  interrupted=$(weights_of "$out/interrupted")
  printf 'undisturbed on 2 ranks        %s\nkilled twice, 4 > 2 > 1 ranks %s\n' "$whole" "$interrupted"
  [ "$whole" = "$interrupted" ] || fail "the weights differ"
  echo "the weights are equal to the bit"
}

mkdir -p "$out"
fine_tune
signature
say "the picture: $out/before_after_real.png"
