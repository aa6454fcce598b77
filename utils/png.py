"""The chunks of a PNG file: reading, checking and writing them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

PNG_BEGINNING = b"\x89PNG\r\n\x1a\n"


class Chunk(NamedTuple):
    """One chunk: its kind (four letters), data, offset in the file, and whether its CRC matches."""

    kind: bytes
    data: bytes
    place: int
    is_sound: bool

    @property
    def decides_pixels(self) -> bool:
        """Whether pixels depend on it; a capital first letter marks critical chunks."""
        return self.kind[:1].isupper() or self.kind == b"tRNS"


def read_chunks(encoded: bytes) -> Iterator[Chunk]:
    """The chunks of a PNG up to IEND; none for other files.

    The last chunk of a truncated file is cut off and not sound.
    """
    place = len(PNG_BEGINNING) if encoded.startswith(PNG_BEGINNING) else len(encoded)
    while place < len(encoded):
        length = int.from_bytes(encoded[place : place + 4], "big")
        kind, data = encoded[place + 4 : place + 8], encoded[place + 8 : place + 8 + length]
        stored = encoded[place + 8 + length : place + 12 + length]
        yield Chunk(kind, data, place, stored == zlib.crc32(kind + data).to_bytes(4, "big"))
        if kind == b"IEND":
            return
        place += 12 + length


def write_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
