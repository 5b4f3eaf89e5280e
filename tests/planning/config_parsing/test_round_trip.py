"""Typed configuration to canonical JSON and back, for all six methods."""

from __future__ import annotations

import json
import re

import protovalidate
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.planning.config_parsing.configurations import PATTERNS, TYPED

from quantd import v1
from quantd_server.api.translation import from_message, to_message
from quantd_server.errors import Severity
from quantd_server.methods.configs import GptqConfig, GptqModuleRule, MethodConfig
from quantd_server.methods.patterns import compile_pattern
from quantd_server.planning.config_parsing.gptq_modules import ModuleRules
from quantd_server.planning.config_parsing.parsing import canonical_json, parse_config


@given(TYPED)
def test_typed_to_canonical_to_typed_is_the_identity(method: MethodConfig):
    text = canonical_json(method)
    parsed = parse_config(text)
    assert parsed.method == method
    assert parsed.canonical_json == text
    assert not [f for f in parsed.findings if f.severity is Severity.ERROR]


@given(TYPED)
def test_domain_and_message_have_the_same_fields(method: MethodConfig):
    message = to_message(method, v1.MethodConfig)
    assert from_message(message, MethodConfig) == method
    assert not protovalidate.collect_violations(message)


@pytest.mark.parametrize("name", MethodConfig.__struct_fields__)
def test_an_empty_configuration_is_all_defaults(name: str):
    descriptor = v1.MethodConfig.DESCRIPTOR.fields_by_name[name].message_type
    method = from_message(v1.MethodConfig(**{name: {}}), MethodConfig)
    assert set(method.value.__struct_fields__) == set(descriptor.fields_by_name)
    assert parse_config(canonical_json(method)).method == method


@given(PATTERNS, st.text(st.sampled_from("ab.:"), max_size=6))
def test_module_patterns_keep_their_meaning(pattern: str, name: str):
    """Readers match at the start, with Python's expressions; the spec searches, with RE2's."""
    rules = ModuleRules()
    (key,) = rules.write([GptqModuleRule(pattern=pattern)])
    assert rules.read({key: {}}) == (GptqModuleRule(pattern=pattern),)
    searched = compile_pattern(pattern).search(name) is not None
    matched = compile_pattern(key.removeprefix("+:")).match(name) is not None
    assert searched == matched


@given(PATTERNS, st.text(st.sampled_from("ab.:"), max_size=6))
def test_patterns_of_other_writers_keep_their_meaning(pattern: str, name: str):
    (rule,) = ModuleRules().read({f"-:{pattern}": {}})
    assert rule.exclude
    matched = compile_pattern(pattern).match(name) is not None
    assert (compile_pattern(rule.pattern).search(name) is not None) == matched


def test_the_second_rule_with_a_pattern_is_dead_and_left_out():
    rules = (GptqModuleRule(pattern="a", bits=8), GptqModuleRule(pattern="a", bits=2))
    text = canonical_json(MethodConfig(gptq=GptqConfig(dynamic=rules)))
    method = parse_config(text).method
    assert method is not None
    assert method.value.dynamic == rules[:1]


def test_module_rules_keep_their_order():
    text = json.dumps({"quant_method": "gptq", "dynamic": {"z": {"bits": 8}, "-:a": {}}})
    parsed = parse_config(text)
    assert re.search(r'"\+:z".*"-:a"', parsed.canonical_json)


@pytest.mark.parametrize(
    ("dynamic", "place", "reason"),
    [
        ([], "dynamic", "CONFIG_WRONG_TYPE"),
        ({"a": 1}, "dynamic.a", "CONFIG_WRONG_TYPE"),
        ({"+:(": {}}, "dynamic['+:(']", "PATTERN_INVALID"),
        ({"(?=a)": {}}, "dynamic['(?=a)']", "PATTERN_INVALID"),
        ({"a": {"bits": 5}}, "dynamic.a.bits", "CONFIG_VALUE_NOT_ALLOWED"),
        ({"a": {"mse": 1}}, "dynamic.a.mse", "UNKNOWN_FIELDS"),
        ({"a": {}, "+:a": {}}, "dynamic['+:a']", "CONFIG_VALUE_NOT_ALLOWED"),
        ({"a" * 600: {}}, None, "CONFIG_VALUE_NOT_ALLOWED"),
        ({f"a{n}": {} for n in range(257)}, "dynamic", "CONFIG_VALUE_NOT_ALLOWED"),
    ],
)
def test_module_rules_that_make_no_sense(dynamic, place, reason):
    parsed = parse_config(json.dumps({"quant_method": "gptq", "bits": 4, "dynamic": dynamic}))
    (finding,) = [f for f in parsed.findings if f.severity is Severity.ERROR]
    assert finding.reason == reason
    if place is not None:
        assert finding.field == place
