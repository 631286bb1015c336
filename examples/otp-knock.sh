#!/bin/sh
# Time-based knocks with common tools: openssl, and knock (package knockd) or nmap.
#
#   OTP_SECRET=... examples/otp-knock.sh HOST ADDRESS
#
# ADDRESS is the address of this machine as HOST sees it, for instance from
#   dig +short myip.opendns.com @resolver1.opendns.com
# Leave it out if the door has bind_source = false. The rest has the defaults of otp = { ... }:
#   OTP_PERIOD=45  OTP_BASE=20000  OTP_PROTOCOLS='tcp udp tcp'  OTP_WITH=knock|nmap
#
# Use single quotes: a shell interprets $, `, " and \ in double quotes.
set -eu

host=${1:?usage: OTP_SECRET=... otp-knock.sh HOST [ADDRESS]}
address=${2-}
secret=${OTP_SECRET:?set it to the secret of the door}
case $host in
*:*) family=-6 ;;
*) family=-4 ;;
esac
period=$(($(date +%s) / ${OTP_PERIOD:-45}))

# Prints the knocks for a key: each is an octet of the digest, added to the base.
half() {
    digest=$(printf %s "$period" | openssl dgst -sha1 -hmac "$1" | sed 's/.* //')
    for protocol in ${OTP_PROTOCOLS:-tcp udp tcp}; do
        rest=${digest#??}
        echo "$((${OTP_BASE:-20000} + 0x${digest%"$rest"})):$protocol"
        digest=$rest
    done
}

knocks=$(half "$secret")
if [ -n "$address" ]; then
    knocks="$knocks $(half "$secret$address")"
fi

case ${OTP_WITH:-knock} in
knock)
    # shellcheck disable=SC2086 # one word for each knock
    knock "$family" -d 5 "$host" $knocks
    ;;
nmap)
    [ "$family" = -4 ] && family=
    for knock in $knocks; do
        case $knock in
        *:tcp) scan=-sS ;;
        *) scan=-sU ;;
        esac
        # shellcheck disable=SC2086 # it may be empty
        nmap $family "$scan" -n -Pn --max-retries 0 --host-timeout 2s -p "${knock%:*}" "$host" > /dev/null
    done
    ;;
*)
    echo "OTP_WITH is knock or nmap, not $OTP_WITH" >&2
    exit 2
    ;;
esac
