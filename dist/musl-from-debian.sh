# shellcheck shell=sh
# For musl.sh, where rustup has no way out: Debian's compiler, musl, and the sources of Rust's library, built on the way.
#
# For the processor of this machine. What is built has no backtraces, so nobody unwinds, and the library that would
# (`unwind`) is an empty one. The rest is where musl and gcc have their parts: rustc knows the names of its own.

case $TARGET in
"$(uname -m)"-unknown-linux-musl) ;;
*)
    echo "$0: Debian has no musl for $TARGET" >&2
    exit 1
    ;;
esac
if ! command -v musl-gcc >/dev/null || [ ! -x /usr/bin/rustc ] || [ ! -d /usr/lib/rustlib/src/rust/library ]; then
    SUDO=$([ "$(id -u)" = 0 ] || echo sudo)
    $SUDO apt-get update -q
    $SUDO apt-get install -yq --no-install-recommends rustc-web rust-web-src musl-tools
fi

MUSL_FOLDER=/usr/lib/$(uname -m)-linux-musl
EMPTY=$PWD/target/musl-from-debian
mkdir -p "$EMPTY"
ar rc "$EMPTY/libunwind.a"
RUSTFLAGS="-Clinker=gcc -Clink-self-contained=no -Lnative=$EMPTY -Lnative=$MUSL_FOLDER -Clink-arg=-nostartfiles"
# The start of a program stands behind the library here: what it wants of that is asked for before.
RUSTFLAGS="$RUSTFLAGS -Clink-arg=-Wl,-u,__libc_start_main"
for PART in "$MUSL_FOLDER/rcrt1.o" "$MUSL_FOLDER/crti.o" "$MUSL_FOLDER/crtn.o"; do
    RUSTFLAGS="$RUSTFLAGS -Clink-arg=$PART"
done
MUSL_OPTIONS='-Zbuild-std=std,panic_abort -Zbuild-std-features='
# Debian's compiler fits Debian's sources; it builds a standard library only where unstable options are let through.
export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
