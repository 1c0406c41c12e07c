# shellcheck shell=sh
# Fallback of musl.sh if rustup cannot download: Debian's compiler, Debian's musl, and the sources
# of Rust's library, which are built with the program.
#
# For the processor of this machine. The program aborts on panic and has no backtraces, so it never
# unwinds, and the unwinder's library (`libunwind.a`) is empty. The linker gets the paths of musl's
# and gcc's files, since rustc knows only its own.

case $TARGET in
"$(uname -m)"-unknown-linux-musl) ;;
*)
    echo "$0: Debian has no musl for $TARGET" >&2
    exit 1
    ;;
esac
if ! command -v musl-gcc >/dev/null || [ ! -x /usr/bin/rustc ] ||
    [ ! -d /usr/lib/rustlib/src/rust/library ]; then
    SUDO=$([ "$(id -u)" = 0 ] || echo sudo)
    $SUDO apt-get update -q
    $SUDO apt-get install -yq --no-install-recommends rustc-web rust-web-src musl-tools
fi

MUSL_FOLDER=/usr/lib/$(uname -m)-linux-musl
EMPTY=$PWD/target/musl-from-debian
mkdir -p "$EMPTY"
ar rc "$EMPTY/libunwind.a"
RUSTFLAGS="-Clinker=gcc -Clink-self-contained=no -Lnative=$EMPTY -Lnative=$MUSL_FOLDER"
RUSTFLAGS="$RUSTFLAGS -Clink-arg=-nostartfiles"
# The start files are linked after the library here, so their symbols are requested before.
RUSTFLAGS="$RUSTFLAGS -Clink-arg=-Wl,-u,__libc_start_main"
for PART in "$MUSL_FOLDER/rcrt1.o" "$MUSL_FOLDER/crti.o" "$MUSL_FOLDER/crtn.o"; do
    RUSTFLAGS="$RUSTFLAGS -Clink-arg=$PART"
done
MUSL_OPTIONS='-Zbuild-std=std,panic_abort -Zbuild-std-features='
# Debian's sources need Debian's compiler. It builds a standard library only with unstable options.
export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
