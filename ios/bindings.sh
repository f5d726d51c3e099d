#!/usr/bin/env bash
# bindings.sh LIBRARY: writes the library's Swift side into build/bridge, and its C header, as a module,
# into build/native.
set -euo pipefail
here="$(realpath "$(dirname "${BASH_SOURCE[0]}")")"
"$here/../mobile-ffi/bindings" swift "$here/build/bridge" "$1"
mkdir -p "$here/build/native"
mv "$here"/build/bridge/SeedlingFFI.h "$here/build/native/"
rm "$here"/build/bridge/*.modulemap
cat >"$here/build/native/module.modulemap" <<'MAP'
module SeedlingFFI {
    header "SeedlingFFI.h"
    link "seedling_mobile"
    export *
}
MAP
