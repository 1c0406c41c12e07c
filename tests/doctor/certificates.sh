#!/bin/sh
# Makes an authority and its certificates for localhost, good and bad: certificates.sh FOLDER
set -eu
mkdir -p "$1"
cd "$1"
KEY='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
# shellcheck disable=SC2086 # several words
openssl req -x509 $KEY -keyout authority.key -out authority.crt -days 30 \
    -subj '/CN=Authority of a test'

# signed NAME HOST DAYS
signed() {
    # shellcheck disable=SC2086 # several words
    openssl req -new $KEY -keyout "$1.key" -out "$1.csr" -subj "/CN=$2"
    printf 'subjectAltName=DNS:%s\n' "$2" >"$1.ext"
    openssl x509 -req -in "$1.csr" -CA authority.crt -CAkey authority.key -CAcreateserial \
        -days "$3" -extfile "$1.ext" -out "$1.crt"
}
signed good localhost 30
signed expired localhost -1
signed other-name elsewhere.test 30
# shellcheck disable=SC2086 # several words
openssl req -x509 $KEY -keyout self-signed.key -out self-signed.crt -days 30 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost
