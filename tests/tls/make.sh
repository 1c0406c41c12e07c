#!/bin/sh
# Makes the certificates and keys of the tests again: tests/tls/make.sh. They are for tests only, so
# their keys are no secrets. A certificate is for NAME.example.test.
set -eu
cd "$(dirname "$0")"
DAYS=36500

# sign NAME ALTERNATIVE-NAMES: a certificate in NAME.pem for the key in NAME.key.
sign() {
    name=$1 names=$2
    openssl req -new -key "$name.key" -subj "/CN=$name" -out request.tmp
    printf 'subjectAltName=%s\n' "$names" >extensions.tmp
    openssl x509 -req -in request.tmp -CA ca.pem -CAkey ca.tmp -CAcreateserial \
        -CAserial serial.tmp -extfile extensions.tmp -out "$name.pem" -days $DAYS
}

openssl ecparam -name prime256v1 -genkey -noout -out ca.tmp
openssl req -x509 -new -key ca.tmp -subj "/CN=Speak tests" -days $DAYS -out ca.pem
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ecdsa.key
sign ecdsa DNS:ecdsa.example.test,DNS:*.wild.example.test
cat ca.pem >>ecdsa.pem
openssl ec -in ecdsa.key -out ecdsa-sec1.key
openssl genrsa -out rsa.key 2048
sign rsa DNS:rsa.example.test,DNS:both.example.test
openssl rsa -in rsa.key -traditional -out rsa-pkcs1.key
openssl genpkey -algorithm ed25519 -out ed25519.key
sign ed25519 DNS:ed25519.example.test,DNS:both.example.test
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out p384.key
openssl genrsa -out rsa3072.key 3072
openssl ec -in ecdsa.key -aes128 -passout pass:test -out encrypted.key
openssl ecparam -name secp521r1 -genkey -noout -out unsupported.key
rm -f ./*.tmp
