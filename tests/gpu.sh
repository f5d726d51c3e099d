#!/usr/bin/env bash
# What runs on a GPU, on a GPU: the suite of operations, networks and runs, then speed beside PyTorch on
# the same GPU in the same run. One command, under nine minutes (with --quick, under three: part of the suite, and
# one network); figures in $OUT/gpu.json (or ./gpu.json) and a table in Markdown on the screen, with the GPU and
# its driver.
#
#   tests/gpu.sh [gpu|cuda] [--quick]
#
# It builds what it needs. Where there is no Rust, SEEDLING names the program (cargo build --release -p
# seedling-server --features gpu) and SEEDLING_SUITE the suite (cargo test --release -p seedling-tests
# --features cuda --test gpu --no-run), both built elsewhere. PyTorch is the python3's that is found, or
# left out, saying so. Speed is measured even where the suite fails; the exit code says that it did.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
device=cuda quick=
for word; do
    case "$word" in
    gpu | cuda) device="$word" ;;
    --quick) quick=--quick ;;
    *) echo "tests/gpu.sh [gpu|cuda] [--quick], and not $word" && exit 2 ;;
    esac
done
out="${OUT:-.}"

# Kernels for CUDA are compiled when first used, with NVIDIA's headers: of a toolkit, or of the wheels.
if [ "$device" = cuda ] && [ -z "${CUDA_PATH:-}" ] && [ ! -d /usr/local/cuda ]; then
    .ci/nvrtc
    CUDA_PATH="$(find "$PWD/target/nvrtc/nvidia" -maxdepth 1 -name 'cu*' | head -1)"
    export CUDA_PATH LD_LIBRARY_PATH="$CUDA_PATH/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi

program="${SEEDLING:-target/release/seedling}"
suite="${SEEDLING_SUITE:-}"
if [ -z "${SEEDLING:-}" ]; then
    cargo build --release --locked -p seedling-server --features gpu
fi
if [ -z "$suite" ]; then
    feature=gpu
    [ "$device" != cuda ] || feature=cuda
    suite="$(cargo test --release --locked -p seedling-tests --features "$feature" --test gpu --no-run --message-format json |
        grep -o '"executable":"[^"]*"' | tail -1 | cut -d'"' -f4)"
fi

printf '== devices\n'
"$program" devices || true

printf '== the suite\n'
# What needs the program would build it.
suite="$(realpath "$suite")"
failed=
tests=(--skip program:: --skip languages:: --skip emulated::)
seconds=270 limit=260
if [ -n "$quick" ]; then
    tests=(ops::pointwise ops::depthwise ops::in_half_precision runs::twenty_steps_of_moco)
    seconds=80 limit=95
fi
(cd tests && SEEDLING_REQUIRE=gpu timeout "$seconds" "$suite" --test-threads=2 "${tests[@]}") || failed="the suite"

printf '== speed\n'
timeout $((limit + 10)) python3 tests/peers/gpu_step.py --program "$program" --device "$device" \
    --out "$out/gpu.json" --limit "$limit" --seconds 2 $quick ||
    failed="${failed:+$failed, }the benchmark"
[ -z "$failed" ] || { printf '\n!! FAILED: %s\n' "$failed" && exit 1; }
