#!/usr/bin/env bash
# Builds the library, writes its Kotlin side, and runs the tests on this machine's JVM. Needs Rust,
# a JDK of 17 or later and Maven; on Debian the last two are installed where they are missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! command -v javac >/dev/null || ! command -v mvn >/dev/null; then
    .ci/install default-jdk-headless maven
fi

target="$(realpath -m "${CARGO_TARGET_DIR:-target}")"
case "$(uname)" in
Darwin) library="$target/debug/libseedling_mobile.dylib" ;;
*) library="$target/debug/libseedling_mobile.so" ;;
esac
# The whole workspace: a part of it alone would compile its dependencies again, with other features.
cargo build --locked --workspace
mobile-ffi/bindings kotlin android/target/bindings "$library"

# What the guides show has to compile, and the first one's to run.
rm -rf android/target/guides
.ci/code-of docs/mobile.md kotlin android/target/guides/Mobile "package io.seedling.mobile"
.ci/code-of docs/android.md kotlin android/target/guides/Android "package io.seedling.guide"
# Aliases are nothing at run time: that they are there the compiler says.
awk -F'\t' 'BEGIN { print "package io.seedling.names" }
    /^[^#\t]/ && $3 ~ /[.]kt$/ && $1 != "Access" { print "private typealias Of" $1 " = io.seedling." $1 }' \
    mobile-ffi/names.tsv >android/target/guides/Names.kt

rm -rf android/target/surefire-reports
mvn --batch-mode --no-transfer-progress --quiet -f android/pom.xml test -Dnative="$(dirname "$library")"
awk -F'"' '/<testcase / { print "test " $4 "." $2 " ... ok" }' android/target/surefire-reports/TEST-*.xml
grep -ho '<testsuite [^>]*' android/target/surefire-reports/TEST-*.xml |
    grep -o 'tests="[0-9]*"\|errors="[0-9]*"\|skipped="[0-9]*"\|failures="[0-9]*"' | paste -sd' '
