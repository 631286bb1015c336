# $1 is 0 at a removal and 1 at an upgrade, which stops nothing.
if [ "$1" = 0 ]; then
    if [ -d /run/systemd/system ]; then
        systemctl --no-reload disable --now knock-user.service || :
    fi
    # Without the program nobody could open a port again, so the protection ends with it. `detach` reads what is in
    # force, in all network namespaces, and reports what no longer is. Where it fails, the package stays.
    if ! report=$(/usr/bin/knock-user detach --all 2>&1); then
        echo "knock-user: $report" >&2
        exit 1
    fi
    [ "$report" = "nothing is attached" ] || echo "$report"
    # A process that was just starting may protect again. The protecting one has options and no subcommand.
    tries=100
    for exe in /proc/[0-9]*/exe; do
        pid=${exe#/proc/}
        pid=${pid%/exe}
        while [ "$exe" -ef /usr/bin/knock-user ] &&
            tr '\0' '\n' <"/proc/$pid/cmdline" | sed -n 2p | grep -q '^-'; do
            if [ "$tries" = 0 ]; then
                echo "knock-user: process $pid still runs and may protect again: end it, then remove the package" >&2
                exit 1
            fi
            tries=$((tries - 1))
            sleep 0.1
        done
    done
fi
