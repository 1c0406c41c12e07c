#!/bin/sh
# Packs the static programs that dist/musl.sh built, full and small: dist/pack.sh [TARGET]
#
# Writes a Debian package of the full one, speak-VERSION-PROCESSOR-linux-musl.tar.gz, and the same
# for speak-small into target/dist. Times are that of the last commit, owners and order are fixed:
# the same sources give the same bytes. Cargo.toml lists the contents of the Debian package; the
# others have the same pages. Installs cargo-deb with Cargo if it is missing, and nothing else.
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

# Prints the changelog of the Debian package, deb-changelog(5).
changelog() {
    MAINTAINER=$(sed -n 's/^maintainer = "\(.*\)"/\1/p' Cargo.toml)
    printf 'speak (%s-1) unstable; urgency=medium\n\n' "$VERSION"
    printf '  * The changes are in /usr/share/doc/speak/CHANGELOG.md.\n\n'
    printf ' -- %s  %s\n' "$MAINTAINER" "$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")"
}

# Prints the licence in Debian's format for programs, copyright-format 1.0.
copyright() {
    echo 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/'
    printf 'Upstream-Name: speak\n\nFiles: *\n'
    sed -n 's/^Copyright/Copyright:/p' LICENSE
    echo 'License: Expat'
    sed -n '/^Permission/,$ { s/^$/./; s/^/ /; p }' LICENSE
}

# Writes the manual page and the completions of the program $1, which prints them itself: a build
# for another processor cannot. $2 are Cargo's options for it.
generate() {
    SPEAK=target/$TARGET/release/$1
    if [ "${TARGET%%-*}" != "$(uname -m)" ]; then
        # shellcheck disable=SC2086 # options, if any
        cargo build --quiet --locked $2
        SPEAK=target/debug/speak
    fi
    mkdir -p "$OUT/completions"
    "$SPEAK" generate man >"$OUT/speak.1"
    for PAIR in bash:speak.bash zsh:_speak fish:speak.fish; do
        "$SPEAK" generate "${PAIR%%:*}" >"$OUT/completions/${PAIR#*:}"
    done
}

# Packs the program $1 with the pages in $OUT/pages as $1-VERSION-PROCESSOR-linux-musl.tar.gz.
pack() {
    NAME=$1-$VERSION-${TARGET%%-*}-linux-musl
    cp -R "$OUT/pages" "$OUT/$NAME"
    cp -R "$OUT/completions" "$OUT/speak.1" LICENSE "$OUT/$NAME"
    cp "target/$TARGET/release/$1" "$OUT/$NAME/speak"
    chmod -R u=rwX,go=rX "$OUT/$NAME"
    chmod 755 "$OUT/$NAME/speak" "$OUT/$NAME/dist/acme/install" "$OUT/$NAME/dist/acme/renew" \
        "$OUT/$NAME/dist/acme/uacme-hook"
    tar --create --format=ustar --sort=name --mtime="@$SOURCE_DATE_EPOCH" \
        --owner=0 --group=0 --numeric-owner --directory "$OUT" "$NAME" |
        gzip -9n >"$OUT/$NAME.tar.gz"
    rm -r "${OUT:?}/$NAME"
}

# Everything of an earlier run, and not the package of `make npm`.
mkdir -p "$OUT"
find "$OUT" -mindepth 1 -maxdepth 1 ! -name '*.tgz' -exec rm -rf {} +
generate speak ''
changelog >"$OUT/changelog"
copyright >"$OUT/copyright"
# Without the features that would build a C library: cargo-deb can use the program `xz` instead.
if ! cargo deb --version 2>/dev/null | grep -qwF "$DEB_VERSION"; then
    echo "installing cargo-deb $DEB_VERSION with cargo, once: it packs the .deb"
    cargo install --locked --no-default-features --features gzip "cargo-deb@$DEB_VERSION"
fi
cargo deb --quiet --no-build --no-strip --target "$TARGET" --output "$OUT/"

# The pages are those of the Debian package.
dpkg-deb --extract "$OUT"/*.deb "$OUT/deb"
mv "$OUT/deb/usr/share/doc/speak" "$OUT/pages"
rm -r "$OUT/deb" "$OUT/pages/copyright" "$OUT"/pages/changelog*
pack speak
generate speak-small --no-default-features
pack speak-small
rm -r "$OUT/pages"

(cd "$OUT" && ls -l ./*.deb ./*.tar.gz | awk '{ print $5 " bytes  " $9 }' &&
    sha256sum ./*.deb ./*.tar.gz)
