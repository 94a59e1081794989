"""TensorBoard's event files, written without TensorBoard: one record per row of metrics, on disk at once.

    record = length (8 bytes) | checksum of it (4) | event | checksum of the event (4)          (TFRecord)
    event  = protobuf Event: wall_time 1, step 2, file_version 3, summary 5, session_log 7

Ours because the usual writers keep rows in memory for up to two minutes, which a kill loses, and hang the
process for ever when the disk is full. `tensorboard --logdir RUN` reads the files.
"""

import os
import socket
import struct
import time
from pathlib import Path

from lerobot.training.logs.metrics import Row, grouped

FOLDER = "tensorboard"
VERSION = b"brain.Event:2"
SESSION_START = 1  # of SessionLog.status: readers drop what earlier files hold from this event's step on
POLYNOMIAL = 0x82F63B78  # CRC-32C, bits reversed


class EventFile:
    """One new event file under `<run>/tensorboard`; a resumed run takes back the points after its first step.

    Points are called as in a row, with `train/` before names that have no group.
    """

    def __init__(self, folder: Path, *, resume_step: int = 0) -> None:
        place = folder / FOLDER
        place.mkdir(parents=True, exist_ok=True)
        # Readers follow the files of a folder in the order of their names.
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self.file = (place / name).open("xb")
        self._append(_bytes(3, VERSION))
        if resume_step:
            self._append(_whole(2, resume_step + 1) + _bytes(7, _whole(1, SESSION_START)))

    def write(self, row: Row) -> None:
        """One point per number of the row."""
        values = [_bytes(1, name.encode()) + _float(2, value) for name, value in grouped(row).items()]
        self._append(_whole(2, int(row["step"])) + _bytes(5, b"".join(_bytes(1, one) for one in values)))

    def _append(self, fields: bytes) -> None:
        event = _double(1, time.time()) + fields
        length = struct.pack("<Q", len(event))
        self.file.write(length + _checksum(length) + event + _checksum(event))
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


# ------------------------------------------------------------------------------------------ protobuf
def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _whole(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _float(field: int, value: float) -> bytes:
    try:
        packed = struct.pack("<f", value)
    except OverflowError:  # larger than float32 holds
        packed = struct.pack("<f", float("inf") if value > 0 else float("-inf"))
    return _varint(field << 3 | 5) + packed


# ------------------------------------------------------------------------------------------ checksum
def _table() -> list[int]:
    entries = list(range(256))
    for _ in range(8):
        entries = [entry >> 1 ^ (POLYNOMIAL if entry & 1 else 0) for entry in entries]
    return entries


TABLE = _table()


def _checksum(data: bytes) -> bytes:
    """CRC-32C of the data, masked as TFRecord does, so that a checksum of checksums is no weak one."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
