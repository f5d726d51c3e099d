#!/usr/bin/env bash
# Builds what an app needs, on a Mac with Xcode 16 or later and Rust: build/Seedling.xcframework (iPhone,
# simulator, Mac), and with a version and the address it will be published at, the release:
#
#     ios/build-xcframework.sh                            to work on the package and the sample
#     ios/build-xcframework.sh 0.1.0 https://example.org/Seedling.xcframework.zip
#
# SEEDLING_FEATURES=gpu makes the flavor that can use the GPU.
#
# The second one also leaves build/Seedling.xcframework.zip and build/release/, a Swift package whose
# binaryTarget names that address and the archive's checksum: commit it, with its tag, wherever apps add it
# from.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
version="${1:-}" address="${2:-}"
[ "$(uname)" = Darwin ] || { echo "an XCFramework can only be built on a Mac"; exit 1; }
[ -z "$version" ] || [ -n "$address" ] || { echo "usage: $0 [VERSION ADDRESS]"; exit 2; }

targets=(aarch64-apple-ios aarch64-apple-ios-sim aarch64-apple-darwin x86_64-apple-darwin)
rustup target add "${targets[@]}"
export IPHONEOS_DEPLOYMENT_TARGET=16.0 MACOSX_DEPLOYMENT_TARGET=13.0
for triple in "${targets[@]}"; do
    cargo rustc --locked --profile phone --target "$triple" --package seedling-mobile --lib \
        --crate-type staticlib --features "${SEEDLING_FEATURES:-}"
done
target="$(cd .. && cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')"

# What is stripped has lost what bindings are written from: those of this machine are the same.
cargo build --locked --package seedling-mobile
./bindings.sh "$target/debug/libseedling_mobile.dylib"

headers=build/headers
rm -rf "$headers" build/Seedling.xcframework build/mac
mkdir -p "$headers" build/mac
cp build/native/SeedlingFFI.h "$headers/"
# Linked statically, by the framework itself.
sed '/link "seedling_mobile"/d' build/native/module.modulemap >"$headers/module.modulemap"

library=libseedling_mobile.a
lipo -create "$target"/{aarch64,x86_64}-apple-darwin/phone/$library -output "build/mac/$library"
xcodebuild -create-xcframework \
    -library "$target/aarch64-apple-ios/phone/$library" -headers "$headers" \
    -library "$target/aarch64-apple-ios-sim/phone/$library" -headers "$headers" \
    -library "build/mac/$library" -headers "$headers" \
    -output build/Seedling.xcframework
[ -n "$version" ] || exit 0

rm -rf build/Seedling.xcframework.zip build/release
ditto -c -k --keepParent build/Seedling.xcframework build/Seedling.xcframework.zip
checksum="$(swift package compute-checksum build/Seedling.xcframework.zip)"
mkdir -p build/release/Sources
cp -R Sources/Seedling build/release/Sources/
cp -R build/bridge build/release/Sources/SeedlingBridge
cat >build/release/Package.swift <<MANIFEST
// swift-tools-version: 6.0
// Seedling $version
import PackageDescription

let package = Package(
    name: "Seedling",
    platforms: [.iOS(.v16), .macOS(.v13)],
    products: [.library(name: "Seedling", targets: ["Seedling"])],
    targets: [
        .binaryTarget(name: "SeedlingFFI", url: "$address", checksum: "$checksum"),
        .target(name: "SeedlingBridge", dependencies: ["SeedlingFFI"]),
        .target(name: "Seedling", dependencies: ["SeedlingBridge"]),
    ],
    swiftLanguageModes: [.v6]
)
MANIFEST
echo "build/Seedling.xcframework.zip: $checksum"
echo "build/release/: the package for $version"
