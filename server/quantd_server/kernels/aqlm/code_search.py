"""The best codes of every group for given codebooks, on torch tensors. Used by workers only.

Groups of a row are visited one after the other. With the others as they are, the output error is a
quadratic function of a group's vector y = Σ C_m[c_m]: with b the part of (W - Ŵ) G that belongs to
the group, its own vector left out, and G_gg the group's block of G,

    error = s² y G_gg y - 2 s y b + constant,

a table for each codebook and one for each pair of codebooks. The published search keeps a beam of
codes and changes one at a time; two codebooks of 256 vectors have so few pairs that all of them
are looked at, which is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from quantd_server.kernels.aqlm.additive_code import AdditiveCode
from quantd_server.kernels.aqlm.least_sums import LANES, TOGETHER, least_sums
from quantd_server.kernels.compilation import kernel

_BLOCK_COLUMNS = 128
"""Columns whose changes are kept back before the other columns learn of them."""

_PAIR_SIZES = range(TOGETHER, 257, TOGETHER)
"""Vectors of a codebook for which all pairs are looked at."""

_FEWEST_ROWS = 256
"""That are worth a thread."""

_TABLE_BYTES = 64 << 20
"""Of the table of errors of some rows for all vectors of a codebook."""


def search_codes(
    weight: torch.Tensor, gram: torch.Tensor, code: AdditiveCode, *, beam_size: int, threads: int
) -> None:
    """Changes ``code.codes`` so that the output error becomes smaller, or stays.

    Args:
        weight: float32 [rows, columns].
        gram: float32 [columns, columns].
        code: Its codebooks and scales are used as they are.
        beam_size: Hypotheses kept where pairs of codebooks are too many to look at them all.
        threads: That compute, on a CPU.
    """
    width = code.in_group
    gradient = (weight - code.decode()) @ gram
    step = max(width, _BLOCK_COLUMNS // width * width)
    for begin in range(0, weight.shape[1], step):
        block = slice(begin, min(begin + step, weight.shape[1]))
        here = gradient[:, block].contiguous()
        changes = torch.zeros_like(here)
        for group in range(block.start // width, block.stop // width):
            columns = slice(group * width, (group + 1) * width)
            place = slice(columns.start - begin, columns.stop - begin)
            own = gram[columns, columns]
            old = code.decode_group(group)
            target = here[:, place] + old @ own
            code.codes[:, group] = _best_codes(code, group, target, own, beam_size, threads)
            change = code.decode_group(group) - old
            changes[:, place] = change
            here.addmm_(change, gram[columns, block], alpha=-1.0)
        gradient.addmm_(changes, gram[block], alpha=-1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tables:
    """The error of a group as a sum over its codes."""

    linear: list[torch.Tensor]
    """For each codebook [out groups, vectors], what its own vector adds."""
    pairs: dict[tuple[int, int], torch.Tensor]
    """For codebooks m < n: [vectors, vectors], what both add together."""

    def between(self, changed: int, other: int, codes: torch.Tensor) -> torch.Tensor:
        """[..., vectors of ``changed``] for the codes [...] of ``other``."""
        if changed < other:
            return self.pairs[changed, other].T[codes]
        return self.pairs[other, changed][codes]


def _best_codes(
    code: AdditiveCode,
    group: int,
    target: torch.Tensor,
    own: torch.Tensor,
    beam_size: int,
    threads: int,
) -> torch.Tensor:
    """int32 [out groups, codebooks]."""
    count, size = code.codebooks.shape[:2]
    vectors = code.codebooks.flatten(2)
    weighed = (code.codebooks @ own).flatten(2)
    squares = (vectors * weighed).sum(dim=2)
    pairs = {
        (first, second): 2.0 * (weighed[first] @ vectors[second].T)
        for first in range(count)
        for second in range(first + 1, count)
    }
    scaled = target.reshape(len(code.scales), -1) * (-2.0 / code.scales).unsqueeze(1)
    step = max(1, _TABLE_BYTES // (4 * size * max(1, beam_size)))
    found = []
    for begin in range(0, len(scaled), step):
        part = scaled[begin : begin + step]
        tables = _Tables(
            linear=[torch.addmm(squares[m], part, vectors[m].T) for m in range(count)], pairs=pairs
        )
        current = code.codes[begin : begin + step, group].long()
        if count == 1:
            found.append(tables.linear[0].argmin(dim=1, keepdim=True))
        elif count == 2 and size in _PAIR_SIZES and target.device.type == "cpu":
            found.append(_best_pairs(tables, threads))
        else:
            found.append(_beam_search(tables, current, beam_size))
    return torch.cat(found).to(torch.int32)


def _best_pairs(tables: _Tables, threads: int) -> torch.Tensor:
    """The best of all pairs of codes, int64 [out groups, 2]."""
    rows = len(tables.linear[0])
    first, second = (table.numpy() for table in tables.linear)
    pairs = tables.pairs[0, 1].contiguous().numpy()
    found = np.zeros((rows, 2), np.int64)
    share = max(_FEWEST_ROWS, -(-rows // (threads * LANES)) * LANES)
    if threads == 1 or share >= rows:
        _search_pairs(first, second, pairs, 0, rows, found)
    else:

        def search(start: int) -> None:
            _search_pairs(first, second, pairs, start, min(start + share, rows), found)

        with ThreadPoolExecutor(threads) as executor:
            for _ in executor.map(search, range(0, rows, share)):
                pass
    return torch.from_numpy(found)


@kernel
def _search_pairs(first: Any, second: Any, pairs: Any, begin: int, end: int, found: Any) -> None:
    sizes = pairs.shape
    left = np.empty((sizes[0], LANES), np.float32)
    right = np.empty((sizes[1], LANES), np.float32)
    least = np.empty((sizes[0], LANES), np.float32)
    for start in range(begin, end, LANES):
        lanes = min(LANES, end - start)
        for lane in range(LANES):
            row = start + min(lane, lanes - 1)
            for vector in range(sizes[0]):
                left[vector, lane] = first[row, vector]
            for vector in range(sizes[1]):
                right[vector, lane] = second[row, vector]
        least_sums(right, pairs, least)
        for lane in range(lanes):
            best = np.float32(np.inf)
            for vector in range(sizes[0]):
                error = left[vector, lane] + least[vector, lane]
                if error < best:
                    best = error
                    found[start + lane, 0] = vector
            vector = found[start + lane, 0]
            best = np.float32(np.inf)
            for other in range(sizes[1]):
                error = right[other, lane] + pairs[vector, other]
                if error < best:
                    best = error
                    found[start + lane, 1] = other


def _beam_search(tables: _Tables, current: torch.Tensor, beam_size: int) -> torch.Tensor:
    """From the current codes [out groups, codebooks], one codebook after the other."""
    beam = current.unsqueeze(1)  # [out groups, hypotheses, codebooks]
    for changed in _two_rounds(current.shape[1]):
        errors = tables.linear[changed].unsqueeze(1).repeat(1, beam.shape[1], 1)
        fixed = torch.zeros(beam.shape[:2], device=beam.device)
        for other in range(beam.shape[2]):
            if other != changed:
                errors += tables.between(changed, other, beam[..., other])
                fixed += tables.linear[other].gather(1, beam[..., other])
                for third in range(other):
                    if third != changed:
                        fixed += tables.pairs[third, other][beam[..., third], beam[..., other]]
        errors += fixed.unsqueeze(2)
        size = errors.shape[2]
        kept = min(beam_size, size)
        flat = _without_repetitions(errors, beam, changed).flatten(1).topk(kept, largest=False)
        origin = flat.indices // size
        beam = beam.gather(1, origin.unsqueeze(2).expand(-1, -1, beam.shape[2])).clone()
        beam[..., changed] = flat.indices % size
    return beam[:, 0]


def _without_repetitions(errors: torch.Tensor, beam: torch.Tensor, changed: int) -> torch.Tensor:
    """Infinite for hypotheses that differ from an earlier one in the changed code only."""
    others = [m for m in range(beam.shape[2]) if m != changed]
    for later in range(1, beam.shape[1]):
        for earlier in range(later):
            same = (beam[:, later, others] == beam[:, earlier, others]).all(dim=1)
            errors[:, later].masked_fill_(same.unsqueeze(1), torch.inf)
    return errors


def _two_rounds(codebooks: int) -> Iterator[int]:
    for _ in range(2):
        yield from range(codebooks)
