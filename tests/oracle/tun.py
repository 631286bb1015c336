"""Joins two tun interfaces, one in each of two network namespaces: tun.py CLIENT SERVER NAME.

Packets keep the state of their checksums: those that the sender has left to its interface are left to the next one.

SIGUSR1 gives the server's interface the link-layer type 32 (InfiniBand), SIGUSR2 that of tun (65534); the
interface must be down.
"""
import ctypes
import errno
import fcntl
import os
import select
import signal
import struct
import sys

TUNSETIFF, TUNSETLINK, TUNSETOFFLOAD = 0x400454CA, 0x400454CD, 0x400454D0
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
TUN_F_CSUM = 0x01
CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


def tun(namespace, name):
    with open(f"/run/netns/{namespace}") as there:
        if LIBC.setns(there.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
    made = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(made, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
    fcntl.ioctl(made, TUNSETOFFLOAD, TUN_F_CSUM)
    return made


client, server = tun(sys.argv[1], sys.argv[3]), tun(sys.argv[2], sys.argv[3])
signal.signal(signal.SIGUSR1, lambda *_: fcntl.ioctl(server, TUNSETLINK, 32))
signal.signal(signal.SIGUSR2, lambda *_: fcntl.ioctl(server, TUNSETLINK, 65534))
print("ready", flush=True)
while True:
    for source in select.select([client, server], [], [], 0.05)[0]:
        # Reading fails while nothing is left, writing while the other interface is down.
        try:
            for _ in range(64):
                os.write(server if source == client else client, os.read(source, 65536))
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EIO, errno.EINVAL):
                raise
