#!/bin/sh
# Builds Speak as one static program: dist/musl.sh [TARGET]
#
# TARGET is this machine's processor with musl, or x86_64-unknown-linux-musl or aarch64-unknown-linux-musl.
# Rust's library for it comes from rustup, with musl in it: no other compiler and no C library is needed.
# The program holds no path of this machine, so the same sources make the same bytes in any folder.
set -eu
cd "$(dirname "$0")/.."
TARGET=${1:-$(uname -m)-unknown-linux-musl}

has_library() {
    ls "$(rustc --print target-libdir --target "$TARGET")"/libstd-*.rlib >/dev/null 2>&1
}

has_library || timeout 180 rustup target add "$TARGET" || true
if ! has_library; then
    echo "$0: rustup does not give the library for $TARGET: building it from Debian's sources" >&2
    . dist/musl-from-debian.sh
fi

# Another processor's linker is mostly not at hand; Rust's own links for all of them.
PACK=-Wl,-z,pack-relative-relocs
if [ "${TARGET%%-*}" != "$(uname -m)" ]; then
    PACK=-zpack-relative-relocs
    NAME=$(echo "$TARGET" | tr 'a-z-' 'A-Z_')
    export "CARGO_TARGET_${NAME}_LINKER=rust-lld"
fi

FLAGS="--remap-path-prefix=$PWD=/speak --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
# File and memory are to stay below 1.5 MiB each, and with some room: all of the file may lie in memory, and 140 KiB beside it.
# Relocations in one bit each, not 24 bytes, save 36 KiB (Rust's musl reads them, Debian's 1.2.3 does not); and calls put in place
# only up to 105 of the compiler's units, not 275, another 256 KiB, but for those that are marked `inline`. That takes up to 3 % more
# instructions of Speak's own, which are a tenth of what a call costs.
FLAGS="$FLAGS -C llvm-args=-inline-threshold=105"
if has_library; then FLAGS="$FLAGS -C link-arg=$PACK"; fi
# shellcheck disable=SC2086 # options of the fallback, if any
RUSTFLAGS="$FLAGS ${RUSTFLAGS-}" cargo build --release --locked --target "$TARGET" ${MUSL_OPTIONS-}
ls -l "target/$TARGET/release/speak"
