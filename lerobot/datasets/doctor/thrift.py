"""Thrift's compact protocol, as far as parquet's headers and footers need it: bytes <-> trees of fields.

A struct is {field number: (type, value)}, a list (type of its items, items).
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from typing import Any

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, _MAP, STRUCT = range(1, 13)
Struct = dict[int, tuple[int, Any]]


class Reader:
    """Reads structs out of bytes from a position on."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def struct(self) -> Struct:
        """The struct that begins here.

        Raises:
            ValueError: the bytes are no struct, or end too early.
        """
        found: Struct = {}
        number = 0
        while True:
            head = self._byte()
            if head == 0:
                return found
            kind, step = head & 15, head >> 4
            number = number + step if step else self._signed()
            found[number] = (kind, self._value(kind))

    def _byte(self) -> int:
        if self.at >= len(self.data):
            raise ValueError("the bytes end inside a struct")
        self.at += 1
        return self.data[self.at - 1]

    def _unsigned(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number is too long")

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)

    def _bytes(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise ValueError("the bytes end inside a text")
        self.at += count
        return self.data[self.at - count : self.at]

    def _value(self, kind: int) -> Any:
        if kind in (TRUE, FALSE):
            return kind == TRUE
        if kind in (I16, I32, I64):
            return self._signed()
        if kind == BYTE:
            return self._byte()
        if kind == DOUBLE:
            return self._bytes(8)
        if kind == BINARY:
            return self._bytes(self._unsigned())
        if kind in (LIST, SET):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._unsigned()
            items = head & 15
            if count > len(self.data):
                raise ValueError("a list is too long")
            # inside lists a switch is a byte of its own
            return items, [
                self._byte() if items in (TRUE, FALSE) else self._value(items) for _ in range(count)
            ]
        if kind == STRUCT:
            return self.struct()
        raise ValueError(f"type {kind} does not occur in parquet")


def pack(struct: Struct) -> bytes:
    """The bytes of a struct."""
    out, last = bytearray(), 0
    for number in sorted(struct):
        kind, value = struct[number]
        if 0 < number - last < 16:
            out.append((number - last) << 4 | kind)
        else:
            out.append(kind)
            out += _signed(number)
        out += _packed(kind, value)
        last = number
    return bytes(out + b"\0")


def _packed(kind: int, value: Any) -> bytes:
    if kind in (TRUE, FALSE):
        return b""  # said by the type
    if kind in (I16, I32, I64):
        return _signed(value)
    if kind == BYTE:
        return bytes([value])
    if kind == DOUBLE:
        return value
    if kind == BINARY:
        return _unsigned(len(value)) + value
    if kind == STRUCT:
        return pack(value)
    items, values = value
    head = (
        bytes([len(values) << 4 | items])
        if len(values) < 15
        else bytes([240 | items]) + _unsigned(len(values))
    )
    each = (bytes([one]) if items in (TRUE, FALSE) else _packed(items, one) for one in values)
    return head + b"".join(each)


def _unsigned(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _signed(value: int) -> bytes:
    return _unsigned(value << 1 if value >= 0 else (-value << 1) - 1)
