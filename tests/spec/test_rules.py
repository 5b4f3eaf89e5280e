"""Every numeric rule of the spec, at its bounds; and every rule between fields, alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import protovalidate
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from quantd import v1
from quantd._third_party.buf.validate import validate_pb2

OWN_FILES = [
    file
    for file in {
        getattr(v1, name).DESCRIPTOR.file
        for name in dir(v1)
        if isinstance(getattr(getattr(v1, name), "DESCRIPTOR", None), Descriptor)
    }
    if file.name.startswith("quantd/")
]


def messages() -> Iterator[Descriptor]:
    todo = [d for file in OWN_FILES for d in file.message_types_by_name.values()]
    while todo:
        descriptor = todo.pop()
        yield descriptor
        todo += descriptor.nested_types


def numeric_rules() -> Iterator[tuple[str, FieldDescriptor, Any]]:
    """(id, field, rules) for every singular numeric field with bounds or a list of values."""
    for descriptor in messages():
        for field in descriptor.fields:
            rules = field.GetOptions().Extensions[validate_pb2.field]
            kind = rules.WhichOneof("type")
            if kind in {"uint32", "uint64", "int32", "int64", "double"} and not field.is_repeated:
                yield f"{descriptor.name}.{field.name}", field, getattr(rules, kind)


def violates(field: FieldDescriptor, value: float) -> bool:
    message = getattr(v1, field.containing_type.name)(**{field.name: value})
    return any(
        [element.field_name for element in violation.proto.field.elements] == [field.name]
        for violation in protovalidate.collect_violations(message)
        if violation.proto.field is not None
    )


def within_and_beyond(rules: Any, *, is_double: bool) -> tuple[list[float], list[float]]:
    """Values at the bounds that a rule allows, and just beyond that it does not."""
    step = 1e-9 if is_double else 1
    within: list[float] = []
    beyond: list[float] = []
    lower, upper = rules.WhichOneof("greater_than"), rules.WhichOneof("less_than")
    if lower:
        bound = getattr(rules, lower)
        within.append(bound if lower == "gte" else bound + step)
        if bound > 0 or lower == "gt" or is_double:
            beyond.append(bound - step if lower == "gte" else bound)
    if upper:
        bound = getattr(rules, upper)
        within.append(bound if upper == "lte" else bound - step)
        beyond.append(bound + max(step, step * bound) if upper == "lte" else bound)
    allowed = list(getattr(rules, "in"))
    if allowed:
        within += allowed
        beyond += [max(allowed) + 1, *([] if min(allowed) < 0 else [0])]
        between = [value + 1 for value in allowed if value + 1 not in allowed]
        beyond += between
    if is_double and rules.finite:
        beyond += [float("nan"), float("inf"), float("-inf")]
    return within, beyond


CASES = list(numeric_rules())


@pytest.mark.parametrize(("name", "field", "rules"), CASES, ids=[case[0] for case in CASES])
def test_numeric_rule_at_its_bounds(name: str, field: FieldDescriptor, rules: Any) -> None:
    is_double = field.type == FieldDescriptor.TYPE_DOUBLE
    within, beyond = within_and_beyond(rules, is_double=is_double)
    assert within or beyond, f"{name} has a rule that says nothing"
    assert [value for value in within if violates(field, value)] == []
    assert [value for value in beyond if not violates(field, value)] == []


def rule_ids(message: Any) -> set[str]:
    return {violation.proto.rule_id for violation in protovalidate.collect_violations(message)}


@pytest.mark.parametrize(
    ("rule", "broken", "kept"),
    [
        (
            "bitsandbytes_8bit.has_fp16_weight",
            v1.Bitsandbytes8BitConfig(llm_int8_has_fp16_weight=True),
            v1.Bitsandbytes8BitConfig(llm_int8_has_fp16_weight=False),
        ),
        (
            "gptq.act_order_exclusive",
            v1.GptqConfig(desc_act=True, act_group_aware=True),
            v1.GptqConfig(desc_act=True, act_group_aware=False),
        ),
        (
            "gptq.act_group_aware_needs_groups",
            v1.GptqConfig(group_size=-1, act_group_aware=True),
            v1.GptqConfig(group_size=-1),
        ),
        (
            "gptq.asymmetric_needs_v2",
            v1.GptqConfig(sym=False, format=v1.GptqFormat.GPTQ_FORMAT_GPTQ),
            v1.GptqConfig(sym=False, format=v1.GptqFormat.GPTQ_FORMAT_GPTQ_V2),
        ),
        (
            "gptq.max_shrink_needs_static_groups",
            v1.GptqConfig(max_shrink=0.5, static_groups=False),
            v1.GptqConfig(max_shrink=0.0, static_groups=False),
        ),
        (
            "gptq.one_range_search",
            v1.GptqConfig(max_shrink=0.5, mse=2.4),
            v1.GptqConfig(max_shrink=0.5, mse=0.0),
        ),
        (
            "awq.gemm_needs_zero_point",
            v1.AwqConfig(zero_point=False),
            v1.AwqConfig(zero_point=False, format=v1.AwqFormat.AWQ_FORMAT_GEMV_FAST),
        ),
        (
            "quantize.output_uri_required",
            v1.QuantizeRequest(
                spec=v1.QuantizationSpec(
                    source_uri="/a", method=v1.MethodConfig(gguf=v1.GgufConfig())
                )
            ),
            v1.QuantizeRequest(
                spec=v1.QuantizationSpec(
                    source_uri="/a",
                    output_uri="/b",
                    method=v1.MethodConfig(gguf=v1.GgufConfig()),
                )
            ),
        ),
        ("required", v1.MethodConfig(), v1.MethodConfig(aqlm=v1.AqlmConfig())),
        ("required", v1.JobEvent(), v1.JobEvent(heartbeat=v1.Heartbeat())),
    ],
)
def test_rule_between_fields(rule: str, broken: Any, kept: Any) -> None:
    assert rule_ids(broken) == {rule}
    assert rule_ids(kept) == set()


def test_every_rule_between_fields_has_a_case() -> None:
    defined = set()
    for descriptor in messages():
        options = descriptor.GetOptions().Extensions[validate_pb2.message]
        defined |= {rule.id for rule in options.cel}
        for field in descriptor.fields:
            defined |= {rule.id for rule in field.GetOptions().Extensions[validate_pb2.field].cel}
    marks = test_rule_between_fields.pytestmark  # type: ignore[attr-defined]
    tested = {case[0] for case in itertools.chain(*(mark.args[1] for mark in marks))}
    assert defined <= tested


def test_unset_and_default_messages_keep_the_rules() -> None:
    for name in ("Bitsandbytes8BitConfig", "Bitsandbytes4BitConfig", "GptqConfig", "AwqConfig"):
        assert rule_ids(getattr(v1, name)()) == set()
    assert rule_ids(v1.GgufConfig()) == rule_ids(v1.AqlmConfig()) == set()
