#!/usr/bin/env bash
# Draws console.svg and top.svg into a directory, docs by default, from real runs between two network namespaces:
# the console of knock-user while knock-client knocks, and `knock-user top`. `cargo xtask pictures` runs it; the test
# tests/tests/pictures.rs compares what it draws with what is in docs. Needs root, iproute2, netcat, script
# (bsdutils), tmux, and the directory of the two programs in KNOCK_PROGRAMS.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
into=$(realpath "${1:-docs}")
programs=$(realpath "${KNOCK_PROGRAMS:-target/debug}")
server=pictures-$$-s client=pictures-$$-c work=$(mktemp -d)

end() {
    tmux -L $server kill-server 2>/dev/null || true
    kill ${daemon:-} ${ssh:-} 2>/dev/null || true
    wait
    ip netns del $server 2>/dev/null || true
    ip netns del $client 2>/dev/null || true
    rm -rf "$work"
}
trap end EXIT

# Waits at most a minute for a command to succeed.
wait_for() {
    for _ in $(seq 600); do
        if "$@"; then return; fi
        sleep 0.1
    done
    echo "waited a minute for: $*" >&2
    exit 1
}
on() {
    nsenter --net=/run/netns/"$1" "${@:2}"
}

ip netns add $server
ip netns add $client
ip link add eth0 netns $server type veth peer name eth0 netns $client
ip -n $server addr add 192.0.2.2/24 dev eth0
for number in 1 7 9; do ip -n $client addr add 192.0.2.$number/24 dev eth0; done
ip -n $server link set eth0 up
ip -n $client link set eth0 up

cp examples/seq.toml "$work"
cd "$work"
export PATH=$programs:$PATH
nsenter --net=/run/netns/$server nc -lkn 22 >/dev/null 2>&1 &
ssh=$!
# At a terminal, as people see it: lines in a file begin with the date.
NO_COLOR=1 nsenter --net=/run/netns/$server \
    script -qefc "knock-user --iface eth0 --config seq.toml" server.txt >/dev/null 2>&1 </dev/null &
daemon=$!
wait_for grep -qs protecting server.txt

# What is shown is what is run.
run() {
    echo "\$ $1"
    on $client bash -c "$1" 2>&1 || true
}
{
    run "nc -zw1 192.0.2.2 22 || echo closed"
    run "knock-client 192.0.2.2 tcp/7000 tcp/9000"
    run "knock-client 192.0.2.2 tcp/7000 udp/8000 tcp/9000 --then-connect 22"
    run "nc -zw1 -s 192.0.2.9 192.0.2.2 22 || echo closed to others"
} >client.txt
wait_for grep -q closed server.txt
cp server.txt console.txt

# The view while another client is in the middle of its knocks.
on $server env NO_COLOR=1 TERM=screen tmux -L $server -f /dev/null new-session -d -x 80 -y 24 knock-user top
shown() { # whether the view has a text
    on $server tmux -L $server capture-pane -p >top.txt 2>/dev/null && grep -q "$1" top.txt
}
# Knocks with common programs, and waits for each.
knock_from() {
    local source=192.0.2.$1 knock
    for knock in "${@:2}"; do
        case $knock in
            tcp/*) on $client nc -zw1 -s "$source" 192.0.2.2 "${knock#*/}" || true ;;
            udp/*) echo | on $client nc -uw1 -s "$source" 192.0.2.2 "${knock#*/}" || true ;;
        esac
        wait_for grep -q "$source .*$knock\|opened *$source" server.txt
    done
}
wait_for shown "in force  pid"
knock_from 7 tcp/7000 udp/8000 tcp/9000
knock_from 9 tcp/7000 udp/8000
on $server knock-user grant 192.0.2.20 --door ssh --for 1h >/dev/null
wait_for shown "GRANTS 2"
wait_for shown "192.0.2.9 .*2/3"
on $server tmux -L $server send-keys q
wait_for eval "! on $server tmux -L $server list-sessions >/dev/null 2>&1"

pkill -TERM -P $daemon
wait $daemon || true
sed -i -e '/^Script /d' -e 's/\r$//' console.txt
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

# A picture of windows: its title, and the windows.
picture() {
    local title=$1 body=$2 height
    height=$((${body##*$'\n'} - 8))
    echo "<svg xmlns='http://www.w3.org/2000/svg' width='760' height='$height' viewBox='0 0 760 $height'"
    echo " font-family='ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace' font-size='13.5'"
    echo " xml:space='preserve' style='white-space: pre'>"
    echo "<title>$title</title>"
    echo "${body%$'\n'*}"
    echo "</svg>"
}

sed -i '1i $ sudo knock-user --iface eth0 --config seq.toml' "$work/console.txt"
y=0
body=$(window "server, 192.0.2.2" "$work/console.txt"; window "client, 192.0.2.1" "$work/client.txt"; echo "$y")
picture "The console of knock-user while knock-client knocks" "$body" >"$into/console.svg"
y=0
body=$(window "sudo knock-user top" "$work/top.txt"; echo "$y")
picture "knock-user top while a client knocks" "$body" >"$into/top.svg"
echo "$into/console.svg $into/top.svg"
