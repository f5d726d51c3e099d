#!/usr/bin/env bash
# Builds the library, writes its Swift side, and builds and runs the Swift package's tests on this
# machine. Needs Rust and Swift 6; on Debian, where Swift is missing, it is taken from the packages of
# Debian 13 and kept in a folder of its own ($SEEDLING_SWIFT, target/swift), once; as root. With --set-up
# that is all it does. Ends with 3 where Swift can't be had.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
here="$PWD"
target="$(realpath -m "${CARGO_TARGET_DIR:-target}")"
debian="$(realpath -m "${SEEDLING_SWIFT:-$target/swift}")"
data="$(realpath -m "${SEEDLING_DATA:-../shared/data}")"

# Installs Swift into $debian. Nothing is left of it that is half done.
set_up() {
    command -v debootstrap >/dev/null || .ci/install debootstrap debian-archive-keyring gpgv || return
    rm -rf "$debian.part" && mkdir -p "$(dirname "$debian")"
    debootstrap --variant=minbase --include=ca-certificates trixie "$debian.part" >"$debian.log" || return
    # Debuggers, editors' servers and other systems' libraries are half of its 2.5 GB, and are not unpacked.
    printf 'path-exclude=%s\n' /usr/libexec/swift/bin/{lldb*,clangd*,sourcekit-lsp,docc,swift-format} \
        /usr/libexec/swift/lib/{liblldb*,libLTO*,libsourcekitdInProc.so,swift_static/*} \
        /usr/libexec/swift/lib/swift/{embedded,FrameworkABIBaseline}/\* \
        /usr/share/{doc,man,locale}/\* >"$debian.part/etc/dpkg/dpkg.cfg.d/small"
    inside "$debian.part" "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
        --no-install-recommends swiftlang libstdc++-14-dev libc6-dev && apt-get clean && rm -r /var/lib/apt/lists/*" >>"$debian.log" || return
    mv "$debian.part" "$debian"
}

# inside ROOT COMMAND [FOLDER AS]...: runs a command there, with folders of this machine mounted. In a
# mount namespace of its own: whatever happens, nothing stays mounted.
inside() {
    local root="$1" command="$2"
    shift 2
    unshare --mount bash -euc '
        root="$1" command="$2"
        shift 2
        mount --make-rprivate /
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        while [ $# -gt 0 ]; do
            mkdir -p "$root$2"
            mount --bind "$1" "$root$2"
            shift 2
        done
        exec chroot "$root" /bin/bash -euc "$command"
    ' _ "$root" "$command" "$@"
}

skip() {
    printf '\n!! %s: NOTHING OF SWIFT WAS TESTED\n\n' "$1"
    exit 3
}

if ! command -v swift >/dev/null && [ ! -d "$debian" ]; then
    [ "$(uname)" = Linux ] && command -v apt-get >/dev/null || skip "install Swift 6 first"
    [ "$(id -u)" = 0 ] || skip "Swift can only be set up by root"
    unshare --mount mount --make-rprivate / || skip "nothing can be mounted here, and Swift is not installed"
    echo "setting up Swift in $debian"
    if ! set_up; then
        tail -n 3 "$debian.log" 2>/dev/null || true
        # With Debian's packages at hand, a failure is one of ours.
        if curl -fsS --max-time 30 -o /dev/null https://deb.debian.org/debian/dists/trixie/InRelease ||
            curl -fsS --max-time 30 -o /dev/null http://deb.debian.org/debian/dists/trixie/InRelease; then
            echo "Swift could not be set up, see $debian.log" && exit 1
        fi
        skip "Debian cannot be reached, and there is no Swift here"
    fi
fi
[ "${1:-}" = --set-up ] && exit 0

# The whole workspace: a part of it alone would compile its dependencies again, with other features.
cargo build --locked --workspace
case "$(uname)" in
Darwin) ios/build-xcframework.sh ;;
*) ios/bindings.sh "$target/debug/libseedling_mobile.so" ;;
esac

# What the guides show has to compile, and the first one's to run; what only an iPhone has, to be parsed.
.ci/code-of docs/mobile.md swift ios/Tests/SeedlingTests/Generated/Mobile
.ci/code-of docs/ios.md swift ios/Tests/SeedlingTests/Generated/Guide
.ci/code-of docs/ios.md "swift ios" ios/build/guide/Guide

# Parts for Apple's systems cannot be compiled elsewhere; that they can be parsed is checked.
test='
    cd "$project/ios"
    find Sources Sample Tests build/guide -name "*.swift" -print0 | xargs -0 swiftc -frontend -parse -swift-version 6
    mkdir -p "$scratch/symbols"
    swift build --quiet --build-tests --disable-sandbox --scratch-path "$scratch" -Xlinker "-L$library" \
        -Xswiftc -emit-symbol-graph -Xswiftc -emit-symbol-graph-dir -Xswiftc "$scratch/symbols" \
        2>&1 | tee "$scratch.log"
    if grep -E "/(Seedling|SeedlingChild|SeedlingTests)/.*(warning|error):" "$scratch.log"; then
        echo "warnings in the package"
        exit 1
    fi
    SEEDLING_SYMBOLS="$scratch/symbols" SEEDLING="$library/seedling" LD_LIBRARY_PATH="$library" swift test --skip-build --disable-sandbox --scratch-path "$scratch"'
if command -v swift >/dev/null; then
    project="$here" library="$target/debug" scratch="$target/swift-build" SEEDLING_DATA="$data" \
        bash -euo pipefail -c "$test"
else
    mkdir -p "$target/swift-build"
    folders=("$here" /project "$target/debug" /library "$target/swift-build" /scratch)
    [ ! -d "$data" ] || folders+=("$data" /data)
    inside "$debian" "set -o pipefail
        export HOME=/root project=/project library=/library scratch=/scratch/build SEEDLING_DATA=/data
        $test" "${folders[@]}"
fi
