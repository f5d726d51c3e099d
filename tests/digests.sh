#!/usr/bin/env bash
# Digests of short runs with fixed seeds, one line each: every network by every method, every preset, and
# the settings that change a step. What is meant to change no number is checked by running this before and
# after it, on one machine:
#
#     cargo build --release
#     tests/digests.sh target/release/seedling PHOTOS >before
#     ... change ...
#     tests/digests.sh target/release/seedling PHOTOS | diff before -
#
# PHOTOS is a folder of 100 photos or more; most runs train on the first twelve, so that a photo meets its own
# key in the queue. Takes two minutes.
set -euo pipefail
[ $# -eq 2 ] || { echo "usage: $0 SEEDLING PHOTOS" >&2; exit 2; }
seedling="$(realpath "$1")" photos="$(realpath "$2")"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir few
mapfile -t all < <(find "$photos" -type f -name '*.[jp][pn]*g' | sort)
for i in {0..11}; do
    cp "${all[i * ${#all[@]} / 12]}" "few/$i.${all[i * ${#all[@]} / 12]##*.}"
done

# A run small enough for a network of any size.
small=(--threads 2 --seed 7 --steps 4 --quiet
    --set image_size=32 --set measure_size=32 --set batch_size=8 --set bn_group=4 --set queue_size=12)

# run NAME ARGUMENT...: trains, and digests the weights, the head and the log without its timings.
run() {
    local name="$1" log
    shift
    if ! "$seedling" "$@" --out run >said 2>&1; then
        printf '%s failed: ' "$name"; cat said; rm -rf run
        return
    fi
    log="$(sed -E 's/"(images_per_second|seconds|peak_memory_mb)":[^,}]*,?//g' run/metrics.jsonl | sha256sum)"
    printf '%s weights %.16s head %.16s log %.16s\n' "$name" "$(sha256sum <run/weights.safetensors)" \
        "$(cat run/projection_head.safetensors 2>/dev/null | sha256sum)" "$log"
    [ "$name" != teacher ] || mv run/weights.safetensors teacher.safetensors
    rm -rf run
}

networks=(mobilenet_v3_small mobilenet_v3_large efficientnet_b0 resnet18 resnet50 deit_tiny)
run teacher pretrain few --arch resnet18 "${small[@]}"
for network in "${networks[@]}"; do
    optimizer=sgd
    [ "$network" != deit_tiny ] || optimizer=adamw
    run "moco $network" pretrain few --arch "$network" "${small[@]}" --set optimizer=$optimizer
    run "moco, symmetric, frozen, smoothed $network" pretrain few --arch "$network" "${small[@]}" \
        --set optimizer=$optimizer --set symmetric=true --set freeze=2 --set label_smoothing=0.3 \
        --set label_smoothing_keys=3 --set head=dropout
    run "seed $network" distill few --arch "$network" --teacher teacher.safetensors "${small[@]}" \
        --set optimizer=$optimizer
done
for preset in moco-v2 baseline study improved cifar smoothed; do
    run "preset $preset" pretrain few --arch mobilenet_v3_small --preset $preset "${small[@]}"
done
for head in wide deep dim256 dropout hidden2048; do
    run "head $head" pretrain few --arch mobilenet_v3_small "${small[@]}" --set head=$head
done
run "own photo not masked" pretrain few --arch mobilenet_v3_small "${small[@]}" --set mask_own_photo=false
run "seed from another size" distill few --arch mobilenet_v3_small --teacher teacher.safetensors \
    "${small[@]}" --set teacher_size=48
run "closed form" adapt "$photos" --threads 2 --seed 7 --quiet --epochs 0 --set measure_size=64
run "adapt" adapt "$photos" "${small[@]}"
run "adapt, neighbors, L2-SP" adapt "$photos" "${small[@]}" --set neighbor_weight=0.5 --set l2_sp=0.1 \
    --set interpolation=0.7 --keep always
run "adapt, trained alone" adapt "$photos" "${small[@]}" --set whitening=false --keep always
"$seedling" embed "$photos" --weights shipped --out features.safetensors --threads 2 --tta-views 8 --quiet
printf 'features %.16s\n' "$(sha256sum <features.safetensors)"
