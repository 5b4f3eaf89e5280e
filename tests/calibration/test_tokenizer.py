"""Ids and rendered conversations are those of transformers."""

from __future__ import annotations

import pytest
from tests.calibration import tokenizers_on_disk as on_disk
from tests.quantizing import real_model

from quantd_server.calibration.chat_template import MAX_RENDERED_CHARACTERS, ChatTemplate
from quantd_server.calibration.tokenizer import open_chat_template, open_tokenizer
from quantd_server.errors import QuantdError

TEXTS = [
    "the cat sat on the mat",
    " leading, and trailing \n",
    "line\nbreaks\n\n\nand\ttabs",
    "naïve 東京 🙂",
    "<s> in the text </s>",
    "a",
    "the mat " * 300,
]
CONVERSATION = [
    {"role": "system", "content": " Be brief. "},
    {"role": "user", "content": "What is <s>?\n"},
    {"role": "assistant", "content": "A tag."},
]

KINDS = {
    "byte level": on_disk.write_byte_level,
    "bos": on_disk.write_metaspace,
    "bos and eos": lambda folder: on_disk.write_metaspace(folder, single="<s> $A </s>"),
    "no post-processor": lambda folder: on_disk.write_metaspace(folder, single=None),
    "configured on": lambda folder: on_disk.write_metaspace(
        folder, single=None, add_bos_token=True, add_eos_token=True
    ),
    "configured off": lambda folder: on_disk.write_metaspace(folder, add_bos_token=False),
}
PREFIXES = {"bos": (1,), "bos and eos": (1,), "configured off": (1,)}


def test_the_same_file_is_the_same_object_of_the_library(tmp_path):
    # Of each that has encoded something, it keeps memory for good.
    first, same, other = (tmp_path / name for name in ("first", "same", "other"))
    for folder in (first, same, other):
        folder.mkdir()
        on_disk.write_byte_level(folder)
    content = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(content + "\n")
    backend = open_tokenizer(first)._backend
    assert open_tokenizer(same)._backend is backend
    assert open_tokenizer(other)._backend is not backend


def transformers_tokenizer(folder):
    import transformers

    return transformers.AutoTokenizer.from_pretrained(folder)


def ours(folder, texts, *, add_special_tokens=True):
    return open_tokenizer(folder).encode(texts, add_special_tokens=add_special_tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_ids(tmp_path, kind):
    folder = KINDS[kind](tmp_path)
    oracle = transformers_tokenizer(folder)
    for special in (True, False):
        expected = [oracle(text, add_special_tokens=special).input_ids for text in TEXTS]
        assert ours(folder, TEXTS, add_special_tokens=special) == expected
    assert open_tokenizer(folder).prefix == PREFIXES.get(kind, ())


@pytest.mark.parametrize("kind", ["bos and eos", "configured off"])
@pytest.mark.parametrize("place", ["file", "config", "named"])
def test_conversations(tmp_path, kind, place):
    folder = KINDS[kind](tmp_path)
    if place == "file":
        (folder / "chat_template.jinja").write_text(on_disk.CHAT_TEMPLATE)
    else:
        template = on_disk.CHAT_TEMPLATE
        named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": template}]
        on_disk.configure(folder, chat_template=template if place == "config" else named)
    oracle = transformers_tokenizer(folder)
    tokenizer = open_tokenizer(folder)
    rendered = open_chat_template(folder, tokenizer, "f").render(CONVERSATION, "line 1")
    assert rendered == oracle.apply_chat_template(CONVERSATION, tokenize=False)
    (ids,) = tokenizer.encode([rendered], add_special_tokens=False)
    assert ids == oracle.apply_chat_template(CONVERSATION, return_dict=False)


@pytest.mark.slow
def test_the_real_model():
    folder = real_model()
    oracle = transformers_tokenizer(folder)
    assert ours(folder, TEXTS) == [oracle(text).input_ids for text in TEXTS]
    tokenizer = open_tokenizer(folder)
    template = open_chat_template(folder, tokenizer, "f")
    for conversation in (CONVERSATION, CONVERSATION[1:]):
        rendered = template.render(conversation, "line 1")
        assert rendered == oracle.apply_chat_template(conversation, tokenize=False)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"model": {"type": "BPE"}}', "\0", "no"])
def test_a_tokenizer_that_is_none(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(QuantdError) as caught:
        open_tokenizer(tmp_path)
    assert caught.value.reason == "TOKENIZER_MALFORMED"


def test_no_tokenizer(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"sentencepiece")
    with pytest.raises(QuantdError) as caught:
        open_tokenizer(tmp_path)
    assert caught.value.reason == "TOKENIZER_MISSING"
    assert "AutoTokenizer" in caught.value.remedy


def render(source, messages=CONVERSATION):
    return ChatTemplate(source, {"bos_token": "<s>"}, "f").render(messages, "line 7")


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[0]['role'] ",
        "{% for m in messages %}",
        "{{ raise_exception('Unknown role') }}",
        "{{ 1 / 0 }}",
        "{{ messages.x.y }}",
        "{{ 'a' + 1 }}",
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        # Out of the sandbox.
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append({}) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{% include '/etc/passwd' %}",
        # Texts without end.
        "{{ 'a' * 1000000000 }}",
        "{{ 1000000000 * 'a' }}",
        "{{ ['a'] * 1000000000 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{% for i in range(100000000) %}a{% endfor %}",
        "{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
        "{{ lipsum(n=1000000) }}",
        "{{ [1, 2] | random }}",
        # Half a character.
        r"{{ '\ud800' }}",
    ],
)
def test_templates_that_fail(source):
    with pytest.raises(QuantdError) as caught:
        render(source)
    assert caught.value.reason == "CHAT_TEMPLATE_FAILED"
    assert len(caught.value.message) < 500


def test_the_message_of_a_template_is_told():
    with pytest.raises(QuantdError) as caught:
        render("{{ raise_exception('Roles must alternate') }}")
    assert "Roles must alternate" in caught.value.message
    assert "line 7" in caught.value.message


def test_templates_that_do_more():
    assert render("{{ '%s-%02d' % ('a', 7) }}{{ 'ab' * 3 }}{{ 2 ** 10 }}") == "a-07ababab1024"
    assert render("{{ strftime_now.__self__.__class__ }}") == ""
    assert render("{{ strftime_now('%d %b %Y') }}") == "26 Jul 2024"
    assert render("{{ {'a': '<é>'} | tojson }}") == '{"a": "<é>"}'
    assert len(render(f"{{{{ 'a' * {MAX_RENDERED_CHARACTERS} }}}}")) == MAX_RENDERED_CHARACTERS
