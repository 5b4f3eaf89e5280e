"""Every way the header of a .gguf file can be wrong, with the reason that says so."""

from __future__ import annotations

import struct

from tests.checkpoint.builders import array, gguf_bytes, pair, tensor, text


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


NESTED = array("array", 1, array("uint8", 1, b"\0"))

ATTACKS = {
    "empty": ("FILE_EMPTY", b""),
    "three_bytes": ("NOT_GGUF", b"GGU"),
    "magic": ("NOT_GGUF", gguf_bytes(magic=b"GGML")),
    "magic_alone": ("HEADER_TRUNCATED", b"GGUF"),
    "big_endian": ("GGUF_BIG_ENDIAN", b"GGUF" + struct.pack(">IQQ", 3, 0, 0)),
    "version_0": ("GGUF_VERSION_UNSUPPORTED", gguf_bytes(version=0)),
    "version_1": ("GGUF_VERSION_UNSUPPORTED", gguf_bytes(version=1)),
    "version_4": ("GGUF_VERSION_UNSUPPORTED", gguf_bytes(version=4)),
    "counts_missing": ("HEADER_TRUNCATED", gguf_bytes()[:12]),
    "tensor_count_huge": ("TOO_MANY_TENSORS", gguf_bytes(tensor_count=2**63)),
    "tensor_count_negative": ("TOO_MANY_TENSORS", gguf_bytes(tensor_count=2**64 - 1)),
    "tensor_count_over_file": (
        "TOO_MANY_TENSORS",
        gguf_bytes(tensors=[tensor()], tensor_count=9, data=bytes(32)),
    ),
    "pair_count_huge": ("TOO_MANY_METADATA", gguf_bytes(pair_count=2**64 - 1)),
    "pair_count_over_file": (
        "HEADER_TRUNCATED",
        gguf_bytes([pair("a", "array", array("uint8", 13, bytes(13)))], pair_count=2, alignment=1),
    ),
    "key_length_huge": ("STRING_TOO_LONG", gguf_bytes([u64(2**64 - 1) + bytes(32)])),
    "key_not_utf8": ("STRING_NOT_UTF8", gguf_bytes([pair(b"\xff", "uint8", b"\0")])),
    "key_twice": ("DUPLICATE_KEY", gguf_bytes([pair("a", "uint8", b"\0")] * 2)),
    "value_type": ("VALUE_TYPE_UNKNOWN", gguf_bytes([text("a") + struct.pack("<IQ", 13, 0)])),
    "value_type_huge": (
        "VALUE_TYPE_UNKNOWN",
        gguf_bytes([text("a") + struct.pack("<IQ", 2**32 - 1, 0)]),
    ),
    "bool_two": ("BOOL_INVALID", gguf_bytes([pair("a", "bool", b"\2")])),
    "bool_array_two": ("BOOL_INVALID", gguf_bytes([pair("a", "array", array("bool", 2, b"\0\2"))])),
    "string_length_huge": ("STRING_TOO_LONG", gguf_bytes([pair("a", "string", u64(2**40))])),
    "string_not_utf8": ("STRING_NOT_UTF8", gguf_bytes([pair("a", "string", text(b"\xc3"))])),
    "array_count_huge": (
        "ARRAY_TOO_LONG",
        gguf_bytes([pair("a", "array", array("uint64", 2**64 - 1, b""))]),
    ),
    "array_count_wraps": (
        "ARRAY_TOO_LONG",
        gguf_bytes([pair("a", "array", array("uint64", 2**61, bytes(64)))]),
    ),
    "array_of_strings_huge": (
        "ARRAY_TOO_LONG",
        gguf_bytes([pair("a", "array", array("string", 2**32, bytes(64)))]),
    ),
    "array_element_type": (
        "VALUE_TYPE_UNKNOWN",
        gguf_bytes([text("a") + struct.pack("<IIQ", 9, 99, 0)]),
    ),
    "array_nested": ("ARRAY_NESTED", gguf_bytes([pair("a", "array", NESTED)])),
    "alignment_zero": (
        "ALIGNMENT_INVALID",
        gguf_bytes([pair("general.alignment", "uint32", bytes(4))]),
    ),
    "alignment_odd": (
        "ALIGNMENT_INVALID",
        gguf_bytes([pair("general.alignment", "uint32", struct.pack("<I", 24))]),
    ),
    "alignment_huge": (
        "ALIGNMENT_INVALID",
        gguf_bytes([pair("general.alignment", "uint32", struct.pack("<I", 2**31))]),
    ),
    "alignment_text": (
        "ALIGNMENT_INVALID",
        gguf_bytes([pair("general.alignment", "string", text("32"))]),
    ),
    "tensor_twice": (
        "DUPLICATE_TENSOR",
        gguf_bytes(tensors=[tensor(), tensor(at=32)], data=bytes(64)),
    ),
    "tensor_name_long": (
        "STRING_TOO_LONG",
        gguf_bytes(tensors=[tensor("x" * 1025)], data=bytes(32)),
    ),
    "dimensions_five": ("SHAPE_INVALID", gguf_bytes(tensors=[tensor(ne=(1,) * 5)], data=bytes(32))),
    "dimensions_wrap": (
        "SHAPE_INVALID",
        gguf_bytes(tensors=[tensor(ne=(2**32, 2**32))], data=bytes(32)),
    ),
    "dimensions_wrap_with_zero": (
        "SHAPE_INVALID",
        gguf_bytes(tensors=[tensor(ne=(2**32, 2**32, 0))], data=bytes(32)),
    ),
    "dimension_negative": (
        "SHAPE_INVALID",
        gguf_bytes(tensors=[tensor(ne=(2**64 - 1,))], data=bytes(32)),
    ),
    "row_not_of_blocks": (
        "SHAPE_INVALID",
        gguf_bytes(tensors=[tensor(ne=(16, 2), kind=2)], data=bytes(64)),
    ),
    "scalar_of_blocks": (
        "SHAPE_INVALID",
        gguf_bytes(tensors=[tensor(ne=(), kind=2)], data=bytes(64)),
    ),
    "type_unknown": ("TENSOR_TYPE_UNKNOWN", gguf_bytes(tensors=[tensor(kind=999)], data=bytes(32))),
    "type_removed": ("TENSOR_TYPE_REMOVED", gguf_bytes(tensors=[tensor(kind=4)], data=bytes(32))),
    "offset_misaligned": ("OFFSET_MISALIGNED", gguf_bytes(tensors=[tensor(at=4)], data=bytes(64))),
    "offset_huge": ("DATA_HOLE", gguf_bytes(tensors=[tensor(at=2**64 - 32)], data=bytes(64))),
    "overlap": (
        "OFFSETS_OVERLAP",
        gguf_bytes(tensors=[tensor("a", (16,)), tensor("b", at=32)], data=bytes(64)),
    ),
    "hole": (
        "DATA_HOLE",
        gguf_bytes(tensors=[tensor("a"), tensor("b", at=64)], data=bytes(96)),
    ),
    "data_truncated": ("DATA_TRUNCATED", gguf_bytes(tensors=[tensor()], data=bytes(31))),
    "terabytes": ("DATA_TRUNCATED", gguf_bytes(tensors=[tensor(ne=(2**40,))], data=bytes(32))),
}
"""name: (reason, file)"""
