# $1 is 0 at a removal and 1 at an upgrade, which stops nothing.
if [ "$1" = 0 ]; then
    if [ -d /run/systemd/system ]; then
        systemctl --no-reload disable --now knock-user.service || :
    fi
    # `detach` reads what is in force and reports what no longer is. Where it fails, the package stays.
    for device in /sys/class/net/*; do
        [ -e "$device" ] || continue
        if ! report=$(/usr/bin/knock-user detach --iface "${device##*/}" 2>&1); then
            echo "knock-user: $report" >&2
            exit 1
        fi
        [ "$report" = "nothing is attached" ] || echo "$report"
    done
    # A process that was just starting may protect again.
    if /usr/bin/knock-user status >/dev/null 2>&1; then
        echo "knock-user: a process protects again: end it, see knock-user status" >&2
        exit 1
    fi
fi
