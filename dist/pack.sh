#!/bin/sh
# Packs the static programs that dist/musl.sh built, full and small: dist/pack.sh [TARGET]
#
# Writes speak-VERSION-PROCESSOR-linux-musl.tar.gz, the same for speak-small, and a Debian package
# of the full one into target/dist. Times are that of the last commit, owners and order are fixed:
# the same sources give the same bytes.
set -eu
cd "$(dirname "$0")/.."
TARGET=${1:-$(uname -m)-unknown-linux-musl}
OUT=target/dist
DEB_VERSION=3.8.0
VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# Without a repository: the time of the newest source.
newest() {
    git log -1 --format=%ct 2>/dev/null || find src -printf '%Ts\n' | sort -n | tail -n 1
}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(newest)}
export SOURCE_DATE_EPOCH
umask 022

# Packs the program $1 as $1-VERSION-PROCESSOR-linux-musl.tar.gz. $2 are Cargo's options for it.
pack() {
    NAME=$1-$VERSION-${TARGET%%-*}-linux-musl
    mkdir -p "$OUT/completions" "$OUT/$NAME/completions" "$OUT/$NAME/docs"
    chmod 755 "$OUT/$NAME/completions" "$OUT/$NAME/docs"
    # The program itself prints its manual page and completions: a build for another processor
    # cannot.
    PROGRAM=target/$TARGET/release/$1
    SPEAK=$PROGRAM
    if [ "${TARGET%%-*}" != "$(uname -m)" ]; then
        # shellcheck disable=SC2086 # options, if any
        cargo build --quiet --locked $2
        SPEAK=target/debug/speak
    fi
    "$SPEAK" generate man >"$OUT/speak.1"
    for PAIR in bash:speak.bash zsh:_speak fish:speak.fish; do
        "$SPEAK" generate "${PAIR%%:*}" >"$OUT/completions/${PAIR#*:}"
    done
    cp "$OUT"/completions/* "$OUT/$NAME/completions"
    cp docs/*.md docs/*.yaml docs/*.png docs/*.svg "$OUT/$NAME/docs"
    cp README.md SECURITY.md CHANGELOG.md LICENSE dist/speak.service dist/sockets/*.socket \
        dist/cluster/*.service "$OUT/speak.1" "$OUT/$NAME"
    cp "$PROGRAM" "$OUT/$NAME/speak"
    find "$OUT/$NAME" -type f -exec chmod 644 {} +
    chmod 755 "$OUT/$NAME/speak"
    # The small one is without TLS.
    if [ "$1" = speak ]; then
        cp -R dist/acme "$OUT/$NAME"
        chmod -R u=rwX,go=rX "$OUT/$NAME/acme"
    fi
    tar --create --format=ustar --sort=name --mtime="@$SOURCE_DATE_EPOCH" \
        --owner=0 --group=0 --numeric-owner --directory "$OUT" "$NAME" |
        gzip -9n >"$OUT/$NAME.tar.gz"
    rm -r "${OUT:?}/$NAME"
}
rm -rf "$OUT"
pack speak-small --no-default-features
# The Debian package has the manual page and the completions of the last one.
pack speak ''

# Without the features that would build a C library: cargo-deb can use the program `xz` instead.
cargo deb --version >/dev/null 2>&1 ||
    cargo install --locked --no-default-features --features gzip "cargo-deb@$DEB_VERSION"
cargo deb --quiet --no-build --no-strip --target "$TARGET" --output "$OUT/"
(cd "$OUT" && sha256sum ./*.tar.gz ./*.deb)
