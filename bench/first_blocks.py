"""A checkpoint of the first decoder blocks of a model, where the whole would take too long."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file


def write_first_blocks(model: Path, folder: Path, count: int) -> Path:
    """Writes ``folder``: all that is outside the blocks of ``model``, and ``count`` of these.

    ``model``: a checkpoint of the Llama family in one file.
    """
    folder.mkdir(parents=True)
    config = json.loads((model / "config.json").read_text()) | {"num_hidden_layers": count}
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((model / name).read_bytes())
    kept = {}
    with safe_open(model / "model.safetensors", "pt") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            parts = name.split(".")
            if parts[1] != "layers" or int(parts[2]) < count:
                kept[name] = file.get_tensor(name)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    return folder
