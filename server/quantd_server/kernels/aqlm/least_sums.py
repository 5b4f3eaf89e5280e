"""The innermost loop of the search for pairs of codes. Workers only (numba).

Written in LLVM's language, because the compiler does not keep minima in registers by itself. On
vectors of 16 floats, whatever registers the processor has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 16
"""Rows that are searched side by side."""

TOGETHER = 4
"""Vectors of the first codebook whose minima are in registers at a time."""

_SIZE = ir.IntType(64)
_FLOAT = ir.FloatType()
_FLOATS = ir.VectorType(_FLOAT, LANES)


def _least_sums(
    _context: Any, right: Any, pairs: Any, least: Any
) -> tuple[Any, Callable[[Any, Any, Any, Any], Any]]:
    """``least[v, lane] = min over u of (right[u, lane] + pairs[v, u])``.

    Args:
        right: float32 [vectors, LANES], contiguous like the others.
        pairs: float32 [vectors, vectors], a multiple of 4 in number.
        least: out, float32 [vectors, LANES].
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        tables = [
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args, arguments, strict=True)
        ]
        rows, width = (builder.extract_value(tables[1].shape, axis) for axis in range(2))
        data = [builder.ptrtoint(table.data, _SIZE) for table in tables]
        entry = builder.block
        outer = builder.append_basic_block("vectors")
        inner = builder.append_basic_block("others")
        stored = builder.append_basic_block("stored")
        after = builder.append_basic_block("after")
        builder.branch(outer)
        builder.position_at_end(outer)
        vector = builder.phi(_SIZE)
        vector.add_incoming(_number(0), entry)
        first = builder.add(data[1], builder.mul(vector, builder.mul(width, _number(4))))
        builder.branch(inner)
        builder.position_at_end(inner)
        other = builder.phi(_SIZE)
        other.add_incoming(_number(0), outer)
        minima = [builder.phi(_FLOATS) for _ in range(TOGETHER)]
        infinite = ir.Constant(_FLOATS, [float("inf")] * LANES)
        own = builder.load(
            _pointer(builder, data[0], builder.mul(other, _number(4 * LANES)), _FLOATS), align=4
        )
        for number, minimum in enumerate(minima):
            place = builder.mul(builder.add(builder.mul(width, _number(number)), other), _number(4))
            both = builder.load(_pointer(builder, first, place, _FLOAT), align=4)
            sums = builder.fadd(own, _in_all_lanes(builder, both))
            smaller = builder.select(builder.fcmp_ordered("<", sums, minimum), sums, minimum)
            minimum.add_incoming(infinite, outer)
            minimum.add_incoming(smaller, inner)
        following = builder.add(other, _number(1))
        other.add_incoming(following, inner)
        results = [minimum.incomings[1][0] for minimum in minima]
        builder.cbranch(builder.icmp_signed("<", following, width), inner, stored)
        builder.position_at_end(stored)
        for number, result in enumerate(results):
            place = builder.mul(builder.add(vector, _number(number)), _number(4 * LANES))
            builder.store(result, _pointer(builder, data[2], place, _FLOATS), align=4)
        next_vector = builder.add(vector, _number(TOGETHER))
        vector.add_incoming(next_vector, stored)
        builder.cbranch(builder.icmp_signed("<", next_vector, rows), outer, after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    return types.void(right, pairs, least), generate


least_sums: Any = intrinsic(_least_sums)


def _number(value: int) -> Any:
    return ir.Constant(_SIZE, value)


def _pointer(builder: Any, base: Any, offset: Any, kind: Any) -> Any:
    return builder.inttoptr(builder.add(base, offset), kind.as_pointer())


def _in_all_lanes(builder: Any, value: Any) -> Any:
    undefined = ir.Constant(_FLOATS, ir.Undefined)
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    one = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, undefined, zeros)
