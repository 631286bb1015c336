"""Makes the tap interface NAME and sends frames through it into this network namespace: tap_frags.py NAME PIPE.

Each line of the named pipe PIPE is a number of octets and a frame in hexadecimal digits: the kernel gets that many
octets of the frame in the head of its buffer, and the rest in pages, as drivers with header split or small copy
thresholds leave them.
"""
import fcntl
import os
import signal
import struct
import sys

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NAPI, IFF_NAPI_FRAGS, IFF_NO_PI = 0x0002, 0x0010, 0x0020, 0x1000

tap = os.open("/dev/net/tun", os.O_RDWR)
flags = IFF_TAP | IFF_NAPI | IFF_NAPI_FRAGS | IFF_NO_PI
fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH", sys.argv[1].encode(), flags))
print("ready", flush=True)
with open(sys.argv[2]) as pipe:
    for line in pipe:
        head, frame = line.split()
        head, frame = int(head), bytes.fromhex(frame)
        os.writev(tap, [part for part in (frame[:head], frame[head:]) if part])
print("sent", flush=True)
signal.pause()
