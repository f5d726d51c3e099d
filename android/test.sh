#!/usr/bin/env bash
# Builds the library, writes its Kotlin side, and runs the tests on this machine's JVM. Needs Rust,
# a JDK of 17 or later and Maven.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target="$(realpath -m "${CARGO_TARGET_DIR:-target}")"
case "$(uname)" in
Darwin) library="$target/debug/libseedling_mobile.dylib" ;;
*) library="$target/debug/libseedling_mobile.so" ;;
esac
cargo build --locked -p seedling-mobile --features bindgen
rm -rf android/target/bindings
"$target/debug/uniffi-bindgen" generate --language kotlin --no-format \
    --out-dir android/target/bindings "$library"
mvn --batch-mode --no-transfer-progress --quiet -f android/pom.xml test -Dnative="$(dirname "$library")"
echo "android: all tests passed"
grep -h -o 'tests="[0-9]*" errors="[0-9]*" skipped="[0-9]*" failures="[0-9]*"' \
    android/target/surefire-reports/TEST-*.xml
