"""Opening a Hugging Face checkpoint: a folder with ``config.json`` and safetensors files."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from quantd_server.checkpoint.carried_files import MAX_CARRIED_BYTES, carried_files
from quantd_server.checkpoint.safetensors_header import TensorEntry, read_header
from quantd_server.checkpoint.safetensors_layout import INDEX_FILE, SINGLE_FILE
from quantd_server.checkpoint.source_file import contained_path, read_json_object
from quantd_server.errors import CheckpointError, FindingKind, quoted

MAX_CONFIG_BYTES = 4 << 20
MAX_INDEX_BYTES = 64 << 20
MAX_SHARDS = 10_000
MAX_CHECKPOINT_TENSORS = 1_000_000
MAX_FOLDER_ENTRIES = 50_000

_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors\Z")
_PICKLE = re.compile(r".*\.(bin|pt|pth|pkl|ckpt)\Z")


class HuggingFaceCheckpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What the headers of a Hugging Face checkpoint say. Holds a Path: it stays in its process."""

    directory: Path
    config: dict[str, Any]
    tensors: dict[str, TensorEntry]
    """By name, file after file."""
    files: tuple[str, ...]
    """The safetensors files."""
    total_bytes: int
    """Size of these files."""
    carried_files: tuple[str, ...]
    """Tokenizer, generation and licence files that belong into an output, sorted."""
    quantization_config: dict[str, Any] | None
    """Set when the checkpoint is already quantized."""

    @property
    def model_type(self) -> str:
        return str(self.config["model_type"])


def open_huggingface(directory: Path) -> HuggingFaceCheckpoint:
    """Reads ``config.json``, the index and every header below ``directory``; no weights.

    Raises CheckpointError with one of the reasons of ``read_json_object`` and ``read_header`` or:
    SOURCE_NOT_FOUND, NOT_A_DIRECTORY, FOLDER_UNREADABLE, FOLDER_TOO_LARGE, CONFIG_MISSING,
    CONFIG_INVALID, MODEL_TYPE_MISSING, NO_WEIGHTS, PICKLE_ONLY, ADAPTER_ONLY, GGUF_IN_FOLDER,
    INDEX_MISSING, INDEX_INVALID, SHARD_MISSING, TENSOR_MISSING, TENSOR_IN_TWO_FILES,
    TOO_MANY_TENSORS.
    """
    names = list_folder(directory)
    config = _read_config(directory, names)
    files, expected = _weight_files(directory, names)
    tensors: dict[str, TensorEntry] = {}
    total_bytes = 0
    for file in files:
        header = read_header(directory / file)
        total_bytes += header.file_size
        for name, entry in header.tensors.items():
            if name in tensors:
                raise _unusable(
                    "TENSOR_IN_TWO_FILES",
                    f"tensor {quoted(name)} is in {quoted(tensors[name].file)} and {quoted(file)}",
                )
            tensors[name] = entry
        if len(tensors) > MAX_CHECKPOINT_TENSORS:
            raise _unusable("TOO_MANY_TENSORS", f"it has over {MAX_CHECKPOINT_TENSORS} tensors")
    for name, file in expected.items():
        if name not in tensors or tensors[name].file != file:
            fault = f"{INDEX_FILE} says that {quoted(file)} holds {quoted(name)}, which it does not"
            raise _unusable("TENSOR_MISSING", fault)
    if not tensors:
        raise _unusable("NO_WEIGHTS", "its safetensors files hold no tensors")
    return HuggingFaceCheckpoint(
        directory=directory,
        config=config,
        tensors=tensors,
        files=files,
        total_bytes=total_bytes,
        carried_files=_carried(directory, names),
        quantization_config=_quantization_config(config),
    )


def list_folder(directory: Path) -> set[str]:
    """Names in ``directory``, without looking into its folders."""
    names: set[str] = set()
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                names.add(entry.name)
                if len(names) > MAX_FOLDER_ENTRIES:
                    raise _unusable("FOLDER_TOO_LARGE", f"it has over {MAX_FOLDER_ENTRIES} entries")
    except FileNotFoundError:
        raise _unusable("SOURCE_NOT_FOUND", "it does not exist", kind="not_found") from None
    except NotADirectoryError:
        fault = "it is a file; a folder with config.json is needed"
        raise _unusable("NOT_A_DIRECTORY", fault) from None
    except OSError as error:
        fault = f"it cannot be listed: {os.strerror(error.errno or 0)}"
        raise _unusable("FOLDER_UNREADABLE", fault, kind="precondition") from None
    return names


def _read_config(directory: Path, names: set[str]) -> dict[str, Any]:
    if "config.json" not in names:
        if "adapter_config.json" in names:
            raise _unusable(
                "ADAPTER_ONLY",
                "it holds an adapter (LoRA), not a model",
                "merge the adapter into its base model and save that",
            )
        if any(name.endswith(".gguf") for name in names):
            raise _gguf_in_folder()
        raise _unusable("CONFIG_MISSING", "it has no config.json", kind="not_found")
    config = read_json_object(directory, "config.json", MAX_CONFIG_BYTES)
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise _unusable("MODEL_TYPE_MISSING", "its config.json does not name a model_type")
    for key in ("quantization_config", "text_config"):
        if not isinstance(config.get(key), dict | None):
            raise _unusable("CONFIG_INVALID", f"in its config.json, {key} is not an object")
    return config


def _weight_files(directory: Path, names: set[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The safetensors files, and the file that each tensor must be in as far as an index says.

    A single file goes before an index, as in transformers (``_get_resolved_checkpoint_files``).
    """
    if SINGLE_FILE in names:
        return (SINGLE_FILE,), {}
    if INDEX_FILE in names:
        weight_map = _read_index(directory, names)
        return tuple(sorted(set(weight_map.values()))), weight_map
    if any(map(_SHARD.match, names)):
        raise _unusable("INDEX_MISSING", f"it has shards but no {INDEX_FILE}", kind="not_found")
    if any(name.endswith(".gguf") for name in names):
        raise _gguf_in_folder()
    if "adapter_model.safetensors" in names:
        raise _unusable("ADAPTER_ONLY", "it holds an adapter (LoRA), not a model")
    if any(map(_PICKLE.match, names)):
        raise _unusable(
            "PICKLE_ONLY",
            "its weights are pickles, which can run code when opened; only safetensors are read",
            "load it where you trust it and save it with save_pretrained, which writes safetensors",
        )
    raise _unusable(
        "NO_WEIGHTS", f"it has neither {SINGLE_FILE} nor {INDEX_FILE}", kind="not_found"
    )


def _read_index(directory: Path, names: set[str]) -> dict[str, str]:
    index = read_json_object(directory, INDEX_FILE, MAX_INDEX_BYTES)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise _unusable("INDEX_INVALID", f"{INDEX_FILE} has no weight_map")
    if not all(isinstance(file, str) and file for file in weight_map.values()):
        raise _unusable(
            "INDEX_INVALID", f"the weight_map of {INDEX_FILE} does not map names to files"
        )
    files = set(weight_map.values())
    if len(files) > MAX_SHARDS:
        raise _unusable("INDEX_INVALID", f"{INDEX_FILE} names over {MAX_SHARDS} files")
    for file in sorted(files):
        contained_path(directory, file)
        if len(PurePosixPath(file).parts) != 1 or not file.endswith(".safetensors"):
            raise _unusable(
                "INDEX_INVALID", f"{INDEX_FILE} names {quoted(file)}, not a safetensors file"
            )
        if file not in names:
            raise _unusable("SHARD_MISSING", f"{quoted(file)} is missing", kind="not_found")
    return weight_map


def _carried(directory: Path, names: set[str]) -> tuple[str, ...]:
    """Those that can be copied: regular files of a sane size that lie in the folder."""
    kept = []
    for name in carried_files(names):
        try:
            status = contained_path(directory, name).stat()
        except OSError:
            continue  # A dangling link.
        if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_CARRIED_BYTES:
            kept.append(name)
    return tuple(kept)


def _quantization_config(config: dict[str, Any]) -> dict[str, Any] | None:
    """Also where multimodal and compressed-tensors checkpoints keep it."""
    text_config = config.get("text_config") or {}
    for holder, key in (
        (config, "quantization_config"),
        (text_config, "quantization_config"),
        (config, "compression_config"),
    ):
        found = holder.get(key)
        if isinstance(found, dict):
            return found
    return None


def _gguf_in_folder() -> CheckpointError:
    return _unusable(
        "GGUF_IN_FOLDER",
        "it is a folder of GGUF files, not a Hugging Face checkpoint",
        "let source_uri name the .gguf file itself",
    )


def _unusable(
    reason: str,
    fault: str,
    remedy: str = "download the complete checkpoint again, or export it with save_pretrained",
    kind: FindingKind = "precondition",
) -> CheckpointError:
    return CheckpointError(
        reason=reason, message=f"the source cannot be used: {fault}", remedy=remedy, kind=kind
    )
