#!/usr/bin/env bash
# Draws docs/console.svg: the console of knock-user while knock-client knocks, from a real run between two network
# namespaces. Needs root, iproute2, netcat, script (bsdutils), and the two programs:
# cargo build -p knock-user -p knock-client
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
programs=$(realpath "${CARGO_TARGET_DIR:-target}/debug")
server=console-$$-s client=console-$$-c work=$(mktemp -d)

end() {
    kill ${daemon:-} ${ssh:-} 2>/dev/null || true
    wait
    ip netns del $server 2>/dev/null || true
    ip netns del $client 2>/dev/null || true
    rm -rf "$work"
}
trap end EXIT

ip netns add $server
ip netns add $client
ip link add eth0 netns $server type veth peer name eth0 netns $client
ip -n $server addr add 192.0.2.2/24 dev eth0
ip -n $client addr add 192.0.2.1/24 dev eth0
ip -n $client addr add 192.0.2.9/24 dev eth0
ip -n $server link set eth0 up
ip -n $client link set eth0 up

cp examples/seq.toml "$work"
cd "$work"
export PATH=$programs:$PATH
nsenter --net=/run/netns/$server nc -lkn 22 >/dev/null &
ssh=$!
# At a terminal, as people see it: lines in a file begin with the date.
nsenter --net=/run/netns/$server \
    script -qefc "knock-user --iface eth0 --config seq.toml" server.txt >/dev/null </dev/null &
daemon=$!
until grep -qs protecting server.txt; do sleep 0.1; done

# What is shown is what is run.
run() {
    echo "\$ $1"
    nsenter --net=/run/netns/$client bash -c "$1" 2>&1 || true
}
{
    run "nc -zw1 192.0.2.2 22 || echo closed"
    run "knock-client 192.0.2.2 tcp/7000 tcp/9000"
    run "knock-client 192.0.2.2 tcp/7000 udp/8000 tcp/9000 --then-connect 22"
    run "nc -zw1 -s 192.0.2.9 192.0.2.2 22 || echo closed to others"
} >client.txt
until grep -q closed server.txt; do sleep 0.1; done
pkill -TERM -P $daemon
wait $daemon || true
sed -i -e '/^Script /d' -e 's/\r$//' server.txt
cd - >/dev/null

# A window: its title, and the lines of a file in monospaced text. Sets y to where the next begins.
window() {
    local title=$1 file=$2 lines line colour
    lines=$(wc -l <"$file")
    echo "<rect x='0' y='$y' width='760' height='$((38 + lines * 19))' rx='6' fill='#1b1f27'/>"
    echo "<text x='14' y='$((y += 20))' fill='#8b949e'>$title</text>"
    while IFS= read -r line; do
        case $line in
            '$ '*) colour=#79c0ff ;;
            *) colour=#d0d7de ;;
        esac
        line=${line//&/&amp;} line=${line//</&lt;}
        echo "<text x='14' y='$((y += 19))' fill='$colour'>$line</text>"
    done <"$file"
    y=$((y + 26))
}
{
    sed -i '1i $ sudo knock-user --iface eth0 --config seq.toml' "$work/server.txt"
    y=0
    body=$(window "server, 192.0.2.2" "$work/server.txt"; window "client, 192.0.2.1" "$work/client.txt"; echo "$y")
    height=$((${body##*$'\n'} - 8))
    echo "<svg xmlns='http://www.w3.org/2000/svg' width='760' height='$height' viewBox='0 0 760 $height'"
    echo " font-family='ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace' font-size='13.5'"
    echo " xml:space='preserve' style='white-space: pre'>"
    echo "<title>The console of knock-user while knock-client knocks</title>"
    echo "${body%$'\n'*}"
    echo "</svg>"
} >docs/console.svg
echo "docs/console.svg"
