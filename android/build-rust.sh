#!/usr/bin/env bash
# Compiles the native library for Android's two ABIs into build/rust/jniLibs, and writes its Kotlin side into
# build/rust/kotlin. Needs Rust, the NDK (ANDROID_NDK_HOME, r28 or later) and cargo-ndk
# (cargo install cargo-ndk). SEEDLING_FEATURES=gpu makes the flavor that can use the GPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
out="$PWD/build/rust"
command -v cargo-ndk >/dev/null || { echo "cargo install cargo-ndk"; exit 1; }
[ -d "${ANDROID_NDK_HOME:-}" ] || { echo "set ANDROID_NDK_HOME to an NDK, r28 or later"; exit 1; }
rustup target add aarch64-linux-android x86_64-linux-android

# Pages of 16 KB, also with an older NDK.
export RUSTFLAGS="${RUSTFLAGS:-} -Clink-arg=-Wl,-z,max-page-size=16384"
rm -rf "$out/jniLibs"
cargo ndk --target arm64-v8a --target x86_64 --platform 26 --output-dir "$out/jniLibs" \
    build --locked --profile phone --package seedling-mobile --features "${SEEDLING_FEATURES:-}"

readelf="$(ls "$ANDROID_NDK_HOME"/toolchains/llvm/prebuilt/*/bin/llvm-readelf)"
target="$(realpath "${CARGO_TARGET_DIR:-../target}")"
for abi in arm64-v8a x86_64; do
    library="$out/jniLibs/$abi/libseedling_mobile.so"
    [ -f "$library" ] || { echo "$library was not built"; exit 1; }
    # Every loaded part begins at a multiple of 16 KB.
    if "$readelf" -lW "$library" | awk '$1 == "LOAD" && $NF !~ /^0x(4000|8000|10000)$/ { bad = 1 } END { exit !bad }'; then
        echo "$library is not aligned to pages of 16 KB"
        exit 1
    fi
    printf '%s: %s bytes\n' "$abi" "$(wc -c <"$library")"
done

# What is stripped has lost what bindings are written from: those of this machine are the same.
cargo build --locked --package seedling-mobile
case "$(uname)" in
Darwin) host="$target/debug/libseedling_mobile.dylib" ;;
*) host="$target/debug/libseedling_mobile.so" ;;
esac
../mobile-ffi/bindings kotlin "$out/kotlin" "$host"
