"""Hypothesis strategies: typed configurations that keep the rules of the spec."""

from __future__ import annotations

from typing import Any

import protovalidate
from hypothesis import strategies as st
from tests.spec.test_rules import within_and_beyond

from quantd import v1
from quantd._third_party.buf.validate import validate_pb2
from quantd_server.api.translation import from_message
from quantd_server.methods.configs import MethodConfig
from quantd_server.methods.patterns import compile_pattern


def _is_pattern(text: str) -> bool:
    try:
        compile_pattern(text)
    except ValueError:
        return False
    return True


PATTERNS = st.one_of(
    st.sampled_from(
        ["a", "^a", "a|b", "^(?:a)", ".*(?:a)", "^(?:.*(?:a))", "^(?:a)|(b)", ".*(?:a)|(b)"]
    ),
    st.text(st.sampled_from("ab.*+?()|^$:[]\\-"), min_size=1, max_size=24).filter(_is_pattern),
)
"""Expressions, those with the beginnings and ends that the parser looks for among them."""

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
_NAMES = st.lists(_TEXT, max_size=4, unique=True)


def _value(field: Any) -> st.SearchStrategy[Any]:
    """Values of a field that is no message, within its rules."""
    rules = field.GetOptions().Extensions[validate_pb2.field]
    if field.enum_type is not None:
        return st.sampled_from([number for number in field.enum_type.values_by_number if number])
    if field.type == field.TYPE_BOOL:
        return st.booleans()
    if field.type == field.TYPE_STRING:
        return _NAMES if field.is_repeated else _TEXT
    kind = rules.WhichOneof("type")
    bounds = getattr(rules, kind)
    within = st.sampled_from(within_and_beyond(bounds, is_double=kind == "double")[0])
    if getattr(bounds, "in"):
        return within
    if kind == "double":
        return within | st.floats(min_value=1e-6, max_value=0.99)
    lowest = bounds.gte if bounds.WhichOneof("greater_than") else 0
    return st.integers(lowest, bounds.lte)


@st.composite
def _rules(draw: Any, name: str) -> Any:
    """A `GptqModuleRule` or a `GgufTensorRule`."""
    rule = getattr(v1, name)(pattern=draw(PATTERNS))
    for field in rule.DESCRIPTOR.fields:
        if field.name == "type" or (field.name != "pattern" and draw(st.booleans())):
            setattr(rule, field.name, draw(_value(field)))
    return rule


def _pattern_of(rule: Any) -> tuple[str, bool]:
    return rule.pattern, getattr(rule, "exclude", False)


@st.composite
def _method_messages(draw: Any) -> v1.MethodConfig:
    config = v1.MethodConfig()
    message = getattr(config, draw(st.sampled_from(sorted(MethodConfig.__struct_fields__))))
    message.SetInParent()
    for field in message.DESCRIPTOR.fields:
        if not draw(st.booleans()):
            continue
        if field.message_type is not None:
            rules = st.lists(_rules(field.message_type.name), max_size=4, unique_by=_pattern_of)
            getattr(message, field.name).extend(draw(rules))
        elif field.is_repeated:
            getattr(message, field.name).extend(draw(_value(field)))
        else:
            setattr(message, field.name, draw(_value(field)))
    return config


TYPED = (
    _method_messages()
    .filter(lambda config: not protovalidate.collect_violations(config))
    .map(lambda config: from_message(config, MethodConfig))
)
"""Any of the six, with any of their fields set."""
