"""Hypothesis strategies: typed configurations that keep the rules of the spec."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from quantd import v1
from quantd_server.api.translation import from_message
from quantd_server.methods.configs import MethodConfig
from quantd_server.methods.patterns import compile_pattern

from tests.spec.test_rules import within_and_beyond  # isort: skip


def _is_pattern(text: str) -> bool:
    try:
        compile_pattern(text)
    except ValueError:
        return False
    return True


PATTERNS = st.one_of(
    st.sampled_from(
        [
            "a",
            "^a",
            "a|b",
            "^(?:a)",
            ".*(?:a)",
            "^(?:.*(?:a))",
            "^(?:a)|(b)",
            ".*(?:a)|(b)",
            r"\+:a",
        ]
    ),
    st.text(st.sampled_from("ab.*+?()|^$:[]\\-"), min_size=1, max_size=24).filter(_is_pattern),
)
"""Expressions, those with the beginnings and ends that the parser looks for among them."""

NAMES = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
    max_size=4,
    unique=True,
)


def _value(field: Any) -> st.SearchStrategy[Any]:
    from quantd._third_party.buf.validate import validate_pb2

    rules = field.GetOptions().Extensions[validate_pb2.field]
    kind = rules.WhichOneof("type")
    if field.enum_type is not None:
        return st.sampled_from([n for n in field.enum_type.values_by_number if n])
    if field.type == field.TYPE_BOOL:
        return st.just(False) if field.name == "llm_int8_has_fp16_weight" else st.booleans()
    if field.type == field.TYPE_STRING:
        return (
            NAMES
            if field.is_repeated
            else st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
        )
    bounds = getattr(rules, kind)
    if getattr(bounds, "in"):
        return st.sampled_from(list(getattr(bounds, "in")))
    if kind == "double":
        return st.sampled_from(within_and_beyond(bounds, is_double=True)[0]) | st.floats(
            min_value=1e-6, max_value=0.99
        )
    lower = bounds.gte if bounds.WhichOneof("greater_than") else 0
    return st.integers(lower, bounds.lte)


@st.composite
def _messages(draw: Any, message: Any) -> Any:
    for field in message.DESCRIPTOR.fields:
        if not draw(st.booleans()):
            continue
        if field.message_type is not None:
            seen = set()
            for _ in range(draw(st.integers(0, 4))):
                rule = draw(_rules(field.message_type.name))
                key = (rule.pattern, getattr(rule, "exclude", None))
                if key not in seen or field.name != "dynamic":
                    getattr(message, field.name).append(rule)
                seen.add(key)
        elif field.is_repeated:
            getattr(message, field.name).extend(draw(_value(field)))
        else:
            setattr(message, field.name, draw(_value(field)))
    return message


@st.composite
def _rules(draw: Any, name: str) -> Any:
    rule = getattr(v1, name)()
    for field in rule.DESCRIPTOR.fields:
        if field.name == "pattern":
            rule.pattern = draw(PATTERNS)
        elif field.name == "type" or draw(st.booleans()):
            setattr(rule, field.name, draw(_value(field)))
    return rule


def _keeps_rules(config: v1.MethodConfig) -> bool:
    import protovalidate

    return not protovalidate.collect_violations(config)


@st.composite
def _method_messages(draw: Any) -> v1.MethodConfig:
    config = v1.MethodConfig()
    name = draw(st.sampled_from(sorted(v1.MethodConfig.DESCRIPTOR.fields_by_name)))
    member = getattr(config, name)
    member.SetInParent()
    draw(_messages(member))
    return config


MESSAGES = _method_messages().filter(_keeps_rules)
TYPED = MESSAGES.map(lambda message: from_message(message, MethodConfig))
