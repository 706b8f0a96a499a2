"""Reads the program headers of an ELF file."""

from __future__ import annotations

import struct

MAGIC = b"\x7fELF"
CLASS_64 = 2
LITTLE_ENDIAN = 1
INTERPRETER = 3  # PT_INTERP: the path of a dynamic loader


def is_static(program: bytes) -> bool:
    """Whether a program starts without a dynamic loader and therefore without shared libraries."""
    if program[:4] != MAGIC or program[4:6] != bytes((CLASS_64, LITTLE_ENDIAN)):
        raise ValueError("not a 64-bit little-endian ELF program")
    (table,) = struct.unpack_from("<Q", program, 32)
    size, count = struct.unpack_from("<HH", program, 54)
    kinds = (struct.unpack_from("<I", program, table + index * size)[0] for index in range(count))
    return INTERPRETER not in kinds
