#!/bin/sh
# Builds Speak for other processors, and has each program serve a conversation: dist/processors.sh
#
# The conversation is tests/conversation.rs. A program for i686 runs on x86-64 by itself, the others
# run in qemu-user. The builds are development builds: they are cheap, and stop at an arithmetic
# overflow. riscv64 has glibc instead of musl, since Debian has no musl for it.
set -eu
cd "$(dirname "$0")/.."
.ci/deps qemu-aarch64:qemu-user

# Builds for $1, and makes run-speak next to the program, which runs it, with the emulator $2 if
# there is one.
build() (
    TARGET=$1
    . dist/library.sh
    export CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_DEV_PANIC=abort
    # shellcheck disable=SC2086 # options of the fallback, if any
    RUSTFLAGS=$FLAGS cargo build --locked --target "$TARGET" $LIBRARY_OPTIONS
    cd "target/$TARGET/debug"
    rm -f run-speak
    if [ -z "$2" ]; then
        ln -s speak run-speak
    else
        printf '#!/bin/sh\nexec %s "%s" "$@"\n' "$2" "$PWD/speak" >run-speak
        chmod 755 run-speak
    fi
)

# Runs the program for $1 with the tests of $2….
check() {
    SPEAK_BIN=$PWD/target/$1/debug/run-speak
    shift
    SPEAK_BIN=$SPEAK_BIN cargo test --locked "$@"
}

I686=''
[ "$(uname -m)" = x86_64 ] || I686=qemu-i386
build i686-unknown-linux-musl "$I686"
build aarch64-unknown-linux-musl qemu-aarch64
build riscv64gc-unknown-linux-gnu qemu-riscv64
# With 32 bits, limits are others, too.
check i686-unknown-linux-musl --test conversation --test operating
check i686-unknown-linux-musl --test overload an_unused_channel_is_evicted_for_another
check aarch64-unknown-linux-musl --test conversation
check riscv64gc-unknown-linux-gnu --test conversation
