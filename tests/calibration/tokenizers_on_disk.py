"""Small tokenizers of the kinds that models have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests import tiny_models
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

SENTENCES = [
    "the cat sat on the mat and looked at the other cat",
    "naïve café größe déjà 東京 Москва 123 4567 don't it's",
    "one, two; three: four. Five! Six? (seven)",
] * 20
SPECIAL = ["<unk>", "<s>", "</s>"]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}\n"
    "  {%- if message['role'] not in ['user', 'assistant', 'system'] %}\n"
    "    {{ raise_exception('Unknown role ' + message['role']) }}\n"
    "  {%- endif %}\n"
    "[{{ message['role'] | upper }}] "
    "{% generation %}{{ message['content'] | trim }}{% endgeneration %}{{ eos_token }}\n"
    "{% if loop.index > 100 %}{% break %}{% endif %}"
    "{% endfor %}\n"
    "{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}"
    "{% if add_generation_prompt %}[ASSISTANT] {% endif %}"
)


def write_byte_level(folder: Path, **config: Any) -> Path:
    """GPT-2's kind: no special token is added."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny_models.write_tokenizer(folder)
    return configure(folder, **config)


def write_metaspace(folder: Path, *, single: str | None = "<s> $A", **config: Any) -> Path:
    """Llama 2's kind; ``single`` is the template of its post-processor."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))  # noqa: S106 - no password
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    if single is not None:
        ids = [(token, tokenizer.token_to_id(token)) for token in SPECIAL]
        tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
    # What is stored is no instruction: transformers' users ask for padding in each call.
    tokenizer.enable_truncation(7)
    tokenizer.save(str(folder / "tokenizer.json"))
    base = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": {"content": "<s>", "__type": "AddedToken"},
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(base))
    return configure(folder, **config)


def configure(folder: Path, **config: Any) -> Path:
    """Changes tokenizer_config.json."""
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder
