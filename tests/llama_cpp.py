"""The reader that users run: llama.cpp's own library, for tests.

The prebuilt library comes from the npm package ``@node-llama-cpp/linux-x64`` (no compiler).

    python tests/llama_cpp.py --install DIR      # downloads it with npm
    QUANTD_LLAMA_CPP=DIR pytest tests/methods    # tests use it; without it they skip

``LlamaCpp`` wraps the C API of llama.cpp 0.5 (``include/llama.h``) with ctypes. The structures
below are checked against the values that llama.cpp's ``*_default_params`` functions promise, so
a library with another layout is refused instead of misread.
"""

from __future__ import annotations

import argparse
import ctypes as c
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ENVIRONMENT_VARIABLE = "QUANTD_LLAMA_CPP"
PACKAGE = "@node-llama-cpp/linux-x64@3.22.1"
LIBRARY_FOLDER = "node_modules/@node-llama-cpp/linux-x64/bins/linux-x64"

GGML_TYPE_F32 = 0
GGML_TYPE_COUNT_MINIMUM = 40
"""GGML_TYPE_COUNT, llama.cpp's "not set", lies above every type that this test suite knows."""
FTYPE_MOSTLY_Q8_0 = 7
FLASH_ATTENTION_DISABLED = 0
LOG_LEVELS = (3, 4)
"""Warnings and errors."""


class LlamaCppUnavailable(Exception):
    """llama.cpp cannot be used here; the text is the reason to show when a test is skipped."""


class ModelParams(c.Structure):
    _fields_ = [
        ("devices", c.c_void_p),
        ("tensor_buft_overrides", c.c_void_p),
        ("n_gpu_layers", c.c_int32),
        ("split_mode", c.c_int),
        ("load_mode", c.c_int),
        ("lazy_mode", c.c_int),
        ("main_gpu", c.c_int32),
        ("tensor_split", c.c_void_p),
        ("progress_callback", c.c_void_p),
        ("progress_callback_user_data", c.c_void_p),
        ("kv_overrides", c.c_void_p),
        ("vocab_only", c.c_bool),
        ("check_tensors", c.c_bool),
        ("use_extra_bufts", c.c_bool),
        ("no_host", c.c_bool),
        ("no_alloc", c.c_bool),
        ("load_mtp", c.c_bool),
    ]


class ContextParams(c.Structure):
    _fields_ = [
        ("n_ctx", c.c_uint32),
        ("n_batch", c.c_uint32),
        ("n_ubatch", c.c_uint32),
        ("n_seq_max", c.c_uint32),
        ("n_rs_seq", c.c_uint32),
        ("n_outputs_max", c.c_uint32),
        ("n_outputs_max_per_seq", c.c_uint32),
        ("n_threads", c.c_int32),
        ("n_threads_batch", c.c_int32),
        ("ctx_type", c.c_int),
        ("rope_scaling_type", c.c_int),
        ("pooling_type", c.c_int),
        ("attention_type", c.c_int),
        ("flash_attn_type", c.c_int),
        ("rope_freq_base", c.c_float),
        ("rope_freq_scale", c.c_float),
        ("yarn_ext_factor", c.c_float),
        ("yarn_attn_factor", c.c_float),
        ("yarn_beta_fast", c.c_float),
        ("yarn_beta_slow", c.c_float),
        ("yarn_orig_ctx", c.c_uint32),
        ("defrag_thold", c.c_float),
        ("cb_eval", c.c_void_p),
        ("cb_eval_user_data", c.c_void_p),
        ("type_k", c.c_int),
        ("type_v", c.c_int),
        ("abort_callback", c.c_void_p),
        ("abort_callback_data", c.c_void_p),
        ("embeddings", c.c_bool),
        ("offload_kqv", c.c_bool),
        ("no_perf", c.c_bool),
        ("op_offload", c.c_bool),
        ("swa_full", c.c_bool),
        ("kv_unified", c.c_bool),
        ("samplers", c.c_void_p),
        ("n_samplers", c.c_size_t),
        ("ctx_other", c.c_void_p),
    ]


class QuantizeParams(c.Structure):
    _fields_ = [
        ("nthread", c.c_int32),
        ("ftype", c.c_int),
        ("output_tensor_type", c.c_int),
        ("token_embedding_type", c.c_int),
        ("allow_requantize", c.c_bool),
        ("quantize_output_tensor", c.c_bool),
        ("only_copy", c.c_bool),
        ("pure", c.c_bool),
        ("keep_split", c.c_bool),
        ("dry_run", c.c_bool),
        ("imatrix", c.c_void_p),
        ("kv_overrides", c.c_void_p),
        ("tt_overrides", c.c_void_p),
        ("prune_layers", c.c_void_p),
        ("max_buf_size", c.c_size_t),
    ]


class TensorOverride(c.Structure):
    _fields_ = [("pattern", c.c_char_p), ("type", c.c_int)]


class ImatrixData(c.Structure):
    _fields_ = [("name", c.c_char_p), ("data", c.POINTER(c.c_float)), ("size", c.c_size_t)]


class Batch(c.Structure):
    _fields_ = [
        ("n_tokens", c.c_int32),
        ("token", c.POINTER(c.c_int32)),
        ("embd", c.c_void_p),
        ("pos", c.c_void_p),
        ("n_seq_id", c.c_void_p),
        ("seq_id", c.c_void_p),
        ("logits", c.c_void_p),
    ]


LOG_CALLBACK = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)


class LlamaCpp:
    """The loaded library. ``warnings`` holds its warnings and errors since the last call."""

    def __init__(self, folder: Path) -> None:
        libraries = folder / LIBRARY_FOLDER
        candidates = sorted(libraries.glob("libllama.*.so")) + sorted(libraries.glob("libllama.so"))
        if not candidates:
            raise LlamaCppUnavailable(f"no libllama in {ENVIRONMENT_VARIABLE}={folder}")
        for name in ("libggml-base.so", *(p.name for p in libraries.glob("libggml.*so"))):
            c.CDLL(str(libraries / name), mode=c.RTLD_GLOBAL)
        self._ggml = c.CDLL(str(next(libraries.glob("libggml.*so"))), mode=c.RTLD_GLOBAL)
        self._llama = c.CDLL(str(candidates[0]))
        self.warnings: list[str] = []
        self._declare()
        self._log_callback = LOG_CALLBACK(self._log)
        self._llama.llama_log_set(self._log_callback, None)
        self._ggml.ggml_backend_load_all_from_path(str(libraries).encode())
        self._llama.llama_backend_init()
        self._check_layout()

    def _log(self, level: int, text: bytes, _user_data: object) -> None:
        if level in LOG_LEVELS:
            self.warnings.append(text.decode("utf-8", "replace"))

    def _declare(self) -> None:
        lib = self._llama
        signatures: dict[str, tuple[object, list[object]]] = {
            "llama_backend_init": (None, []),
            "llama_log_set": (None, [LOG_CALLBACK, c.c_void_p]),
            "llama_model_default_params": (ModelParams, []),
            "llama_context_default_params": (ContextParams, []),
            "llama_model_quantize_default_params": (QuantizeParams, []),
            "llama_model_load_from_file": (c.c_void_p, [c.c_char_p, ModelParams]),
            "llama_model_free": (None, [c.c_void_p]),
            "llama_init_from_model": (c.c_void_p, [c.c_void_p, ContextParams]),
            "llama_free": (None, [c.c_void_p]),
            "llama_model_get_vocab": (c.c_void_p, [c.c_void_p]),
            "llama_vocab_n_tokens": (c.c_int32, [c.c_void_p]),
            "llama_vocab_bos": (c.c_int32, [c.c_void_p]),
            "llama_vocab_eos": (c.c_int32, [c.c_void_p]),
            "llama_vocab_get_add_bos": (c.c_bool, [c.c_void_p]),
            "llama_tokenize": (
                c.c_int32,
                [c.c_void_p, c.c_char_p, c.c_int32, c.POINTER(c.c_int32), c.c_int32]
                + [c.c_bool, c.c_bool],
            ),
            "llama_detokenize": (
                c.c_int32,
                [c.c_void_p, c.POINTER(c.c_int32), c.c_int32, c.c_char_p, c.c_int32]
                + [c.c_bool, c.c_bool],
            ),
            "llama_batch_init": (Batch, [c.c_int32, c.c_int32, c.c_int32]),
            "llama_batch_get_one": (Batch, [c.POINTER(c.c_int32), c.c_int32]),
            "llama_decode": (c.c_int32, [c.c_void_p, Batch]),
            "llama_get_logits_ith": (c.POINTER(c.c_float), [c.c_void_p, c.c_int32]),
            "llama_model_quantize": (
                c.c_uint32,
                [c.c_char_p, c.c_char_p, c.POINTER(QuantizeParams)],
            ),
        }
        for name, (result, arguments) in signatures.items():
            function = getattr(lib, name)
            function.restype = result
            function.argtypes = arguments
        self._ggml.ggml_backend_load_all_from_path.argtypes = [c.c_char_p]
        self._ggml.ggml_backend_load_all_from_path.restype = None

    def _check_layout(self) -> None:
        model = self._llama.llama_model_default_params()
        context = self._llama.llama_context_default_params()
        quantize = self._llama.llama_model_quantize_default_params()
        promises = [
            (model.n_gpu_layers, -1),
            (model.split_mode, 1),
            (model.load_mode, -1),
            (model.lazy_mode, 1),
            (model.tensor_split, None),
            (model.kv_overrides, None),
            ((model.vocab_only, model.use_extra_bufts, model.load_mtp), (False, True, False)),
            ((context.n_ctx, context.n_batch, context.n_ubatch), (512, 2048, 512)),
            ((context.n_seq_max, context.n_outputs_max_per_seq), (1, 1)),
            ((context.flash_attn_type, context.yarn_ext_factor), (-1, -1.0)),
            ((context.defrag_thold, context.cb_eval), (-1.0, None)),
            ((context.type_k, context.type_v), (1, 1)),
            ((context.embeddings, context.offload_kqv, context.swa_full), (False, True, True)),
            ((context.n_samplers, context.ctx_other), (0, None)),
            ((quantize.nthread, quantize.ftype), (0, FTYPE_MOSTLY_Q8_0)),
            (quantize.output_tensor_type, quantize.token_embedding_type),
            (quantize.output_tensor_type >= GGML_TYPE_COUNT_MINIMUM, True),
            ((quantize.allow_requantize, quantize.quantize_output_tensor), (False, True)),
            ((quantize.pure, quantize.dry_run, quantize.prune_layers), (False, False, None)),
            (quantize.max_buf_size > 2**20, True),
        ]
        for got, promised in promises:
            if got != promised:
                raise LlamaCppUnavailable(
                    f"this libllama has another structure layout ({got!r} is not {promised!r}); "
                    f"these tests are written for {PACKAGE}"
                )

    @contextmanager
    def open(self, path: Path, *, n_ctx: int = 512, vocab_only: bool = False) -> Iterator[Model]:
        """Loads a .gguf; raises ``RuntimeError`` with llama.cpp's own words when it refuses."""
        self.warnings.clear()
        params = self._llama.llama_model_default_params()
        params.vocab_only = vocab_only
        params.use_extra_bufts = False
        params.n_gpu_layers = 0
        handle = self._llama.llama_model_load_from_file(str(path).encode(), params)
        if not handle:
            raise RuntimeError("llama.cpp does not load the file: " + "".join(self.warnings))
        try:
            yield Model(self._llama, handle, n_ctx)
        finally:
            self._llama.llama_model_free(handle)

    def quantize(
        self,
        source: Path,
        destination: Path,
        ftype: int,
        *,
        output_type: int | None = None,
        token_embedding_type: int | None = None,
        pure: bool = False,
        overrides: Sequence[tuple[str, int]] = (),
        imatrix: dict[str, NDArray[np.float32]] | None = None,
    ) -> None:
        """``llama-quantize``, single-threaded. Raises ``RuntimeError`` when it refuses."""
        self.warnings.clear()
        params = self._llama.llama_model_quantize_default_params()
        params.nthread = 1
        params.ftype = ftype
        params.pure = pure
        if output_type is not None:
            params.output_tensor_type = output_type
        if token_embedding_type is not None:
            params.token_embedding_type = token_embedding_type
        if overrides:
            table = (TensorOverride * (len(overrides) + 1))()
            for row, (pattern, ggml_type) in zip(table, overrides, strict=False):
                row.pattern, row.type = pattern.encode(), ggml_type
            params.tt_overrides = c.addressof(table)
        if imatrix:
            rows = (ImatrixData * (len(imatrix) + 1))()
            for row, (name, values) in zip(rows, imatrix.items(), strict=False):
                row.name, row.size = name.encode(), values.size
                row.data = values.ctypes.data_as(c.POINTER(c.c_float))
            params.imatrix = c.addressof(rows)
        failed = self._llama.llama_model_quantize(
            str(source).encode(), str(destination).encode(), c.byref(params)
        )
        if failed:
            raise RuntimeError("llama.cpp does not quantize the file: " + "".join(self.warnings))


class Model:
    """A loaded model: its tokenizer and its logits."""

    def __init__(self, library: c.CDLL, handle: int, n_ctx: int) -> None:
        self._llama = library
        self._handle = handle
        self._n_ctx = n_ctx
        self._vocab = library.llama_model_get_vocab(handle)
        self.vocab_size: int = library.llama_vocab_n_tokens(self._vocab)
        self.bos: int = library.llama_vocab_bos(self._vocab)
        self.eos: int = library.llama_vocab_eos(self._vocab)
        self.adds_bos: bool = library.llama_vocab_get_add_bos(self._vocab)

    def tokenize(self, text: str, *, add_special: bool = True) -> list[int]:
        """Token ids of ``text``; special tokens in the text are recognised."""
        raw = text.encode()
        buffer = (c.c_int32 * (len(raw) + 8))()
        count = self._llama.llama_tokenize(
            self._vocab, raw, len(raw), buffer, len(buffer), add_special, True
        )
        if count < 0:
            raise RuntimeError(f"llama_tokenize needs {-count} places for {len(raw)} bytes")
        return list(buffer[:count])

    def detokenize(self, tokens: Sequence[int]) -> str:
        ids = (c.c_int32 * len(tokens))(*tokens)
        buffer = c.create_string_buffer(64 * (len(tokens) + 1))
        count = self._llama.llama_detokenize(
            self._vocab, ids, len(tokens), buffer, len(buffer), False, True
        )
        return buffer.raw[:count].decode("utf-8", "replace")

    @contextmanager
    def _context(self) -> Iterator[int]:
        params = self._llama.llama_context_default_params()
        params.n_ctx = self._n_ctx
        params.n_threads = params.n_threads_batch = 1
        params.type_k = params.type_v = GGML_TYPE_F32
        params.flash_attn_type = FLASH_ATTENTION_DISABLED
        context = self._llama.llama_init_from_model(self._handle, params)
        if not context:
            raise RuntimeError("llama.cpp makes no context for this model")
        try:
            yield context
        finally:
            self._llama.llama_free(context)

    def _decode(self, context: int, tokens: Sequence[int]) -> NDArray[np.float32]:
        ids = (c.c_int32 * len(tokens))(*tokens)
        batch = self._llama.llama_batch_get_one(ids, len(tokens))
        status = self._llama.llama_decode(context, batch)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")
        row = self._llama.llama_get_logits_ith(context, -1)
        return np.ctypeslib.as_array(row, shape=(self.vocab_size,)).copy()

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Next-token logits after each token, shape (len(tokens), vocabulary), float32."""
        with self._context() as context:
            return np.stack([self._decode(context, [token]) for token in tokens])

    def greedy(self, tokens: Sequence[int], count: int) -> list[int]:
        """The ``count`` tokens that follow ``tokens`` under greedy decoding."""
        result: list[int] = []
        with self._context() as context:
            row = self._decode(context, tokens)
            while True:
                result.append(int(row.argmax()))
                if len(result) == count:
                    return result
                row = self._decode(context, result[-1:])


_loaded: dict[Path, LlamaCpp] = {}


def load() -> LlamaCpp:
    """The library of ``QUANTD_LLAMA_CPP``, loaded once; raises ``LlamaCppUnavailable``."""
    folder = os.environ.get(ENVIRONMENT_VARIABLE)
    if not folder:
        raise LlamaCppUnavailable(
            f"{ENVIRONMENT_VARIABLE} is not set: run `python tests/llama_cpp.py --install DIR` "
            f"and set it to DIR to test against llama.cpp"
        )
    path = Path(folder)
    if path not in _loaded:
        try:
            _loaded[path] = LlamaCpp(path)
        except OSError as error:
            raise LlamaCppUnavailable(f"llama.cpp cannot be loaded here: {error}") from error
    return _loaded[path]


def install(folder: Path) -> None:
    """Downloads the prebuilt library into ``folder`` with npm; runs no package script."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"]
        + ["--prefix", str(folder), PACKAGE],
        check=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Install llama.cpp for the tests.")
    parser.add_argument("--install", type=Path, required=True, metavar="DIR")
    install(parser.parse_args().install)
