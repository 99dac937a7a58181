"""The wire format of protocol buffers, as far as logs of scalars need it, and CRC-32C.

https://protobuf.dev/programming-guides/encoding: a message is a sequence of (field number, wire type, value).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

VARINT, I64, LEN, I32 = 0, 1, 2, 5

_CASTAGNOLI = 0x82F63B78  # the polynomial 0x1EDC6F41, bits reversed (RFC 3720, B.4)


def _table() -> tuple[int, ...]:
    made = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (_CASTAGNOLI if value & 1 else 0)
        made.append(value)
    return tuple(made)


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """CRC-32C of `data`."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def masked_crc(data: bytes) -> int:
    """The CRC that TFRecord files store: rotated right by 15 bits, plus a constant."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields (number, value) of each field: an int of VARINT, else the value's bytes. Raises ValueError if damaged."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if not number:
            raise ValueError("field number 0")
        if kind == VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == LEN:
            size, at = _varint(data, at)
        elif kind in (I64, I32):
            size = 8 if kind == I64 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > end:
            raise ValueError("cut short")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        if at >= len(data):
            raise ValueError("cut short")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
    raise ValueError("a number of more than 64 bits")


def signed(value: int | bytes) -> int:
    """An int64 field, which stores negative numbers in two's complement. Raises ValueError for a field of another type."""
    if not isinstance(value, int):
        raise ValueError("not a varint")
    return value - (1 << 64) if value >= 1 << 63 else value


def zigzag(value: int | bytes) -> int:
    """A sint64 field. Raises ValueError for a field of another type."""
    if not isinstance(value, int):
        raise ValueError("not a varint")
    return (value >> 1) ^ -(value & 1)


def real(value: int | bytes) -> float:
    """A float or double field. Raises ValueError for a field of another type."""
    if isinstance(value, bytes) and len(value) in (4, 8):
        found: float = struct.unpack("<f" if len(value) == 4 else "<d", value)[0]
        return found
    raise ValueError("not a float or double")


def bytes_of(value: int | bytes) -> bytes:
    """The bytes of a text or an inner message. Raises ValueError for a field of another type."""
    if not isinstance(value, bytes):
        raise ValueError("not bytes")
    return value
