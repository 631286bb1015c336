# disk.sh ROOT ADDED PLACE DISK: makes a file system of a pristine system and of what is added to it.
root=$1 added=$2 place=$3 disk=$4

mount -t overlay disk -o "lowerdir=$added:$root,upperdir=$place/upper,workdir=$place/work" "$place/merged"
cd "$place/merged"

for version in usr/lib/modules/*; do
    chroot . depmod "${version##*/}"
done

echo machine >etc/hostname
: >etc/fstab
mkdir -p etc/systemd/network etc/ssh/sshd_config.d root/.ssh
cat >etc/systemd/network/10-card.network <<END
[Match]
Name=eth0
[Network]
Address=192.0.2.1/24
Address=2001:db8::1/64
IPv6AcceptRA=no
LLMNR=no
END
cat >etc/ssh/sshd_config.d/machine.conf <<END
UsePAM no
UseDNS no
END
# Listeners from the beginning of the boot, long before the network.
mkdir -p etc/systemd/system/ssh.socket.d
cat >etc/systemd/system/ssh.socket.d/machine.conf <<END
[Unit]
DefaultDependencies=no
[Socket]
ListenStream=2222
END

# A shell on a console that is there before the network and that no service stops.
cat >etc/systemd/system/control.service <<'END'
[Unit]
DefaultDependencies=no
IgnoreOnIsolate=yes
After=dev-hvc0.device
BindsTo=dev-hvc0.device
[Service]
ExecStart=/bin/sh -c 'exec </dev/hvc0 >/dev/hvc0 2>&1; stty raw -echo; cat | bash --norc --noprofile'
Restart=always
RestartSec=200ms
END
mkdir -p etc/systemd/system/sysinit.target.wants
ln -s ../control.service etc/systemd/system/sysinit.target.wants/control.service

systemctl() {
    chroot . systemctl --quiet "$@"
}
systemctl disable ssh.service
systemctl enable ssh.socket systemd-networkd.service
systemctl set-default multi-user.target
# What takes time and changes nothing here.
systemctl mask serial-getty@hvc0.service serial-getty@ttyS0.service getty@tty1.service e2scrub_reap.service \
    e2scrub_all.timer fstrim.timer apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
    systemd-update-utmp.service systemd-networkd-wait-online.service

rm -f "$disk"
truncate -s 1500M "$disk"
mkfs.ext4 -q -F -E lazy_itable_init=1,lazy_journal_init=1 -d . "$disk"
