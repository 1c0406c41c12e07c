#!/usr/bin/env bash
# Bytes of each crate in the static program: its functions and data, by the symbols of the linker.
#
# bench/sizes.sh [TARGET]      builds the program with symbols, in a folder of its own
#
# Code of a crate that was inlined into another crate counts there. The rest of the file is strings
# and relocations.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."
TARGET=${1:-$(uname -m)-unknown-linux-musl}
export CARGO_TARGET_DIR=target/sizes
CARGO_PROFILE_RELEASE_STRIP=none dist/musl.sh "$TARGET" >/dev/null
CRATES=$(cargo metadata --format-version 1 --locked --filter-platform "$TARGET" |
    grep -o '"name":"[a-z0-9_-]*","version"' | cut -d '"' -f 4 | tr '-' '_' | sort -u)

nm --demangle --print-size "$CARGO_TARGET_DIR/$TARGET/release/speak" | awk -v crates="$CRATES" '
    function hex(text, i, value) {
        for (i = 1; i <= length(text); i++) {
            value = value * 16 + index("0123456789abcdef", substr(text, i, 1)) - 1
        }
        return value
    }
    BEGIN {
        count = split(crates, list)
        for (i = 1; i <= count; i++) known[list[i]] = 1
        names = "std core alloc compiler_builtins addr2line gimli object miniz_oxide rustc_demangle"
        split(names, list)
        for (i in list) standard[list[i]] = 1
        other = "libc, unwinding, symbols without a crate"
    }
    NF >= 4 && $3 ~ /[tTrRdDbBwWvV]/ {
        size = hex($2)
        name = $0
        sub(/^[^ ]* [^ ]* [^ ]* /, "", name)
        # An instance of a generic of the standard library belongs to the first crate in its name.
        owner = name ~ /::/ ? "std" : other
        first = 1
        while (match(name, /[A-Za-z_][A-Za-z_0-9]*::/)) {
            part = substr(name, RSTART, RLENGTH - 2)
            name = substr(name, RSTART + RLENGTH)
            if (part in known) { owner = part; break }
            if (first && !(part in standard) && part !~ /^(libunwind)$/) owner = "std"
            if (part == "libunwind") owner = other
            first = 0
        }
        bytes[owner] += size
        all += size
    }
    END {
        for (owner in bytes) printf "%8d %s\n", bytes[owner], owner
        printf "%8d all\n", all
    }' | sort -rn
stat -c '%s bytes with symbols; without:' "$CARGO_TARGET_DIR/$TARGET/release/speak"
strip -o "$CARGO_TARGET_DIR/stripped" "$CARGO_TARGET_DIR/$TARGET/release/speak"
stat -c '%s' "$CARGO_TARGET_DIR/stripped"
