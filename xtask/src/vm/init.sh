#!/bin/busybox sh
# The first process of the virtual machine: runs the suites and powers off.
# `cargo xtask vm` reads what it prints; see xtask/src/vm/outcome.rs.

# Commands that are not in /bin are busybox's.
export PATH=/bin:/sbin
b=/bin/busybox

$b mount -t proc proc /proc
if $b grep -q knock.probe /proc/cmdline; then
    echo "machine: alive"
    $b poweroff -f
fi

$b mkdir -p /sbin
$b --install -s /sbin
$b ln -s ../sbin/sh /bin/sh
$b mount -t sysfs sysfs /sys
$b mount -t bpf bpf /sys/fs/bpf
$b mount -t devtmpfs dev /dev
$b mount -t tmpfs tmp /tmp
$b mount -t tmpfs run /run
# Links of a kind, and answers of a kind, come with a module that the kernel asks for.
echo /sbin/modprobe >/proc/sys/kernel/modprobe

# KNOCK_VM permits tests to change this machine's clock.
export KNOCK_VM=1 KNOCK_REQUIRE_ROOT=1
export KNOCK_USER_BIN=/bin/knock-user KNOCK_CLIENT_BIN=/bin/knock-client
release=$($b uname -r)
case $release in
*-cloud-arm64) release=${release%-cloud-arm64}-arm64 ;;
esac

suite() {
    name=$1
    shift
    echo "     Running $name on ${release%-cloud-amd64}"
    "/tests/$name" --test-threads=1 --color=never "$@"
}

. /suites

echo "machine: all suites ran"
$b poweroff -f
