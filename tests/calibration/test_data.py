"""From configurations to token sequences."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys

import msgspec
import pytest
from tests.calibration import tokenizers_on_disk as on_disk
from tests.quantizing import real_model

from quantd_server.calibration import data, texts
from quantd_server.calibration.config import CalibrationConfig, EvaluationConfig
from quantd_server.calibration.data import read_calibration, read_evaluation
from quantd_server.calibration.resolution import resolve_calibration, resolve_evaluation
from quantd_server.errors import QuantdError, Severity

WORDS = ["the cat sat", "on the mat", "one, two; three: four?", "don't look at the other, five!"]


@pytest.fixture
def folder(tmp_path):
    return on_disk.write_metaspace(tmp_path / "model")


def read(folder, config=None, *, paths=None, **fields):
    given = msgspec.convert(dict(config or {}) | fields, CalibrationConfig)
    return read_calibration(resolve_calibration(given, 0), folder, paths or {})


def evaluated(folder, **fields):
    given = msgspec.convert(fields, EvaluationConfig)
    return read_evaluation(resolve_evaluation(given, 0), folder, {})


def refused(folder, **fields) -> str:
    with pytest.raises(QuantdError) as caught:
        read(folder, **fields)
    assert caught.value.remedy
    return caught.value.reason


def in_texts(*values):
    return {"texts": {"texts": values}}


def ids_of(folder, text, **options):
    import transformers

    return transformers.AutoTokenizer.from_pretrained(folder)(text, **options).input_ids


def test_texts_are_joined_by_blank_lines_and_cut(folder):
    found = read(folder, in_texts(*WORDS), sequence_length=8, num_samples=1000)
    ids = ids_of(folder, "\n\n".join(WORDS), add_special_tokens=False)
    expected = [[1, *ids[at : at + 7]] for at in range(0, len(ids) - 6, 7)]
    assert sorted(map(list, found.sequences)) == sorted(expected)
    assert (found.usage.samples_requested, found.usage.samples_usable) == (1000, len(expected))
    assert found.usage.tokens == 8 * len(expected)


def test_each_text_gives_one_sequence_as_transformers_cuts_it(folder):
    long_enough = [text for text in WORDS if len(ids_of(folder, text)) >= 9]
    assert 0 < len(long_enough) < len(WORDS)
    found = read(folder, in_texts(*WORDS), sequence_length=9, num_samples=2, packing="TRUNCATE")
    expected = [ids_of(folder, text, truncation=True, max_length=9) for text in long_enough]
    assert sorted(map(list, found.sequences)) == sorted(expected)
    (dropped,) = [one for one in found.findings if one.reason == "SHORT_TEXTS_DROPPED"]
    assert f"{len(WORDS) - len(long_enough)} of {len(WORDS)}" in dropped.message


def test_a_text_is_a_message_of_the_user(folder):
    import transformers

    (folder / "chat_template.jinja").write_text(on_disk.CHAT_TEMPLATE)
    oracle = transformers.AutoTokenizer.from_pretrained(folder)
    expected = [
        oracle.apply_chat_template([{"role": "user", "content": text}], return_dict=False)
        for text in WORDS
    ]
    options = {"sequence_length": 12, "apply_chat_template": True}
    found = read(folder, in_texts(*WORDS), packing="TRUNCATE", **options)
    assert sorted(map(list, found.sequences)) == sorted(ids[:12] for ids in expected)
    found = read(folder, in_texts(*WORDS), **options)
    ids, expected_cut = [id_ for conversation in expected for id_ in conversation], []
    while len(ids) >= 12:
        sequence = ids[:12] if ids[0] == 1 else [1, *ids[:11]]
        expected_cut.append(sequence)
        ids = ids[12 if ids[0] == 1 else 11 :]
    assert sorted(map(list, found.sequences)) == sorted(expected_cut)


def test_messages_of_a_file(folder, tmp_path):
    import transformers

    (folder / "chat_template.jinja").write_text(on_disk.CHAT_TEMPLATE)
    path = tmp_path / "chat.jsonl"
    talk = [{"role": "user", "content": "the cat?"}, {"role": "assistant", "content": "the mat"}]
    path.write_text(json.dumps({"messages": talk}) + "\n\n" + json.dumps({"messages": "the cat"}))
    found = read(
        folder,
        file={"uri": "u"},
        paths={"u": str(path)},
        apply_chat_template=True,
        packing="TRUNCATE",
        sequence_length=8,
    )
    oracle = transformers.AutoTokenizer.from_pretrained(folder)
    expected = [
        oracle.apply_chat_template(messages, return_dict=False)[:8]
        for messages in (talk, [{"role": "user", "content": "the cat"}])
    ]
    assert sorted(map(list, found.sequences)) == sorted(expected)


def test_the_same_texts_from_anywhere_give_the_same_tokens(folder, tmp_path):
    options = {"sequence_length": 8, "num_samples": 3, "seed": 5}
    (tmp_path / "t.txt").write_text("\n\n\n".join(WORDS) + "\n")
    lines = [json.dumps({"text": word, "body": word}) for word in WORDS]
    (tmp_path / "t.jsonl").write_text("\r\n".join(lines))
    expected = read(folder, in_texts(*WORDS), **options)
    for name, field in (("t.txt", None), ("t.jsonl", None), ("t.jsonl", "body")):
        file = {"uri": "u", "json_field": field}
        found = read(folder, file=file, paths={"u": str(tmp_path / name)}, **options)
        assert found == expected


def test_tokens_are_used_as_they_are(tmp_path):
    given = [[5, 6, 7], [1] * 20, [2**32 - 1]]
    config = {"tokens": {"sequences": [{"ids": ids} for ids in given]}}
    found = read(tmp_path, config)  # no tokenizer is needed
    assert sorted(map(list, found.sequences)) == sorted(given)
    assert found.usage.samples_requested == 3
    assert not found.findings
    assert len(read(tmp_path, config, num_samples=2).sequences) == 2
    (finding,) = read(tmp_path, config, num_samples=4).findings
    assert finding.reason == "TOO_FEW_SAMPLES"
    # In their order when they are to measure with.
    sequences = evaluated(tmp_path, **config).sequences
    assert list(map(list, sequences)) == given


def test_the_digest(tmp_path):
    given = [[5, 6, 7], [2**32 - 1, 0]]
    found = read(tmp_path, {"tokens": {"sequences": [{"ids": ids} for ids in given]}})
    flat = [id_ for sequence in found.sequences for id_ in sequence]
    assert found.usage.sha256 == hashlib.sha256(struct.pack("<5I", *flat)).hexdigest()


def test_the_seed_chooses(folder):
    text = in_texts(*[f"the cat {number} sat" for number in range(400)])
    options = {"sequence_length": 16, "num_samples": 8}
    first, again, other = (read(folder, text, seed=seed, **options) for seed in (0, 0, 1))
    assert first == again
    assert first.usage.sha256 != other.usage.sha256


def test_an_evaluation_reads_from_the_beginning(folder):
    values = [f"the cat {number} sat" for number in range(400)]
    found = evaluated(folder, **in_texts(*values), sequence_length=16, num_samples=3)
    ids = ids_of(folder, "\n\n".join(values), add_special_tokens=False)
    expected = [[1, *ids[at : at + 15]] for at in range(0, 45, 15)]
    assert list(map(list, found.sequences)) == expected


def test_many_texts_are_tokenized_in_stretches_without_loss():
    values = [f"{number} " * 1000 for number in range(100)]
    stretches = list(data.joined(values))
    assert len(stretches) > 3
    assert "".join(stretches) == "\n\n".join(values)
    assert list(data.joined([])) == []


def test_a_large_file_is_read_in_parts(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "MIN_READ_BYTES", 20_000)
    path = tmp_path / "t.txt"
    path.write_text("\n\n".join(f"the cat {number} sat" for number in range(10_000)))
    config = {"file": {"uri": "u"}, "num_samples": 20, "sequence_length": 16}
    found = read(folder, config, paths={"u": str(path)})
    assert [finding.reason for finding in found.findings] == ["TEXT_READ_IN_PARTS"]
    assert found.usage.samples_usable == 20
    assert found == read(folder, config, paths={"u": str(path)})


@pytest.mark.parametrize(
    ("lines", "reason", "told"),
    [
        (['{"text": "a"}', "", "{"], "JSON_LINE_INVALID", "line 3"),
        (["[" * 100_000], "JSON_LINE_INVALID", "line 1"),
        (['{"text": "a"}', '{"txt": "b"}'], "JSON_FIELD_INVALID", "line 2"),
        (['["text"]'], "JSON_FIELD_INVALID", "line 1"),
        (['{"text": 7}'], "JSON_FIELD_INVALID", "line 1"),
        (['{"text": null}'], "JSON_FIELD_INVALID", "line 1"),
        ([r'{"text": "\ud800"}'], "JSON_LINE_INVALID", "line 1"),
        (['{"text": [{"role": "user", "content": "a"}]}'], "JSON_FIELD_INVALID", "line 1"),
    ],
)
def test_json_lines_that_are_wrong(folder, tmp_path, lines, reason, told):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(QuantdError) as caught:
        read(folder, file={"uri": "u"}, paths={"u": str(path)})
    assert caught.value.reason == reason
    assert told in caught.value.message


@pytest.mark.parametrize("messages", [[], [1], [{"content": "a"}], {"role": "user"}, 7])
def test_messages_that_are_none(folder, tmp_path, messages):
    (folder / "chat_template.jinja").write_text(on_disk.CHAT_TEMPLATE)
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"messages": messages}))
    with pytest.raises(QuantdError) as caught:
        read(folder, file={"uri": "u"}, paths={"u": str(path)}, apply_chat_template=True)
    assert caught.value.reason == "JSON_FIELD_INVALID"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (r'"\ud800"', "JSON_LINE_INVALID"),
        ("7", "CHAT_TEMPLATE_FAILED"),
        ("[[]]", "CHAT_TEMPLATE_FAILED"),
        ("null", "CHAT_TEMPLATE_FAILED"),
    ],
)
def test_contents_that_are_odd(folder, tmp_path, content, reason):
    (folder / "chat_template.jinja").write_text("{{ messages[0].content + '' }}")
    path = tmp_path / "t.jsonl"
    path.write_text(f'{{"messages": [{{"role": "user", "content": {content}}}]}}')
    with pytest.raises(QuantdError) as caught:
        read(folder, file={"uri": "u"}, paths={"u": str(path)}, apply_chat_template=True)
    assert caught.value.reason == reason


def test_what_makes_data_useless(folder, tmp_path):
    assert refused(folder, **in_texts("the cat")) == "NO_SAMPLES"
    assert refused(folder, **in_texts(*WORDS * 9), packing="TRUNCATE") == "NO_SAMPLES"
    assert refused(folder, num_samples=65536, sequence_length=4096) == "TOO_MANY_TOKENS"
    assert refused(folder, apply_chat_template=True) == "CHAT_TEMPLATE_MISSING"
    assert refused(tmp_path) == "TOKENIZER_MISSING"


def test_the_defaults_are_those_of_the_spec():
    config = resolve_calibration(None, 8192)
    assert (config.num_samples, config.sequence_length, config.seed) == (128, 512, 0)
    assert (config.packing, config.apply_chat_template) == ("CONCATENATE", False)
    assert config.builtin is not None
    assert resolve_calibration(config, 8192) == config
    evaluation = resolve_evaluation(EvaluationConfig(), 8192)
    assert (evaluation.num_samples, evaluation.sequence_length) == (8, 512)
    assert resolve_calibration(None, 128).sequence_length == 128
    assert resolve_calibration(None, 0).sequence_length == 512


def test_nothing_built_in_is_in_both_parts():
    parts = [
        {line for line in path.read_text("utf-8").splitlines() if len(line) > 40}
        for path in (texts.CALIBRATION_TEXT, texts.EVALUATION_TEXT)
    ]
    assert not parts[0] & parts[1]
    assert all("gutenberg" not in line.lower() for part in parts for line in part)


@pytest.mark.slow
def test_the_built_in_text_is_enough_for_the_defaults():
    found = read(real_model())
    assert (found.usage.samples_usable, found.usage.tokens) == (128, 65536)
    assert not found.findings
    assert evaluated(real_model()).usage.samples_usable == 8


def test_data_is_read_without_what_is_heavy(folder):
    program = (
        "import sys; from pathlib import Path\n"
        "from quantd_server.calibration.data import read_calibration\n"
        "from quantd_server.calibration.resolution import resolve_calibration\n"
        "config = resolve_calibration(None, 64)\n"
        "print(read_calibration(config, Path(sys.argv[1]), {}).usage.tokens)\n"
        "print([name for name in ('torch', 'transformers', 'numpy', 'numba', 'gguf')"
        " if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [str(128 * 64), "[]"]


def test_severities(folder):
    found = read(folder, in_texts(*WORDS), sequence_length=8)
    (finding,) = found.findings
    assert (finding.reason, finding.severity) == ("TOO_FEW_SAMPLES", Severity.WARNING)
