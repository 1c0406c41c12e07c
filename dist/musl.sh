#!/bin/sh
# Builds Speak as one static program: dist/musl.sh [TARGET [full|small]]
#
# The small build is without the optional features of Cargo.toml. Its program is called speak-small.
# TARGET is x86_64-unknown-linux-musl, aarch64-unknown-linux-musl or i686-unknown-linux-musl;
# default: this machine's processor. Rust's library for it, including musl, comes from rustup: no
# other compiler or C library is needed. The program contains no path of this machine: the same
# sources give the same bytes in any folder.
set -eu
cd "$(dirname "$0")/.."
TARGET=${1:-$(uname -m)-unknown-linux-musl}
case ${2:-full} in
full) FEATURES='' ;;
small) FEATURES=--no-default-features ;;
*) echo "$0: no build is called $2" >&2 && exit 2 ;;
esac
. dist/library.sh

# Options of the linker: through the C compiler, or for Rust's own linker.
PACK=-Wl,-z,pack-relative-relocs SCRIPT=-Wl,-T,dist/no-unwind-tables.ld
if [ "$PROCESSOR" != "$(uname -m)" ]; then
    PACK=-zpack-relative-relocs SCRIPT=-Tdist/no-unwind-tables.ld
fi
FLAGS="$FLAGS --remap-path-prefix=$PWD=/speak"
FLAGS="$FLAGS --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
# dist/check.sh has a limit for the file. Packed relocations, one bit each instead of 24 bytes, save
# 36 KiB (Rust's musl reads them, Debian's 1.2.3 does not). An inlining threshold of 45 instead of
# 275 saves another 400 KiB; functions marked `inline` are exempt. It costs up to 11 % more of
# Speak's own instructions, which are a tenth of the cost of a call. 95 costs 7 % and 148 KiB.
FLAGS="$FLAGS -C llvm-args=-inline-threshold=45"
if has_library; then FLAGS="$FLAGS -C link-arg=$PACK -C link-arg=$SCRIPT"; fi
# shellcheck disable=SC2086 # options, if any
RUSTFLAGS="$FLAGS ${RUSTFLAGS-}" \
    cargo build --release --locked --target "$TARGET" $FEATURES $LIBRARY_OPTIONS
PROGRAM=${CARGO_TARGET_DIR:-target}/$TARGET/release/speak
if [ -n "$FEATURES" ]; then
    # In one folder, the builds share their crates. Cargo calls both programs the same. Each is a
    # link to a file of Cargo's: `mv` refuses to replace one by another link to the same file.
    rm -f "$PROGRAM-small"
    mv "$PROGRAM" "$PROGRAM-small"
    PROGRAM=$PROGRAM-small
fi
ls -l "$PROGRAM"
