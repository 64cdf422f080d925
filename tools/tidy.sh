#!/usr/bin/env bash
# Runs clang-tidy-19 with the checks of .clang-tidy over the program's sources, or over the files named.
#
#   tools/tidy.sh [-j N] [FILE...]    N files at once; as many as there are cores unless given
#
# Prints the findings and nothing else; exit code 1 if there are any. Sources outside the build (dist/nccl_*
# where LibTorch is without CUDA) are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=$(nproc)
if [ "${1-}" = -j ]; then jobs=$2; shift 2; fi

cmake --preset dev >/dev/null
cmake --build build-dev --target trireme_build_commit >/dev/null  # A header that is generated.
compiled=$(sed -n "s|^ *\"file\": \"$PWD/\(.*\)\",\?$|\1|p" build-dev/compile_commands.json | sort -u)
wanted=$(if [ $# -gt 0 ]; then realpath --relative-to=. "$@"; else
  grep -E '^(core|dist|data|trainer|study|bench|report|launcher)/' <<<"$compiled"; fi)
{ grep -Fx "$wanted" <<<"$compiled" || true; } |
  xargs -r -P "$jobs" -n 1 clang-tidy-19 -p build-dev --quiet 2> >(grep -v ' generated\.$\| treated as error' >&2) || exit 1
