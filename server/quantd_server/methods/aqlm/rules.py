"""What stands against a shape of codes for a set of weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quantd_server.errors import Finding, Severity
from quantd_server.methods.aqlm.shape import FLOAT16_BITS, CodeShape
from quantd_server.methods.linear_weights import LinearWeight, finding

MANY_BITS = 8
"""Bits a weight from which another method does better."""

SLOW_PARAMETERS = 10_000_000
"""Weights from which a job takes hours."""

_LEAVE_OUT = "leave these weights out with linear_weights_not_to_quantize"


def code_findings(
    weights: Sequence[LinearWeight], shape: CodeShape, field: str
) -> Iterator[Finding]:
    """All findings about ``weights``, those to quantize."""
    yield from _divisibility(weights, shape, field)
    fitting = [weight for weight in weights if shape.divides(weight.rows, weight.columns)]
    small = [
        weight for weight in fitting if shape.groups(weight.rows, weight.columns) < 2**shape.bits
    ]
    if small:
        yield _too_few_groups(small, shape, field)
    else:
        yield from _bits(fitting, shape, field)
    count = sum(weight.rows * weight.columns for weight in fitting)
    if count >= SLOW_PARAMETERS:
        yield finding(
            Severity.WARNING,
            "AQLM_TAKES_LONG",
            field,
            f"codes for {count:,} weights are searched step by step, which takes far longer than "
            "any other method: GPU-days for a model of 70 billion parameters",
            "choose gptq or awq, lower max_epochs, or raise relative_mse_tolerance",
        )


def _divisibility(
    weights: Sequence[LinearWeight], shape: CodeShape, field: str
) -> Iterator[Finding]:
    for name, size, what in (
        ("in_group_size", shape.in_group, "columns"),
        ("out_group_size", shape.out_group, "rows"),
    ):
        misfits = [weight for weight in weights if getattr(weight, what) % size]
        if not misfits:
            continue
        counts = sorted({getattr(weight, what) for weight in misfits})
        fitting = next(
            smaller
            for smaller in range(size - 1, 0, -1)
            if all(getattr(weight, what) % smaller == 0 for weight in weights)
        )
        dimension = "input" if what == "columns" else "output"
        yield finding(
            Severity.ERROR,
            "GROUP_SIZE_DOES_NOT_DIVIDE",
            f"{field}.{name}",
            f"{name} {size} does not divide the {dimension} dimension "
            f"({', '.join(map(str, counts[:4]))}) of {len(misfits)} weights",
            f"set {name} to {fitting}, which fits all of them, or {_LEAVE_OUT}",
            [weight.entry.name for weight in misfits],
            kind="invalid",
        )


def _too_few_groups(small: Sequence[LinearWeight], shape: CodeShape, field: str) -> Finding:
    groups = min(shape.groups(weight.rows, weight.columns) for weight in small)
    # bit_length() - 1 is the whole logarithm.
    advice = (
        f"set nbits_per_codebook to {groups.bit_length() - 1} or less, with more codebooks if "
        f"needed, or {_LEAVE_OUT}"
        if groups > 1
        else _LEAVE_OUT
    )
    return finding(
        Severity.ERROR,
        "AQLM_TOO_FEW_GROUPS",
        f"{field}.nbits_per_codebook",
        f"a codebook of 2^{shape.bits} vectors needs as many groups to learn from; {len(small)} "
        f"weights have fewer, the smallest of them {groups}",
        advice,
        [weight.entry.name for weight in small],
        kind="invalid",
    )


def _bits(weights: Sequence[LinearWeight], shape: CodeShape, field: str) -> Iterator[Finding]:
    def rate(weight: LinearWeight) -> float:
        return shape.stored_bits(weight.rows, weight.columns) / (weight.rows * weight.columns)

    large = [weight for weight in weights if rate(weight) >= MANY_BITS]
    useless = [weight for weight in large if rate(weight) >= FLOAT16_BITS]
    if useless:
        yield _too_many_bits(
            Severity.ERROR,
            "AQLM_BITS_TOO_MANY",
            field,
            f"{max(map(rate, useless)):.1f} bits a weight, no less than float16 takes",
            useless,
        )
    elif large:
        yield _too_many_bits(
            Severity.WARNING,
            "AQLM_BITS_HIGH",
            field,
            f"{max(map(rate, large)):.1f} bits a weight, as many as 8-bit methods take",
            large,
        )


def _too_many_bits(
    severity: Severity, reason: str, field: str, taken: str, weights: Sequence[LinearWeight]
) -> Finding:
    return finding(
        severity,
        reason,
        f"{field}.nbits_per_codebook",
        f"codes and codebooks take up to {taken}, in {len(weights)} weights",
        f"use smaller codebooks, such as nbits_per_codebook 8, or {_LEAVE_OUT}",
        [weight.entry.name for weight in weights],
        kind="invalid",
    )
