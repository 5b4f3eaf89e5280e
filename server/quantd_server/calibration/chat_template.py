"""Rendering conversations by the chat template of a checkpoint, as transformers does.

A template is a program from somebody else. It runs in jinja2's sandbox, where it reaches nothing of
ours, with limits on what it makes; time and memory are limited by the planner's process, in which
every template runs before a worker sees it.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from quantd_server.errors import QuantdError, quoted

MAX_RENDERED_CHARACTERS = 8 << 20
"""Longest text that one conversation may become."""

TODAY = dt.datetime(2024, 7, 26, tzinfo=dt.UTC)
"""What ``strftime_now`` tells: the same tokens on every day. It is the date that Llama 3.1's
template falls back to."""

_WIDE = re.compile(r"\d{5}|\*")
"""A printf format whose result may be long whatever is printed: "%1000000000d"."""

Messages = Sequence[Mapping[str, Any]]


class _Sandbox(ImmutableSandboxedEnvironment):
    """Also refuses texts that an operator makes enormous."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        sized, factor = (left, right) if hasattr(left, "__len__") else (right, left)
        if operator == "*" and hasattr(sized, "__len__") and isinstance(factor, int):
            allowed = len(sized) * factor <= MAX_RENDERED_CHARACTERS
        elif operator == "%":
            allowed = not isinstance(left, str) or not _WIDE.search(left)
        else:
            allowed = operator != "**" or (abs(left) <= 1 << 16 and abs(right) <= 64)
        if not allowed:
            raise TemplateError(f"{operator} makes too large a value")
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    """``{% generation %}``: marks what the assistant says; nothing to us."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A compiled template."""

    def __init__(self, source: str, special_tokens: Mapping[str, str], field: str) -> None:
        """``special_tokens``: texts by name, ``bos_token`` among them.

        Raises QuantdError CHAT_TEMPLATE_FAILED.
        """
        self._field = field
        self._special_tokens = dict(special_tokens)
        try:
            self._template = _compile(source)
        except Exception as error:  # noqa: BLE001 - whatever the text makes the compiler do
            raise self._failed(error) from None

    def render(self, messages: Messages, place: str) -> str:
        """The text of a conversation, without a prompt for an answer at its end.

        Raises QuantdError CHAT_TEMPLATE_FAILED; ``place`` says where the messages are from.
        """
        pieces: list[str] = []
        size = 0
        try:
            for piece in self._template.generate(
                messages=list(messages),
                tools=None,
                documents=None,
                add_generation_prompt=False,
                **self._special_tokens,
            ):
                pieces.append(piece)
                size += len(piece)
                if size > MAX_RENDERED_CHARACTERS:
                    raise TemplateError(f"more than {MAX_RENDERED_CHARACTERS} characters come out")
            text = "".join(pieces)
            text.encode("utf-8")  # a template can make half a surrogate pair
        except Exception as error:  # noqa: BLE001 - a template can raise anything
            raise self._failed(error, f" for {place}") from None
        return text

    def _failed(self, error: Exception, where: str = "") -> QuantdError:
        return QuantdError(
            reason="CHAT_TEMPLATE_FAILED",
            field=self._field,
            kind="precondition",
            message=f"the checkpoint's chat template fails{where}: "
            f"{quoted(str(error) or type(error).__name__)}",
            remedy="give messages as the template expects them, or leave apply_chat_template out",
        )


def _compile(source: str) -> Template:
    environment = _Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    # Both draw random numbers: the job would not see the texts that were planned.
    del environment.globals["lipsum"], environment.filters["random"]
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = TODAY.strftime
    return environment.from_string(source)


def _to_json(value: Any, **options: Any) -> str:
    """Unlike jinja2's own filter: no HTML escapes."""
    return json.dumps(value, **{"ensure_ascii": False, **options})


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)
