"""One tile of XᵀX with the instruction ``vdpbf16ps``. Workers only (numba).

numba has no bfloat16, so this is written in LLVM's language. 8 rows by 48 columns of the result
stay in 24 vector registers while the pairs of rows of X go by: three vectors are loaded for a
pair, and 8 words, each of which is multiplied with all three.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_LANES = 16
_TILE_VECTORS = 3
TILE_ROWS = 8
PANEL = _LANES * _TILE_VECTORS


def _tile_of_product(
    _context: Any,
    packed: Any,
    _panel: Any,
    _row: Any,
    _start: Any,
    _count: Any,
    _out: Any,
    _width: Any,
) -> tuple[Any, Callable[[Any, Any, Any, Any], Any]]:
    """Adds a tile of XᵀX, the rows from ``_row`` on by the columns of ``_panel``, to float32.

    Args:
        packed: X, uint32 [panels, pairs of rows, 48], at a multiple of 64 bytes.
        _panel, _row: Where the tile is.
        _start, _count: Which pairs of rows of X.
        _out: Address of the tile.
        _width: Distance of its rows, in elements.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        pairs = builder.extract_value(array.shape, 1)
        tile = _TileCode(builder, array.data, pairs)
        tile.write(*arguments[1:])
        return context.get_dummy_value()

    signature = types.void(
        packed, types.intp, types.intp, types.intp, types.intp, types.uintp, types.intp
    )
    return signature, generate


multiply_add: Any = intrinsic(_tile_of_product)

_WORD = ir.IntType(32)
_SIZE = ir.IntType(64)
_FLOATS = ir.VectorType(ir.FloatType(), _LANES)
_WORDS = ir.VectorType(_WORD, _LANES)


class _Bfloat16(ir.Type):
    """LLVM's ``bfloat``, which llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Bfloat16)

    def __hash__(self) -> int:
        return hash(_Bfloat16)


_BFLOATS = ir.VectorType(_Bfloat16(), 2 * _LANES)


class _TileCode:
    """The instructions of ``multiply_add``."""

    def __init__(self, builder: Any, data: Any, pairs: Any) -> None:
        self._builder = builder
        self._data = builder.ptrtoint(data, _SIZE)
        self._pairs = pairs
        name = "llvm.x86.avx512bf16.dpbf16ps.512"
        kind = ir.FunctionType(_FLOATS, [_FLOATS, _BFLOATS, _BFLOATS])
        self._product = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)

    def write(self, panel: Any, row: Any, start: Any, count: Any, out: Any, width: Any) -> None:
        builder = self._builder
        own_panel = builder.sdiv(row, _size(PANEL))
        own_column = builder.srem(row, _size(PANEL))
        left = self._address(own_panel, start, own_column)
        right = self._address(panel, start, _size(0))
        before, loop, after = (
            builder.block,
            builder.append_basic_block("pairs"),
            builder.append_basic_block("sums"),
        )
        builder.branch(loop)
        builder.position_at_end(loop)
        pair = builder.phi(_SIZE)
        sums = [[builder.phi(_FLOATS) for _ in range(_TILE_VECTORS)] for _ in range(TILE_ROWS)]
        added = self._one_pair(sums, left, right, pair)
        following = builder.add(pair, _size(1))
        for phi, first, later in [
            (pair, _size(0), following),
            *(
                (phi, ir.Constant(_FLOATS, [0.0] * _LANES), later)
                for phis, laters in zip(sums, added, strict=True)
                for phi, later in zip(phis, laters, strict=True)
            ),
        ]:
            phi.add_incoming(first, before)
            phi.add_incoming(later, loop)
        builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
        builder.position_at_end(after)
        for number, vectors in enumerate(added):
            row_of_out = builder.add(out, builder.mul(width, _size(4 * number)))
            for place, vector in enumerate(vectors):
                target = self._pointer(row_of_out, place * 4 * _LANES, _FLOATS)
                sum_ = builder.fadd(builder.load(target, align=4), vector)
                builder.store(sum_, target, align=4)

    def _one_pair(self, sums: Any, left: Any, right: Any, pair: Any) -> list[list[Any]]:
        """The sums after one more pair of rows."""
        builder = self._builder
        offset = builder.mul(pair, _size(4 * PANEL))
        left, right = builder.add(left, offset), builder.add(right, offset)
        factors = [
            builder.bitcast(
                builder.load(self._pointer(right, place * 4 * _LANES, _WORDS), align=64), _BFLOATS
            )
            for place in range(_TILE_VECTORS)
        ]
        added = []
        for number, row in enumerate(sums):
            word = builder.load(self._pointer(left, 4 * number, _WORD), align=4)
            undefined = ir.Constant(_WORDS, ir.Undefined)
            vector = builder.insert_element(undefined, word, ir.Constant(_WORD, 0))
            vector = builder.shuffle_vector(vector, undefined, ir.Constant(_WORDS, [0] * _LANES))
            vector = builder.bitcast(vector, _BFLOATS)
            added.append(
                [
                    builder.call(self._product, [sum_, vector, factor])
                    for sum_, factor in zip(row, factors, strict=True)
                ]
            )
        return added

    def _address(self, panel: Any, pair: Any, column: Any) -> Any:
        """Of a word of the packed matrix."""
        builder = self._builder
        words = builder.mul(builder.add(builder.mul(panel, self._pairs), pair), _size(PANEL))
        return builder.add(self._data, builder.mul(builder.add(words, column), _size(4)))

    def _pointer(self, address: Any, offset: int, kind: Any) -> Any:
        return self._builder.inttoptr(self._builder.add(address, _size(offset)), kind.as_pointer())


def _size(value: int) -> Any:
    return ir.Constant(_SIZE, value)
