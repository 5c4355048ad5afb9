"""The bytes of a TFRecord that holds one document: a tf.train.Example with its tokens and its loss mask.

A TFRecord is the message's length, the CRC of that, the message, the CRC of the message.
"""

import struct
from functools import lru_cache

import google_crc32c

HEADER = 12  # bytes before a message
FOOTER = 4  # bytes behind it


def array_offsets(begin: int, count: int) -> tuple[int, int]:
    """Where in the shard the tokens and the loss mask lie of a record that begins there."""
    before, between = frame(count)
    tokens = begin + HEADER + len(before)
    return tokens, tokens + 4 * count + len(between)


@lru_cache(1 << 16)
def frame(count: int) -> tuple[bytes, bytes]:
    """The bytes of a message before its tokens and between tokens and loss mask, for a number of tokens."""
    token_entry, mask_entry = _entry(b"tokens", 4 * count), _entry(b"loss_mask", count)
    features = len(token_entry) + 4 * count + len(mask_entry) + count
    return b"\x0a" + _varint(features) + token_entry, mask_entry


def _entry(name: bytes, size: int) -> bytes:
    """The head of an entry in tf.train.Features' map: name -> Feature{bytes_list{value}}, up to the value's bytes."""
    value = b"\x0a" + _varint(size)
    bytes_list = b"\x0a" + _varint(len(value) + size) + value
    feature = b"\x12" + _varint(len(bytes_list) + size) + bytes_list
    key = b"\x0a" + _varint(len(name)) + name
    return b"\x0a" + _varint(len(key) + len(feature) + size) + key + feature


def _varint(value: int) -> bytes:
    """A protobuf varint: seven bits a byte, the lowest first."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def header(length: int) -> bytes:
    """What stands before a message of so many bytes."""
    packed = struct.pack("<Q", length)
    return packed + struct.pack("<I", masked_crc(packed))


def masked_crc(data: bytes) -> int:
    """TFRecord's checksum: CRC-32C, rotated and shifted so that it isn't the CRC of data that hold CRCs."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
