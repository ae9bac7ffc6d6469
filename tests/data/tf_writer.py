"""Writes TFRecord files of tf.train.Example value by value, to test the reader's handling of each."""

import struct


def crc(data):
    """CRC-32C, bit by bit."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def masked_crc(data):
    value = crc(data)
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def varint(number):
    number &= (1 << 64) - 1
    groups = bytearray()
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes(groups) + bytes([number])


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def feature(value):
    """A list of strings, bytes, floats or integers."""
    if value and isinstance(value[0], (bytes, str)):
        encoded = [entry if isinstance(entry, bytes) else entry.encode() for entry in value]
        return field(1, b"".join(field(1, entry) for entry in encoded))
    if value and isinstance(value[0], float):
        return field(2, field(1, struct.pack(f"<{len(value)}f", *value)))
    return field(3, field(1, b"".join(map(varint, value))))


def example(features):
    """The bytes of an Example with these lists by name."""
    entries = [field(1, field(1, name.encode()) + field(2, feature(value))) for name, value in features.items()]
    return field(1, b"".join(entries))


def write_records(path, examples):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        for data in map(example, examples):
            length = struct.pack("<Q", len(data))
            file.write(length + masked_crc(length) + data + masked_crc(data))
