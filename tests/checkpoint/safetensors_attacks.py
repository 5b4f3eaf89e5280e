"""Every way a safetensors file can be wrong, with the reason that says so."""

from __future__ import annotations

import json

from tests.checkpoint.builders import entry, safetensors_bytes

DEEP = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"

ATTACKS = {
    "empty": ("FILE_EMPTY", b""),
    "seven_bytes": ("HEADER_TRUNCATED", b"\x02\0\0\0\0\0\0"),
    "length_over_file": ("HEADER_TRUNCATED", safetensors_bytes({}, length=3)),
    "length_just_below_limit": ("HEADER_TRUNCATED", safetensors_bytes({}, length=100_000_000)),
    "length_over_limit": ("HEADER_TOO_LARGE", safetensors_bytes({}, length=100_000_001)),
    "length_maximal": ("HEADER_TOO_LARGE", safetensors_bytes({}, length=2**64 - 1)),
    "no_header": ("HEADER_NOT_AN_OBJECT", safetensors_bytes(b"")),
    "not_utf8": ("HEADER_NOT_UTF8", safetensors_bytes(b'{"\xff":1}')),
    "byte_order_mark": ("HEADER_NOT_AN_OBJECT", safetensors_bytes(b"\xef\xbb\xbf{}")),
    "leading_space": ("HEADER_NOT_AN_OBJECT", safetensors_bytes(b" {}")),
    "not_json": ("HEADER_INVALID_JSON", safetensors_bytes(b"{nonsense")),
    "two_objects": ("HEADER_INVALID_JSON", safetensors_bytes(b"{}{}")),
    "list": ("HEADER_NOT_AN_OBJECT", safetensors_bytes([])),
    "too_deep": ("HEADER_INVALID_JSON", safetensors_bytes(DEEP)),
    "endless_number": ("HEADER_INVALID_JSON", safetensors_bytes(b'{"a":' + b"9" * 5000 + b"}")),
    "tensor_twice": (
        "DUPLICATE_KEY",
        safetensors_bytes(b'{"a":%b,"a":%b}' % ((json.dumps(entry()).encode(),) * 2), bytes(8)),
    ),
    "field_twice": (
        "DUPLICATE_KEY",
        safetensors_bytes(b'{"a":{"dtype":"F32","dtype":"F32"}}', bytes(8)),
    ),
    "metadata_not_object": ("METADATA_INVALID", safetensors_bytes({"__metadata__": 1})),
    "metadata_not_text": ("METADATA_INVALID", safetensors_bytes({"__metadata__": {"a": 1}})),
    "metadata_surrogate": (
        "METADATA_INVALID",
        safetensors_bytes({"__metadata__": {"a": "\ud800"}}),
    ),
    "entry_null": ("ENTRY_INVALID", safetensors_bytes({"a": None})),
    "entry_list": ("ENTRY_INVALID", safetensors_bytes({"a": [1]})),
    "entry_without_shape": ("ENTRY_INVALID", safetensors_bytes({"a": {"dtype": "F32"}})),
    "entry_with_more": ("ENTRY_INVALID", safetensors_bytes({"a": entry() | {"x": 1}}, bytes(8))),
    "name_empty": ("ENTRY_INVALID", safetensors_bytes({"": entry()}, bytes(8))),
    "name_surrogate": ("ENTRY_INVALID", safetensors_bytes({"\ud800": entry()}, bytes(8))),
    "dtype_number": ("ENTRY_INVALID", safetensors_bytes({"a": entry(dtype=1)}, bytes(8))),
    "dtype_unknown": ("DTYPE_UNKNOWN", safetensors_bytes({"a": entry(dtype="F31")}, bytes(8))),
    "dtype_lower": ("DTYPE_UNKNOWN", safetensors_bytes({"a": entry(dtype="f32")}, bytes(8))),
    "shape_text": ("SHAPE_INVALID", safetensors_bytes({"a": entry(shape="2")}, bytes(8))),
    "dimension_negative": ("SHAPE_INVALID", safetensors_bytes({"a": entry(shape=(-2,))})),
    "dimensions_negative_pair": (
        "SHAPE_INVALID",
        safetensors_bytes({"a": entry(shape=(-2, -1))}, bytes(8)),
    ),
    "dimension_float": ("SHAPE_INVALID", safetensors_bytes({"a": entry(shape=(2.0,))}, bytes(8))),
    "dimension_bool": (
        "SHAPE_INVALID",
        safetensors_bytes({"a": entry(shape=(True, 2))}, bytes(8)),
    ),
    "dimension_huge": ("SHAPE_INVALID", safetensors_bytes({"a": entry(shape=(2**63,))})),
    "dimensions_many": ("SHAPE_INVALID", safetensors_bytes({"a": entry(shape=(1,) * 17)})),
    "product_wraps_to_zero": (
        "SIZE_MISMATCH",
        safetensors_bytes({"a": entry(shape=(2**32, 2**32), begin=0, end=0)}),
    ),
    "size_too_small": ("SIZE_MISMATCH", safetensors_bytes({"a": entry(end=4)}, bytes(4))),
    "size_too_large": ("SIZE_MISMATCH", safetensors_bytes({"a": entry(end=12)}, bytes(12))),
    "half_a_byte": (
        "SIZE_MISMATCH",
        safetensors_bytes({"a": entry(dtype="F4", shape=(1,), end=1)}, bytes(1)),
    ),
    "offsets_reversed": ("OFFSETS_INVALID", safetensors_bytes({"a": entry(begin=8, end=0)})),
    "offsets_negative": ("OFFSETS_INVALID", safetensors_bytes({"a": entry(begin=-8, end=0)})),
    "offsets_float": ("OFFSETS_INVALID", safetensors_bytes({"a": entry(end=8.0)}, bytes(8))),
    "offsets_huge": (
        "OFFSETS_INVALID",
        safetensors_bytes({"a": entry(begin=2**64, end=2**64 + 8)}),
    ),
    "offsets_three": (
        "OFFSETS_INVALID",
        safetensors_bytes({"a": entry() | {"data_offsets": [0, 4, 8]}}, bytes(8)),
    ),
    "overlap": (
        "OFFSETS_OVERLAP",
        safetensors_bytes({"a": entry(), "b": entry(begin=4, end=12)}, bytes(12)),
    ),
    "same_bytes": ("OFFSETS_OVERLAP", safetensors_bytes({"a": entry(), "b": entry()}, bytes(8))),
    "hole_at_start": ("DATA_HOLE", safetensors_bytes({"a": entry(begin=4, end=12)}, bytes(12))),
    "hole_between": (
        "DATA_HOLE",
        safetensors_bytes({"a": entry(), "b": entry(begin=12, end=20)}, bytes(20)),
    ),
    "data_truncated": ("DATA_TRUNCATED", safetensors_bytes({"a": entry()}, bytes(7))),
    "data_trailing": ("DATA_TRAILING", safetensors_bytes({"a": entry()}, bytes(9))),
    "data_without_tensors": ("DATA_TRAILING", safetensors_bytes({}, bytes(1))),
    "terabytes": (
        "DATA_TRUNCATED",
        safetensors_bytes({"a": entry(shape=(2**40,), end=2**42)}, bytes(8)),
    ),
}
"""name: (reason, file)"""
