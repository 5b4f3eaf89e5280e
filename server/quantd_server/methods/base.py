"""What a quantization method is to the rest of the server.

A method turns a checkpoint's headers into a :class:`WorkPlan` (one task a tensor, with the exact
place of every byte it will write) and, in the worker, each task into a :class:`TensorQuantizer`.
Planning and the engine both work from the same plan; neither knows any method by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

from quantd_server.checkpoint.safetensors_header import TensorEntry
from quantd_server.errors import Finding

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from quantd_server.checkpoint.opening import Checkpoint

Action = Literal["QUANTIZE", "FALLBACK", "KEEP", "CONVERT", "GENERATE", "DROP", "RESCALE"]
"""As `TensorAction` in the spec."""

Transform = Literal["copy", "permute_heads", "add_one", "transpose"]
"""Change of values on the way from the source: none; the interleaving of rotary pairs that
llama.cpp expects of Llama's query and key rows; Gemma's norm weights, which it stores plus 1; the
weight of a Conv1D, which is stored [in, out], as that of a linear layer."""


class OutputPart(msgspec.Struct, frozen=True, kw_only=True):
    """One stored tensor of the output and its place."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    """Row-major."""
    file: str
    offset: int
    """From the start of the file, in bytes."""
    nbytes: int
    variable_length: bool = False
    """Its size and place are settled only when its contents are known; see
    ``checkpoint.safetensors_layout.seal``. Until then its size is an upper bound."""


class TensorTask(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to one tensor."""

    source: TensorEntry | None
    """None for a generated tensor."""
    target_name: str
    """Empty for a dropped tensor."""
    target_type: str
    shape: tuple[int, ...]
    """Row-major shape in the source, or of the generated tensor."""
    action: Action
    reason: str
    parts: tuple[OutputPart, ...] = ()
    """The main part first, then the scales and maps that belong to it."""
    transform: Transform = "copy"
    head_count: int = 0
    """Heads of a tensor whose rows are permuted."""
    values: tuple[float, ...] = ()
    """Contents of a generated tensor."""
    block: int | None = None
    """Decoder block that it is solved with; None when it needs nothing but its own weight. An
    output head comes after the last block and counts as one more."""
    importance: bytes = b""
    """What each column of each matrix weighs in the rounding: float32[matrices * columns], as
    bytes; empty when all weigh the same."""
    held_bytes: int = 0
    """Memory that its quantizer takes until the tensor is done, besides that of chunks."""

    @property
    def target_shape(self) -> tuple[int, ...]:
        """Row-major shape after the transform."""
        return self.shape[::-1] if self.transform == "transpose" else self.shape

    @property
    def source_bytes(self) -> int:
        return self.source.nbytes if self.source else 0

    @property
    def target_bytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    @property
    def element_count(self) -> int:
        count = 1
        for dimension in self.shape:
            count *= dimension
        return count


class WeightFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of weights: its header, to be written at its start, and its whole size."""

    name: str
    header: bytes
    size: int


class WorkPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the engine does for one job."""

    tasks: tuple[TensorTask, ...]
    """In the order in which they are done."""
    files: tuple[WeightFile, ...]
    texts: dict[str, str] = {}
    """Small text files to write beside the weights (config.json, the shard index), by name."""
    carried: tuple[str, ...] = ()
    """Files to copy from the source as they are (tokenizer, generation config), by name."""
    findings: tuple[Finding, ...] = ()
    tuning_bytes: int = 0
    """Where blocks are tuned: memory for the parameters of the largest one, with their gradients;
    0 if none is."""


class WorkOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a specification that shape the work plan."""

    max_shard_size: int = 5_000_000_000
    """Bytes."""
    output_name: str = "model.gguf"
    """Name of the output, for methods that write a single file."""
    paths: dict[str, str] = {}
    """Real path of every other file that the configuration names, by its URI."""


class ChunkResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one chunk."""

    writes: list[tuple[int, int, Any]]
    """(index into ``TensorTask.parts``, byte offset in that part, contiguous array or bytes)."""
    squared_error: float = 0.0
    """Sum of (w - w')^2 over the chunk."""


class TensorQuantizer(Protocol):
    """Quantizes one tensor chunk by chunk. Chunks may be done by several threads at once."""

    @property
    def granularity(self) -> int:
        """A chunk starts at, and holds, a multiple of this many elements (the last one may not)."""
        ...

    def quantize(self, first: int, values: npt.NDArray[np.float32]) -> ChunkResult:
        """Quantize the elements [first, first + len(values)) of the flattened tensor, all finite.

        ``values`` is float32[n], contiguous, and only valid during the call.
        """
        ...

    def finish(self) -> ChunkResult:
        """What needs the whole tensor; called once, after all its chunks."""
        ...


class Method(Protocol):
    """A quantization method, as far as planning knows it."""

    @property
    def name(self) -> str:
        """Name of its field in `MethodConfig`."""
        ...

    @property
    def devices(self) -> tuple[str, ...]:
        """Kinds of device it can compute on, as `DeviceKind` in the spec."""
        ...

    @property
    def single_file(self) -> bool:
        """Whether its output is one file rather than a directory."""
        ...

    @property
    def calibrated(self) -> bool:
        """Whether it needs calibration data."""
        ...

    def resolve(self, config: Any) -> Any:
        """``config`` with every default filled in."""
        ...

    def file_uris(self, config: Any) -> dict[str, str]:
        """Files that ``config`` names besides source and output: URI by field."""
        ...

    def prepare(self, config: Any, checkpoint: Checkpoint, options: WorkOptions) -> WorkPlan:
        """The work plan for a resolved ``config``, from headers alone.

        What stands against it goes into the plan's findings; with an ERROR among them the tasks
        may be incomplete. Raises QuantdError when nothing can be planned at all.
        """
        ...


class TensorwiseMethod(Method, Protocol):
    """A method that needs nothing but the weight it quantizes."""

    def quantizer(self, config: Any, task: TensorTask, device: str) -> TensorQuantizer:
        """The quantizer of a task whose action is QUANTIZE, FALLBACK or CONVERT (worker only)."""
        ...


def subjects_of(names: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """The names a finding lists, at most 16, and how many there are."""
    return tuple(names[:16]), len(names)
