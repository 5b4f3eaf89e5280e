"""Token tables: llama.cpp splits text as the tokenizer's own library does."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.methods import gguf_files, gguf_models

from quantd_server.errors import Severity
from quantd_server.methods.gguf import pre_tokenizers, sentencepiece_model, vocabulary
from quantd_server.methods.gguf.description import float32, uint32
from quantd_server.methods.gguf.tokenizer import describe_tokenizer
from quantd_server.methods.gguf.tokenizer_files import TokenizerFiles, read_tokenizer_files

BYTE_LEVEL_SIZE = 520
SENTENCEPIECE_SIZE = 610
"""A few more than the tokens: models pad their embeddings."""


def described(folder, size, config=None):
    files, broken = read_tokenizer_files(folder)
    assert not broken
    return describe_tokenizer(files, config or {}, size)


def reasons(description):
    return [(f.reason, f.severity) for f in description.findings]


def entry(description, key):
    return next((e.value for e in description.metadata if e.key == key), None)


def write_vocabulary(path, description):
    metadata = [
        uint32("llama.block_count", 1),
        uint32("llama.context_length", 8),
        uint32("llama.embedding_length", 8),
        uint32("llama.feed_forward_length", 8),
        uint32("llama.attention.head_count", 1),
        float32("llama.attention.layer_norm_rms_epsilon", 1e-5),
        *description.metadata,
    ]
    gguf_files.write(path, "llama", metadata, [], 0)
    return path


def component(form):
    """The pre_tokenizer of tokenizer.json that has this canonical form."""

    def step(kind, *details):
        if kind == "split":
            return {
                "type": "Split",
                "pattern": {"Regex": details[0]},
                "behavior": "Isolated",
                "invert": False,
            }
        if kind == "digits":
            return {"type": "Digits", "individual_digits": details[0] == "individual"}
        return {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": details[0] == "regex",
        }

    steps = [step(*s) for s in form]
    return steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}


def byte_level_folder(folder, rule, **options):
    gguf_models.train_byte_level(folder, component(rule.form), **options)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["ignore_merges"] = rule.ignore_merges
    path.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("rule", pre_tokenizers.RULES, ids=lambda rule: rule.name)
def test_each_pre_tokenizer_splits_as_the_tokenizers_library(tmp_path, rule):
    from tokenizers import Tokenizer

    folder = byte_level_folder(tmp_path, rule, bos="<|im_start|>")
    oracle = Tokenizer.from_file(str(folder / "tokenizer.json"))
    description = described(folder, BYTE_LEVEL_SIZE)
    assert not description.findings
    assert entry(description, "tokenizer.ggml.pre") == rule.name
    path = write_vocabulary(tmp_path / "vocabulary.gguf", description)
    with gguf_files.llama().open(path, vocab_only=True) as model:
        assert model.vocab_size == BYTE_LEVEL_SIZE
        assert model.adds_bos
        for text in [*gguf_models.TEXTS, "<|im_start|>user <tool>x<|im_end|>\n", "你好123，world"]:
            assert model.tokenize(text) == oracle.encode(text).ids, text


def test_byte_level_table(tmp_path):
    folder = byte_level_folder(tmp_path, pre_tokenizers.RULES[0])
    description = described(folder, BYTE_LEVEL_SIZE)
    tokens = entry(description, "tokenizer.ggml.tokens")
    types = entry(description, "tokenizer.ggml.token_type")
    assert types[tokens.index("<|im_end|>")] == vocabulary.CONTROL
    assert types[tokens.index("<tool>")] == vocabulary.USER_DEFINED
    assert types[tokens.index("Ġthe")] == vocabulary.NORMAL
    assert tokens[-1] == f"[PAD{BYTE_LEVEL_SIZE - 1}]"
    assert types[-1] == vocabulary.UNUSED
    assert entry(description, "tokenizer.ggml.bos_token_id") == 0
    assert entry(description, "tokenizer.ggml.eos_token_id") == 2
    assert entry(description, "tokenizer.ggml.padding_token_id") == 0
    assert entry(description, "tokenizer.ggml.add_bos_token") is False


@pytest.mark.parametrize("prefix", [True, False])
def test_tokenizer_model_splits_as_sentencepiece(tmp_path, prefix):
    import sentencepiece

    path = gguf_models.train_sentencepiece(tmp_path, add_dummy_prefix=prefix)
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(path))
    description = described(tmp_path, SENTENCEPIECE_SIZE, {"bos_token_id": 1, "eos_token_id": [2]})
    assert not description.findings
    written = write_vocabulary(tmp_path / "vocabulary.gguf", description)
    with gguf_files.llama().open(written, vocab_only=True) as model:
        assert (model.bos, model.eos, model.adds_bos) == (1, 2, True)
        for text in gguf_models.TEXTS:
            assert model.tokenize(text, add_special=False) == oracle.encode(text), text


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("metaspace", [True, False])
def test_tokenizer_json_gives_the_scores_back(tmp_path, prefix, metaspace):
    """Without tokenizer.model: only the order of the scores matters, and it is kept."""
    folder = sentencepiece_json(tmp_path, prefix=prefix, metaspace=metaspace)
    from tokenizers import Tokenizer

    oracle = Tokenizer.from_file(str(folder / "tokenizer.json"))
    description = described(folder, SENTENCEPIECE_SIZE)
    assert not description.findings
    assert entry(description, "tokenizer.ggml.add_space_prefix") is prefix
    written = write_vocabulary(tmp_path / "vocabulary.gguf", description)
    with gguf_files.llama().open(written, vocab_only=True) as model:
        for text in gguf_models.TEXTS:
            # Metaspace adds no prefix before a space, unlike SentencePiece and llama.cpp.
            if text and not (prefix and metaspace and text.startswith(" ")):
                assert model.tokenize(text, add_special=False) == oracle.encode(text).ids, text


def sentencepiece_json(folder, *, prefix, metaspace):
    """tokenizer.json of a SentencePiece model, as transformers writes it."""
    path = gguf_models.train_sentencepiece(folder, add_dummy_prefix=prefix)
    model = sentencepiece_model.parse(path.read_bytes())
    path.unlink()
    scores = {p.text: p.score for p in model.pieces if p.type == sentencepiece_model.NORMAL}
    merges = [
        (scores[text], cut, [text[:cut], text[cut:]])
        for text in scores
        for cut in range(1, len(text))
        if text[:cut] in scores and text[cut:] in scores
    ]
    merges.sort(key=lambda merge: (-merge[0], merge[1]))
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    prepend = {"type": "Prepend", "prepend": "▁"}
    content = {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": t, "special": True, "single_word": False, "lstrip": False}
            | {"rstrip": False, "normalized": False}
            for i, t in enumerate(["<unk>", "<s>", "</s>"])
        ],
        "normalizer": None
        if metaspace
        else {"type": "Sequence", "normalizers": [prepend, spaces]}
        if prefix
        else spaces,
        "pre_tokenizer": {
            "type": "Metaspace",
            "replacement": "▁",
            "prepend_scheme": "always" if prefix else "never",
            "split": False,
        }
        if metaspace
        else None,
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {p.text: i for i, p in enumerate(model.pieces)},
            "merges": [pair for _, _, pair in merges],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


def test_user_defined_pieces_and_added_tokens(tmp_path):
    """Gemma's way: runs of spaces and turn markers are tokens of their own."""
    import sentencepiece

    path = gguf_models.train_sentencepiece(
        tmp_path, add_dummy_prefix=False, user_defined_symbols=["<turn>", "▁▁", "\n\n"]
    )
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(path))
    added = [{"id": oracle.piece_to_id("▁▁"), "content": "▁▁", "special": False}]
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"added_tokens_decoder": {str(a["id"]): a for a in added}})
    )
    description = described(tmp_path, SENTENCEPIECE_SIZE)
    tokens = entry(description, "tokenizer.ggml.tokens")
    assert tokens[added[0]["id"]] == "  "
    written = write_vocabulary(tmp_path / "vocabulary.gguf", description)
    with gguf_files.llama().open(written, vocab_only=True) as model:
        for text in ["<turn>the time\n\nof", "a  b", "they  were<turn>\n\n"]:
            assert model.tokenize(text, add_special=False) == oracle.encode(text), text


def test_sentencepiece_reader_agrees_with_sentencepiece(tmp_path):
    import sentencepiece

    path = gguf_models.train_sentencepiece(tmp_path, user_defined_symbols=["<turn>"])
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(path))
    model = sentencepiece_model.parse(path.read_bytes())
    assert len(model.pieces) == oracle.get_piece_size()
    assert model.model_type == sentencepiece_model.BPE
    assert model.add_dummy_prefix
    assert not model.remove_extra_whitespaces
    assert not model.has_normalization_rules
    for index, piece in enumerate(model.pieces):
        assert piece.text == oracle.id_to_piece(index)
        assert piece.score == oracle.get_score(index)
        assert (piece.type == vocabulary.CONTROL) == oracle.is_control(index)
        assert (piece.type == vocabulary.UNKNOWN) == oracle.is_unknown(index)
        assert (piece.type == vocabulary.BYTE) == oracle.is_byte(index)


@settings(max_examples=300)
@given(raw=st.binary(max_size=200))
@example(raw=b"\x0a\x05\x0a\x03abc\x0a")
def test_damaged_models_are_findings(raw):
    description = describe_tokenizer(TokenizerFiles(sentencepiece=raw), {}, 10)
    assert any(f.severity is Severity.ERROR for f in description.findings)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 600) | st.floats() | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "model", "vocab", "merges", "added_tokens", "id", "content", "normalizers"]
                + ["pre_tokenizer", "pretokenizers", "post_processor", "single", "SpecialToken"]
            ),
            children,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_odd_tokenizer_files_never_raise(data):
    content = {
        "model": {
            "type": "BPE",
            "byte_fallback": data.draw(st.booleans()),
            "vocab": data.draw(json_values),
            "merges": data.draw(json_values),
        },
        "added_tokens": data.draw(json_values),
        "pre_tokenizer": data.draw(
            st.sampled_from([component((pre_tokenizers.GPT2,)), None]) | json_values
        ),
        "normalizer": data.draw(json_values),
        "post_processor": data.draw(json_values),
    }
    config = {
        "bos_token": data.draw(json_values),
        "added_tokens_decoder": data.draw(json_values),
        "chat_template": data.draw(json_values),
    }
    files = TokenizerFiles(tokenizer_json=content, tokenizer_config=config)
    describe_tokenizer(files, {"eos_token_id": data.draw(json_values)}, 16)


def test_an_unknown_pre_tokenizer_is_refused(tmp_path):
    odd = component((("split", "\\w+"), pre_tokenizers.BYTE_LEVEL))
    gguf_models.train_byte_level(tmp_path, odd)
    description = described(tmp_path, BYTE_LEVEL_SIZE)
    assert reasons(description) == [("TOKENIZER_PRETOKENIZER_UNKNOWN", Severity.ERROR)]
    assert "\\\\w+" in description.findings[0].message
    assert not description.metadata


def test_a_missing_tokenizer_is_an_error(tmp_path):
    assert reasons(described(tmp_path, 8)) == [("TOKENIZER_MISSING", Severity.ERROR)]


def test_a_unigram_model_is_refused(tmp_path):
    gguf_models.train_sentencepiece(tmp_path, model_type="unigram", vocab_size=400)
    assert reasons(described(tmp_path, 400)) == [("TOKENIZER_MODEL_UNSUPPORTED", Severity.ERROR)]


def test_a_model_without_byte_tokens_is_refused(tmp_path):
    gguf_models.train_sentencepiece(tmp_path, byte_fallback=False)
    assert reasons(described(tmp_path, 600)) == [("TOKENIZER_BYTE_TOKENS_MISSING", Severity.ERROR)]


def test_normalization_is_reported(tmp_path):
    gguf_models.train_sentencepiece(tmp_path, normalization_rule_name="nmt_nfkc")
    assert reasons(described(tmp_path, 610)) == [
        ("TOKENIZER_NORMALIZATION_IGNORED", Severity.WARNING)
    ]


def test_tokens_beyond_the_embedding_are_reported(tmp_path):
    gguf_models.train_sentencepiece(tmp_path)
    assert ("TOKENIZER_TOKENS_WITHOUT_ROW", Severity.WARNING) in reasons(described(tmp_path, 500))


def test_merges_that_scores_cannot_order_are_reported(tmp_path):
    folder = sentencepiece_json(tmp_path, prefix=True, metaspace=False)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    del content["model"]["merges"][3]
    path.write_text(json.dumps(content))
    assert reasons(described(folder, SENTENCEPIECE_SIZE)) == [
        ("TOKENIZER_MERGES_APPROXIMATED", Severity.WARNING)
    ]


def test_duplicate_texts_are_refused(tmp_path):
    """llama.cpp aborts the process on them."""
    gguf_models.train_sentencepiece(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"added_tokens_decoder": {"605": {"content": "<s>"}}})
    )
    assert reasons(described(tmp_path, 610)) == [("TOKENIZER_DUPLICATE_TOKENS", Severity.ERROR)]


def test_broken_json_is_a_finding(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    _, broken = read_tokenizer_files(tmp_path)
    assert [f.reason for f in broken] == ["JSON_INVALID"]


def test_chat_templates(tmp_path):
    folder = byte_level_folder(tmp_path, pre_tokenizers.RULES[0])
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["chat_template"] = [
        {"name": "default", "template": "{{ a }}"},
        {"name": "tool use", "template": "{{ b }}"},
    ]
    path.write_text(json.dumps(config))
    description = described(folder, BYTE_LEVEL_SIZE)
    assert entry(description, "tokenizer.chat_template") == "{{ a }}"
    assert entry(description, "tokenizer.chat_template.tool_use") == "{{ b }}"
    assert entry(description, "tokenizer.chat_templates") == ["tool_use"]
    (folder / "chat_template.jinja").write_text("{{ c }}")
    description = described(folder, BYTE_LEVEL_SIZE)
    assert entry(description, "tokenizer.chat_template") == "{{ c }}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("class_name", "options"),
    [
        ("LlamaTokenizer", {}),
        (
            "GemmaTokenizer",
            {
                "add_dummy_prefix": False,
                "pad_id": 0,
                "eos_id": 1,
                "bos_id": 2,
                "unk_id": 3,
                "user_defined_symbols": ["<start_of_turn>", "▁▁", "\n\n"],
            },
        ),
    ],
)
def test_files_that_transformers_saves(tmp_path, class_name, options):
    """Current transformers writes tokenizer.json only, whatever the tokenizer came from."""
    import transformers

    gguf_models.train_sentencepiece(tmp_path, **options)
    saved = tmp_path / "saved"
    getattr(transformers, class_name).from_pretrained(tmp_path).save_pretrained(saved)
    assert not (saved / "tokenizer.model").exists()
    oracle = transformers.AutoTokenizer.from_pretrained(saved)
    description = described(saved, SENTENCEPIECE_SIZE)
    assert all(f.severity is Severity.INFO for f in description.findings)
    tokens = entry(description, "tokenizer.ggml.tokens")
    types = entry(description, "tokenizer.ggml.token_type")
    assert types[tokens.index("<unk>")] == vocabulary.UNKNOWN
    written = write_vocabulary(tmp_path / "vocabulary.gguf", description)
    prefixed = class_name == "LlamaTokenizer"
    with gguf_files.llama().open(written, vocab_only=True) as model:
        for text in [*gguf_models.TEXTS, "of<start_of_turn>the\n\nx  y"]:
            if text and not (prefixed and text.startswith(" ")):
                assert model.tokenize(text) == oracle(text)["input_ids"], text


@pytest.mark.slow
def test_the_tokenizer_of_qwen2_in_transformers_is_known():
    import transformers

    qwen = transformers.Qwen2Tokenizer(vocab={"a": 0, "<|endoftext|>": 1}, merges=[])
    content = json.loads(qwen.backend_tokenizer.to_str())
    assert pre_tokenizers.name_of(content) == "qwen2"


def test_tokens_that_swallow_spaces_are_reported(tmp_path):
    folder = byte_level_folder(tmp_path, pre_tokenizers.RULES[0])
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["added_tokens"][2]["rstrip"] = True
    path.write_text(json.dumps(content))
    ignored = ("TOKENIZER_STRIPPING_IGNORED", Severity.WARNING)
    assert reasons(described(folder, BYTE_LEVEL_SIZE)) == [ignored]
    phi = {"_name_or_path": "microsoft/Phi-3-mini-4k-instruct"}
    assert not described(folder, BYTE_LEVEL_SIZE, phi).findings
