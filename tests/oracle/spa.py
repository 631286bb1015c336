"""An independent client of single packet authorization, with Python's standard library alone.

It shares no code with the Rust crates: X25519 follows RFC 7748, HKDF RFC 5869, SipHash-2-4 its paper.

    spa.py vectors FILE      seal each line of FILE and print name and packet; see FILE for the columns
    spa.py answers FILE      seal the answers in FILE and print name and answer; see FILE for the columns
    spa.py public PRIVATE    print the public key of a private one, both as knock-client writes them
    spa.py seal PRIVATE HOSTKEY FOR DOOR SECONDS [STAMP]
                             print a packet; FOR is an address or ::, DOOR a name or - for the first
    spa.py send ADDRESS PORT PRIVATE HOSTKEY FOR DOOR SECONDS [STAMP]
                             send a packet
"""

import base64
import hashlib
import hmac
import ipaddress
import socket
import struct
import sys
import time

PRIME = 2**255 - 19
WORD = 2**64 - 1


def x25519(scalar, point):
    scalar = bytearray(scalar)
    scalar[0] &= 248
    scalar[31] = scalar[31] & 127 | 64
    scalar = int.from_bytes(scalar, "little")
    x1 = int.from_bytes(point, "little") % 2**255
    x2, z2, x3, z3, swapped = 1, 0, x1, 1, 0
    for place in reversed(range(255)):
        bit = scalar >> place & 1
        if swapped ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swapped = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a, b * b, d * a, c * b
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % PRIME, x1 * (da - cb) ** 2 % PRIME
        x2, z2 = aa * bb % PRIME, e * (aa + 121665 * e) % PRIME
    if swapped:
        x2, z2 = x3, z3
    return (x2 * pow(z2, PRIME - 2, PRIME) % PRIME).to_bytes(32, "little")


def public(private):
    return x25519(private, (9).to_bytes(32, "little"))


def siphash(key, message, wide=False):
    k0, k1 = struct.unpack("<QQ", key)
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rotate(word, by):
        return (word << by | word >> 64 - by) & WORD

    def rounds(count):
        for _ in range(count):
            a, b, c, d = v
            a, c = a + b & WORD, c + d & WORD
            b, d = rotate(b, 13) ^ a, rotate(d, 16) ^ c
            a = rotate(a, 32)
            c, a = c + b & WORD, a + d & WORD
            b, d = rotate(b, 17) ^ c, rotate(d, 21) ^ a
            v[:] = a, b, rotate(c, 32), d

    if wide:
        v[1] ^= 0xEE
    fill = bytes(7 - len(message) % 8) + bytes([len(message) % 256])
    for (word,) in struct.iter_unpack("<Q", message + fill):
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xEE if wide else 0xFF
    rounds(4)
    result = struct.pack("<Q", v[0] ^ v[1] ^ v[2] ^ v[3])
    if wide:
        v[1] ^= 0xDD
        rounds(4)
        result += struct.pack("<Q", v[0] ^ v[1] ^ v[2] ^ v[3])
    return result


def mac(key, message):
    return hmac.new(key, message, hashlib.sha256).digest()


def hkdf(salt, secret, info, length):
    key = mac(salt, secret)
    block = output = b""
    while len(output) < length:
        block = mac(key, block + info + bytes([len(output) // 32 + 1]))
        output += block
    return output[:length]


def xor(one, other):
    return bytes(a ^ b for a, b in zip(one, other))


def id_of(label, name):
    return hashlib.sha256(label + name).digest()[:8]


def pair_of(private, public_key, host, own):
    """Return the keys of the mac and of the cipher that host and client share."""
    keys = hkdf(b"knock spa v1", x25519(private, public_key), host + own, 64)
    return keys[:32], keys[32:]


def seal(private, host, source, door, seconds, action, stamp):
    """Return the packet; `source` has 16 octets, `door` 8."""
    own = public(private)
    mac_key, cipher_key = pair_of(private, host, host, own)
    gate = hkdf(b"knock spa v1 gate", host, b"", 32)
    header = id_of(b"knock spa v1 id", own) + struct.pack("<Q", stamp)
    body = xor(source + door + struct.pack("<IB3x", seconds, action), mac(cipher_key, header))
    tag = mac(mac_key, header + body)[:16]
    packet = tag + xor(header, siphash(gate[16:], tag, wide=True)) + body
    return packet + siphash(gate[:16], packet)


def answer(private, client, tag, outcome, port, seconds, source, clock):
    """Return the answer of the host with this private key to the packet with this tag."""
    mac_key, cipher_key = pair_of(private, client, public(private), client)
    body = struct.pack("<BxHI", outcome, port, seconds) + source + struct.pack("<Q", clock)
    own_tag = mac(mac_key, b"answer" + tag + body)[:16]
    return own_tag + xor(body, mac(cipher_key, b"answer" + own_tag))


def source_of(text):
    address = ipaddress.ip_address(text)
    return bytes(10) + b"\xff\xff" + address.packed if address.version == 4 else address.packed


def door_of(name):
    return bytes(8) if name == "-" else id_of(b"knock spa v1 door", name.encode())


def key_of(text):
    return base64.urlsafe_b64decode(text.split(":")[1].strip() + "=")


def text_of(prefix, key):
    return prefix + base64.urlsafe_b64encode(key).decode().rstrip("=")


def rows(path):
    for line in open(path, encoding="utf-8"):
        if line.strip() and not line.startswith("#"):
            yield [cell.strip() for cell in line.split("|")]


def vectors(path):
    for name, private, host, source, door, seconds, action, stamp, *_ in rows(path):
        packet = seal(
            bytes.fromhex(private),
            public(bytes.fromhex(host)),
            source_of(source),
            door_of(door),
            int(seconds),
            int(action, 0),
            int(stamp),
        )
        print(name, "|", packet.hex())


def answers(path):
    for name, client, host, tag, outcome, port, seconds, source, clock, *_ in rows(path):
        sealed = answer(
            bytes.fromhex(host),
            public(bytes.fromhex(client)),
            bytes.fromhex(tag),
            int(outcome),
            int(port),
            int(seconds),
            source_of(source),
            int(clock),
        )
        print(name, "|", sealed.hex())


def packet(private, host, source, door, seconds, stamp=None):
    stamp = int(stamp) if stamp else time.time_ns()
    return seal(key_of(private), key_of(host), source_of(source), door_of(door), int(seconds), 0, stamp)


def send(address, port, *fields):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    socket.socket(family, socket.SOCK_DGRAM).sendto(packet(*fields), (address, int(port)))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["vectors", path]:
            vectors(path)
        case ["answers", path]:
            answers(path)
        case ["public", private]:
            print(text_of("knock1:", public(key_of(private))))
        case ["seal", *fields] if 5 <= len(fields) <= 6:
            print(packet(*fields).hex())
        case ["send", *fields] if 7 <= len(fields) <= 8:
            send(*fields)
        case _:
            sys.exit(__doc__)
