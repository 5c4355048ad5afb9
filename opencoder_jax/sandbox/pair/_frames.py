"""Messages through pipes and sockets: the length of each as four bytes, then its bytes."""

import os
import struct


def send(descriptor: int, message: bytes) -> None:
    """Writes a message whole."""
    left = memoryview(struct.pack("I", len(message)) + message)
    while left:
        left = left[os.write(descriptor, left) :]


def receive(descriptor: int, most: int) -> bytes:
    """Reads the next message.

    Raises:
        EOFError: the other side hung up.
        ValueError: it has more than `most` bytes.
    """
    (size,) = struct.unpack("I", _exactly(descriptor, 4))
    if size > most:
        raise ValueError(f"a message of {size} bytes")
    return _exactly(descriptor, size)


def _exactly(descriptor: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = os.read(descriptor, size - len(data))
        if not piece:
            raise EOFError("the other side hung up")
        data += piece
    return bytes(data)
