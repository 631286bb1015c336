#!/bin/sh
# Three UDP knocks open a web server on port 8080: what a scanner sees before, during and after.
#
# On the host that serves 8080:  sudo knock-user --iface eth0 --config examples/demo.toml
# From another machine, as root, with nmap and knock-client:  examples/knockknock.sh HOST
set -eu

host=${1:?usage: knockknock.sh HOST}
case $host in
*:*) family=-6 ;;
*) family=-4 ;;
esac

# Ports in ascending order, each once: repeated scans of the three would complete the sequence.
scan() {
    nmap "$family" -n -Pn -r --max-retries 0 "$@" "$host"
}

web() {
    scan -sS -p 8080 | awk '$1 == "8080/tcp" { print $2 }'
}

knock() {
    "${KNOCK_CLIENT:-knock-client}" "$host" -u "$@"
}

report() {
    printf '%-55s 8080 is %s\n' "$1" "$(web)"
}

report 'before'
scan -sU -p 1123,1234,1456 | awk '$1 ~ /udp$/ { print "  a scan of " $1 " says " $2 }'
knock 1234 1456
report 'two knocks of three (1234 1456)'
scan -sU -p 1100-1500 > /dev/null
report 'a scan of 1100 to 1500, which has the third one'
knock 1123 1456 1234
report 'three in another order (1123 1456 1234)'
# A wrong knock can be a first knock: the second 1234 ends one attempt and starts the next.
knock 1234 1456 1234 1456 1123
report 'a slip, and three right ones (1234 1456 1234 1456 1123)'
