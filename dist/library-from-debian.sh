# shellcheck shell=sh
# Fallback of library.sh if rustup cannot download: Debian's compiler, Debian's C library, and the
# sources of Rust's library, which are built with the program.
#
# The program aborts on panic and has no backtraces, so it never unwinds, and the functions of the
# unwinder's library (`libunwind.a`) find nothing. The linker gets the paths of musl's and gcc's
# files, since rustc knows only its own.

.ci/deps /usr/bin/rustc:rustc-web /usr/lib/rustlib/src/rust/library:rust-web-src
LIBRARY_OPTIONS='-Zbuild-std=std,panic_abort -Zbuild-std-features='
# Debian's sources need Debian's compiler. It builds a standard library only with unstable options.
export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1

# Loads Debian's musl for another processor, which Debian calls $1, into $FALLBACK.
load_musl() {
    APT="-q -o APT::Architecture=$1 -o APT::Architectures=$1 -o APT::Sandbox::User=root"
    APT="$APT -o Dir::State::lists=$FALLBACK/lists -o Dir::Cache=$FALLBACK/cache"
    mkdir -p "$FALLBACK/lists/partial" "$FALLBACK/cache/archives/partial"
    # The download fails if its own list could not be updated.
    # shellcheck disable=SC2086 # one word for each option
    (cd "$FALLBACK" && { apt-get $APT update || true; } && apt-get $APT download musl-dev) >&2
    dpkg-deb -x "$FALLBACK"/musl-dev_*.deb "$FALLBACK"
}

FALLBACK=$PWD/target/library-from-debian/$TARGET
MUSL_FOLDER=''
mkdir -p "$FALLBACK"
case $TARGET in
"$(uname -m)"-unknown-linux-musl)
    .ci/deps musl-gcc:musl-tools
    MUSL_LINKER=gcc MUSL_FOLDER=/usr/lib/$(uname -m)-linux-musl
    ;;
i686-unknown-linux-musl)
    .ci/deps i686-linux-gnu-gcc:gcc-i686-linux-gnu
    MUSL_LINKER=i686-linux-gnu-gcc MUSL_FOLDER=$FALLBACK/usr/lib/i386-linux-musl
    [ -d "$MUSL_FOLDER" ] || load_musl i386
    ;;
aarch64-unknown-linux-musl)
    .ci/deps aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu
    MUSL_LINKER=aarch64-linux-gnu-gcc MUSL_FOLDER=$FALLBACK/usr/lib/aarch64-linux-musl
    [ -d "$MUSL_FOLDER" ] || load_musl arm64
    ;;
*-gnu) ;;
*)
    echo "$0: Debian has no musl for $TARGET" >&2
    exit 1
    ;;
esac
if [ -n "$MUSL_FOLDER" ]; then
    echo 'int _Unwind_Backtrace(void) { return 5; } long _Unwind_GetIP(void) { return 0; }' |
        "$MUSL_LINKER" -O2 -fPIC -x c -c -o "$FALLBACK/unwind.o" -
    ar rc "$FALLBACK/libunwind.a" "$FALLBACK/unwind.o"
    FLAGS="$FLAGS -Clinker=$MUSL_LINKER -Clink-self-contained=no"
    FLAGS="$FLAGS -Lnative=$FALLBACK -Lnative=$MUSL_FOLDER -Clink-arg=-nostartfiles"
    # The start files are linked after the library here, so their symbols are requested before.
    FLAGS="$FLAGS -Clink-arg=-Wl,-u,__libc_start_main"
    # Only for x86-64 can rustc make a static program position-independent.
    START=crt1.o
    [ "$PROCESSOR" != x86_64 ] || START=rcrt1.o
    for PART in "$START" crti.o crtn.o; do
        FLAGS="$FLAGS -Clink-arg=$MUSL_FOLDER/$PART"
    done
fi
