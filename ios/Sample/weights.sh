#!/usr/bin/env bash
# Makes Weights/: the weights that the sample is shipped with, signed with a key of its own. An app has its
# public key in its code; here it lies beside them, so that everybody can build the sample.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
mkdir -p Weights
cp ../../models/mobilenet_v3_small.safetensors Weights/base.safetensors
key="$(mktemp -d)/sample.key"
seedling() { cargo run --quiet --release --manifest-path ../../Cargo.toml -p seedling-server -- "$@"; }
seedling keygen "$key"
seedling sign Weights/base.safetensors --key "$key" --version 1
cp "$key.pub" Weights/base.key.pub
