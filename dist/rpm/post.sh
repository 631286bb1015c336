# $1 is 1 at an installation and 2 at an upgrade. Nothing is enabled or started.
systemd-sysusers /usr/lib/sysusers.d/knock.conf || exit 1
systemd-tmpfiles --create /usr/lib/tmpfiles.d/knock.conf || :
if [ "$1" = 1 ]; then
    chgrp knock /etc/knock/seq.toml
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
    # The old process ends with --on-exit keep and the new one takes over, so that no port opens between them.
    systemctl try-restart knock-user.service || :
fi
