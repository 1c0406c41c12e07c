# shellcheck shell=sh
# Prepares Cargo to build for $TARGET: Rust's library for it, a C compiler and a linker. Sets FLAGS,
# to be added to RUSTFLAGS, and LIBRARY_OPTIONS, for `cargo build`. To be read by a script.

has_library() {
    ls "$(rustc --print target-libdir --target "$TARGET")"/libstd-*.rlib >/dev/null 2>&1
}

has_library || timeout 180 rustup target add "$TARGET" || true
PROCESSOR=${TARGET%%-*}
FLAGS=''
LIBRARY_OPTIONS=''
NAME=$(echo "$TARGET" | tr 'a-z-' 'A-Z_')
# The C compiler for ring, if another one is not given. ring needs no C library, so that for glibc
# makes objects for musl as well.
COMPILER=$PROCESSOR-linux-gnu-gcc
if [ "$PROCESSOR" = "$(uname -m)" ]; then COMPILER=gcc; fi
case $TARGET in
aarch64-*)
    .ci/deps "$COMPILER:gcc-aarch64-linux-gnu" \
        /usr/aarch64-linux-gnu/include/stdint.h:libc6-dev-arm64-cross ;;
i686-*)
    .ci/deps "$COMPILER:gcc-i686-linux-gnu" \
        /usr/i686-linux-gnu/include/stdint.h:libc6-dev-i386-cross ;;
riscv64gc-*) COMPILER=riscv64-linux-gnu-gcc ;;
esac
export "CC_$(echo "$TARGET" | tr - _)=$COMPILER"
if [ "$TARGET" = riscv64gc-unknown-linux-gnu ]; then
    .ci/deps riscv64-linux-gnu-gcc:gcc-riscv64-linux-gnu \
        /usr/riscv64-linux-gnu/lib/libc.a:libc6-dev-riscv64-cross
    export "CARGO_TARGET_${NAME}_LINKER=riscv64-linux-gnu-gcc"
    FLAGS='-C target-feature=+crt-static'
elif has_library && [ "$PROCESSOR" != "$(uname -m)" ]; then
    # A linker for another processor is rarely installed. Rust's own linker supports all of them.
    export "CARGO_TARGET_${NAME}_LINKER=rust-lld"
fi
if ! has_library; then
    echo "$0: no library for $TARGET from rustup: building it from Debian's sources" >&2
    . dist/library-from-debian.sh
fi
