"""What GPTQ does with one module: the settings of the checkpoint, or those of a rule for it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from quantd_server.errors import Finding, Severity, quoted
from quantd_server.methods.configs import GptqConfig, GptqModuleRule
from quantd_server.methods.linear_weights import finding
from quantd_server.methods.patterns import Pattern, compile_pattern


class ModuleSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Resolved settings of one module."""

    bits: int
    group_size: int
    """-1: one scale a row."""
    sym: bool
    desc_act: bool
    act_group_aware: bool

    def groups(self, columns: int) -> int:
        """Number of groups along an input dimension of ``columns``."""
        return 1 if self.group_size == -1 else columns // self.group_size


class ModuleRules:
    """The rules of a resolved configuration; the first one that matches counts."""

    def __init__(self, config: GptqConfig) -> None:
        self._config = config
        self._base = _settings(config, None)
        self._rules: list[tuple[int, GptqModuleRule, Pattern]] = []
        self._invalid: list[tuple[int, str]] = []
        self._used: set[int] = set()
        for number, rule in enumerate(config.dynamic):
            try:
                self._rules.append((number, rule, compile_pattern(rule.pattern)))
            except ValueError as error:
                self._invalid.append((number, f"{quoted(rule.pattern)} ({error})"))

    def __getitem__(self, module: str) -> ModuleSettings | str:
        """The settings of ``module``, or the pattern that leaves it out."""
        for number, rule, pattern in self._rules:
            if pattern.search(module):
                self._used.add(number)
                return rule.pattern if rule.exclude else _settings(self._config, rule)
        return self._base

    def findings(self, field: str) -> Iterator[Finding]:
        """What is wrong with the rules, once every module was looked up."""
        for number, fault in self._invalid:
            yield finding(
                Severity.ERROR,
                "PATTERN_INVALID",
                f"{field}[{number}].pattern",
                f"not a regular expression: {fault}",
                "write an RE2 expression that is found in module names, such as mlp\\.down_proj",
                kind="invalid",
            )
        for number, rule, _ in self._rules:
            if number not in self._used:
                yield finding(
                    Severity.WARNING,
                    "PATTERN_UNMATCHED",
                    f"{field}[{number}].pattern",
                    f"no linear layer is named by {quoted(rule.pattern)}, or rules before it take "
                    "them all",
                    "correct the pattern, or leave the rule out",
                    kind="invalid",
                )
        if self._config.format == "GPTQ":
            for number, rule, _ in self._rules:
                if rule.sym is False and not rule.exclude:
                    yield finding(
                        Severity.ERROR,
                        "GPTQ_ASYMMETRIC_NEEDS_V2",
                        f"{field}[{number}].sym",
                        "format GPTQ cannot store an asymmetric zero point of 0",
                        "set format to GPTQ_V2, or sym to true in that rule",
                        kind="invalid",
                    )


def _settings(config: GptqConfig, rule: GptqModuleRule | None) -> ModuleSettings:
    def chosen(name: str) -> object:
        own = getattr(rule, name) if rule else None
        return getattr(config, name) if own is None else own

    group_size, desc_act = chosen("group_size"), chosen("desc_act")
    return ModuleSettings(
        bits=chosen("bits"),  # type: ignore[arg-type]
        group_size=group_size,  # type: ignore[arg-type]
        sym=chosen("sym"),  # type: ignore[arg-type]
        desc_act=desc_act,  # type: ignore[arg-type]
        act_group_aware=bool(config.act_group_aware) and not desc_act and group_size != -1,
    )
