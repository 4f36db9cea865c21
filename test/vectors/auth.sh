#!/bin/sh
# Makes auth.h with openssl: keys and certificates of two hosts, which test_auth.c proves itself with.
#   sh auth.sh > auth.h
set -e
out=$(mktemp -d)
here=$PWD
cd "$out"
exec 3>&1 1>log 2>&1
trap 'rm -rf "$out"; cd "$here"' EXIT

key() { # NAME KIND
    case $2 in
    rsa*) openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:"${2#rsa}" -out "$1.key" ;;
    *) openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:"$2" -out "$1.key" ;;
    esac
}

sign() { # NAME KIND ISSUER EXTENSIONS
    key "$1" "$2"
    openssl req -new -key "$1.key" -subj "/C=CH/O=adit test/CN=$1" -out req
    printf '%b' "$4" > ext
    if [ "$1" = "$3" ]; then by="-signkey $1.key"; else by="-CA $3.crt -CAkey $3.key -CAcreateserial"; fi
    # shellcheck disable=SC2086
    openssl x509 -req -in req $by -extfile ext -days 30000 -sha256 -out "$1.crt"
}

ca() { sign "$1" "$2" "$3" 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n'; }
leaf() { sign "$1" "$2" "$3" "keyUsage=critical,digitalSignature\nsubjectAltName=DNS:$4\nsubjectKeyIdentifier=hash\n"; }

ca root P-256 root
ca sub P-384 root
ca other P-256 other
leaf a_rsa rsa2048 root a.example
leaf a_p256 P-256 root a.example
leaf a_p384 P-384 root a.example
leaf a_p521 P-521 root a.example
leaf a_sub P-256 sub a.example
leaf a_other P-256 other a.example
leaf b_p256 P-256 root b.example
leaf carol P-256 root carol.example

printf '[ca]\ndefault_ca=d\n[d]\ndatabase=index\ncrlnumber=number\ndefault_md=sha256\ndefault_crl_days=30000\n' > ca.cnf
touch index
echo 1000 > number
openssl ca -config ca.cnf -cert root.crt -keyfile root.key -revoke a_p384.crt
openssl ca -config ca.cnf -cert root.crt -keyfile root.key -gencrl -out root.crl

exec 1>&3
echo '/* Made by auth.sh, for tests alone: these keys are public. Valid from November 2026 for 82 years. */'
for f in a_*.key b_*.key carol.key *.crt *.crl; do
    name=$(echo "VECTOR_$f" | tr 'a-z.' 'A-Z_')
    printf '\n#define %s' "$name"
    sed -n '/^-----BEGIN/,/^-----END/s/.*/    "&\\n"/p' "$f" | while read -r line; do printf ' \\\n    %s' "$line"; done
    echo
done
