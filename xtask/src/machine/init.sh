#!/bin/busybox sh
# The first process of the machine: mounts the disk and becomes systemd.

b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
for module in virtio_pci virtio_blk virtio_console crc32c_generic crc32c-intel ext4; do
    $b modprobe $module 2>/dev/null
done
tries=0
until [ -b /dev/vda ] || [ $tries = 3000 ]; do
    $b usleep 10000
    tries=$((tries + 1))
done
$b mount -t ext4 /dev/vda /root || $b poweroff -f
$b mount --move /dev /root/dev
$b umount /sys
$b umount /proc
exec $b switch_root /root /lib/systemd/systemd
