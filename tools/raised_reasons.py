"""Reads in the server's sources which reason codes can reach a client, and how.

A reason begins as a text in the code and ends as `Finding.reason` or `UnmetRequirement.reason`.
On the way it may pass through parameters (``_unusable("NO_WEIGHTS", ...)``) and fields
(``Rule(reason=...)``). From the two ends this walks backwards over the syntax trees: whatever is
handed to a parameter that carries a reason has to be

* a text, or one of two texts (``"A" if x else "B"``);
* a parameter of the function around it, whose callers are then looked at in the same way;
* a field of something whose type is written down: an annotated parameter or variable, or what an
  ``except`` clause names;
* ``reason_of_rule(...)``, whose reasons are those of the spec's rules.

Anything else, an f-string for one, is a problem: no page could list what it makes. Forwards again
from every text, the values of ``severity`` and ``kind`` on the same way are those it comes with.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from server_sources import PACKAGE, Scope, Sources, is_name

FINDING = f"{PACKAGE}.errors.Finding"
REQUIREMENT = f"{PACKAGE}.planning.load_requirements.UnmetRequirement"
FROM_RULES = "reason_of_rule"
CODE = re.compile(r"[A-Z][A-Z0-9_]*")

Values = frozenset[str]


@dataclass
class Use:
    """How one reason reaches clients."""

    outcomes: set[tuple[str, str]] = field(default_factory=set)
    """(severity, kind) of its findings."""
    is_requirement: bool = False
    """Whether it is the reason of an unmet requirement."""
    places: set[str] = field(default_factory=set)
    """Where its text stands, as "checkpoint/opening.py:63"."""


@dataclass(frozen=True)
class Step:
    """A call that hands a reason on, or begins with one."""

    call: ast.Call
    target: str
    scope: Scope
    instance: str = ""
    """Name of the variable whose field is handed on; empty for a parameter."""


class RaisedReasons:
    """The reasons in the sources below ``folder``; ``of_rules`` are those that the spec makes."""

    def __init__(self, folder: Path, of_rules: Iterable[str]) -> None:
        self.sources = Sources(folder)
        self.problems: list[str] = []
        self.uses: dict[str, Use] = {}
        self._of_rules = frozenset(of_rules)
        self._texts: list[tuple[Values, Step]] = []
        self._steps: dict[str, list[Step]] = {}
        self._carried: dict[str, str] = {}
        """Name of the parameter that is a reason, by function or class."""
        self._pending: list[str] = []
        for end in (FINDING, REQUIREMENT):
            self._carry(end, "reason")
        while self._pending:
            self._look_at_calls_of(self._pending.pop())
        for codes, step in self._texts:
            for code in codes:
                self._follow(code, step, step, {}, frozenset())
        self._look_for_missed()

    # -- backwards: where reasons come from -------------------------------------------------------

    def _carry(self, target: str, parameter: str) -> None:
        if target not in self._carried:
            self._carried[target] = parameter
            self._pending.append(target)

    def _look_at_calls_of(self, target: str) -> None:
        parameter = self._carried[target]
        for call, scope in self.sources.calls_of.get(target, ()):
            if any(isinstance(each, ast.Starred) for each in call.args) or any(
                each.arg is None for each in call.keywords
            ):
                self._problem(call, scope, "hand the reason over by itself, not in * or **")
                continue
            value = self.sources.arguments(call, target)[parameter]
            if value is not None:
                self._look_at(value, Step(call, target, scope))

    def _look_at(self, value: ast.expr, step: Step) -> None:
        scope = step.scope
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            if CODE.fullmatch(value.value):
                self._texts.append((frozenset({value.value}), step))
            else:
                self._problem(value, scope, f"{value.value!r} is no UPPER_SNAKE_CASE")
        elif isinstance(value, ast.IfExp):
            self._look_at(value.body, step)
            self._look_at(value.orelse, step)
        elif isinstance(value, ast.Call) and is_name(value.func, FROM_RULES):
            self._texts.append((self._of_rules, step))
        elif isinstance(value, ast.Name) and (owner := self._function_with(value.id, scope)):
            self._steps.setdefault(owner, []).append(step)
            self._carry(owner, value.id)
        elif isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name):
            instance = value.value.id
            source = self.sources.type_of(instance, scope)
            if source is None:
                self._problem(
                    value, scope, f"write down the type of {instance}, as in `{instance}: Rule`"
                )
            elif source != FINDING:  # those of findings are looked at where they are made
                source = self.sources.maker(source)
                self._steps.setdefault(source, []).append(
                    Step(step.call, step.target, scope, instance)
                )
                self._carry(source, value.attr)
        else:
            said = ast.unparse(value)
            self._problem(value, scope, f"`{said}` is computed; make it a text, or one of two")

    def _function_with(self, parameter: str, scope: Scope) -> str | None:
        """The function around ``scope`` that has that parameter."""
        for depth in range(len(scope.definitions), 0, -1):
            name = ".".join((scope.module, *(each.name for each in scope.definitions[:depth])))
            is_class = isinstance(scope.definitions[depth - 1], ast.ClassDef)
            if not is_class and parameter in self.sources.parameters(name):
                return name
        return None

    # -- forwards: what they come with ------------------------------------------------------------

    def _follow(
        self,
        code: str,
        step: Step,
        first: Step,
        known: Mapping[str, Values],
        passed: frozenset[str],
    ) -> None:
        handed = {
            name: self._values(value, known)
            for name, value in self.sources.arguments(step.call, step.target).items()
        }
        if not passed:
            use = self.uses.setdefault(code, Use())
            use.places.add(self.sources.place(step.call, step.scope))
        if step.target == REQUIREMENT:
            self.uses[code].is_requirement = True
        elif step.target == FINDING:
            for name in ("severity", "kind"):
                if not handed[name]:
                    self._problem(first.call, first.scope, f"the {name} of {code} is computed")
            self.uses[code].outcomes |= {
                (severity, kind) for severity in handed["severity"] for kind in handed["kind"]
            }
        for after in self._steps.get(step.target, ()):
            if after.target not in passed:
                prefix = f"{after.instance}." if after.instance else ""
                named = {f"{prefix}{name}": values for name, values in handed.items()}
                self._follow(code, after, first, named, passed | {step.target})

    def _values(self, value: ast.expr | None, known: Mapping[str, Values]) -> Values:
        """The texts that ``value`` may be; none when that cannot be told."""
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            return frozenset({value.value})
        if isinstance(value, ast.IfExp):
            return self._values(value.body, known) | self._values(value.orelse, known)
        if isinstance(value, ast.Attribute) and is_name(value.value, "Severity"):
            return frozenset({value.attr})
        if isinstance(value, ast.Name | ast.Attribute):
            return known.get(ast.unparse(value), frozenset())
        return frozenset()

    # -- what went by -----------------------------------------------------------------------------

    def _look_for_missed(self) -> None:
        for call, scope in self.sources.calls:
            for keyword in call.keywords:
                code = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if keyword.arg != "reason" or not isinstance(code, str):
                    continue
                if CODE.fullmatch(code) and code not in self.uses:
                    self._problem(call, scope, f"{code} looks like a reason, but goes nowhere")

    def _problem(self, node: ast.expr, scope: Scope, what: str) -> None:
        self.problems.append(f"{self.sources.place(node, scope)}: {what}")
