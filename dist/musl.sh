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
if [ "${TARGET%%-*}" != "$(uname -m)" ]; then
    NAME=$(echo "$TARGET" | tr 'a-z-' 'A-Z_')
    export "CARGO_TARGET_${NAME}_LINKER=rust-lld"
fi

FLAGS="--remap-path-prefix=$PWD=/speak --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
# shellcheck disable=SC2086 # options of the fallback, if any
RUSTFLAGS="$FLAGS ${RUSTFLAGS-}" cargo build --release --locked --target "$TARGET" ${MUSL_OPTIONS-}
ls -l "target/$TARGET/release/speak"
