"""Answers of the server as tables."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import quantd
from quantd import v1
from quantd_server.cli import text
from quantd_server.cli.paths import label


def table(*columns: str, right: Iterable[str] = (), title: str | None = None) -> Table:
    """An empty table without frames; the columns in `right` hold numbers."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        if column in right:
            made.add_column(column, justify="right", no_wrap=True)
        else:
            made.add_column(column, overflow="fold")
    return made


def facts(rows: Iterable[tuple[str, str]]) -> Table:
    """Names and values, without a header; empty values are left out."""
    made = Table(show_header=False, box=None, pad_edge=False)
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows:
        if value:
            made.add_row(name, escape(value))
    return made


def type_table(types: Iterable[v1.TypeSummary]) -> Table:
    """What each target type contributes."""
    made = table("type", "tensors", "elements", "size", right=("tensors", "elements", "size"))
    for summary in types:
        made.add_row(
            escape(summary.target_type),
            f"{summary.tensor_count:,}",
            f"{summary.element_count:,}",
            text.size(summary.size_bytes),
        )
    return made


def plan_facts(plan: v1.Plan) -> Table:
    """Sizes, memory and time of a plan."""
    ratio = (
        f", {plan.source_bytes / plan.output_bytes:.2f} times smaller" if plan.output_bytes else ""
    )
    estimated = plan.estimated_duration.ToTimedelta().total_seconds()
    return facts(
        [
            ("method", f"{quantd_method(plan.method)} ({label(plan.method)})"),
            ("device", quantd.name_of(v1.DeviceKind, plan.device).lower()),
            (
                "parameters",
                f"{plan.parameter_count:,}, of which {plan.quantized_parameter_count:,} quantized",
            ),
            ("source", f"{text.size(plan.source_bytes)} ({plan.source_bytes:,} bytes)"),
            ("output", f"{text.size(plan.output_bytes)} ({plan.output_bytes:,} bytes{ratio})"),
            ("bits per weight", f"{plan.bits_per_weight:.2f}"),
            ("peak memory", text.size(plan.peak_memory_bytes)),
            ("disk while it runs", text.size(plan.scratch_bytes)),
            ("time", f"{text.duration(estimated)} ({plan.estimate_basis})" if estimated else ""),
            ("calibration data", _calibration(plan.calibration)),
        ]
    )


def _calibration(usage: v1.CalibrationUsage) -> str:
    if not usage.samples_requested:
        return ""
    return (
        f"{usage.samples_usable:,} of {usage.samples_requested:,} sequences, "
        f"{usage.tokens:,} tokens"
    )


def plan_tensor_table(tensors: Iterable[v1.TensorPlan]) -> Table:
    """What happens to each tensor."""
    made = table("tensor", "shape", "from", "to", "size", "action", "reason", right=("size",))
    for tensor in tensors:
        made.add_row(
            escape(tensor.target_name or tensor.source_name),
            text.shape(list(tensor.shape)),
            escape(tensor.source_type),
            escape(tensor.target_type),
            text.size(tensor.target_bytes),
            quantd.name_of(v1.TensorAction, tensor.action).lower(),
            escape(tensor.reason),
        )
    return made


def checkpoint_facts(checkpoint: v1.Checkpoint) -> Table:
    """What a checkpoint's headers say."""
    already = checkpoint.quantization.quant_method
    tensors = text.count(checkpoint.tensor_count, "tensor")
    files = text.count(checkpoint.file_count, "file")
    blocks = (
        f"{checkpoint.block_count} blocks of width {checkpoint.hidden_size}, "
        f"{checkpoint.head_count} heads of {checkpoint.head_dim}, "
        f"{checkpoint.kv_head_count} key/value heads"
    )
    return facts(
        [
            ("checkpoint", checkpoint.uri),
            ("format", quantd.name_of(v1.CheckpointFormat, checkpoint.format).lower()),
            ("model", f"{checkpoint.model_type} {checkpoint.architecture}".strip()),
            ("parameters", f"{checkpoint.parameter_count:,}"),
            ("size", f"{text.size(checkpoint.size_bytes)} in {tensors} and {files}"),
            ("blocks", blocks if checkpoint.block_count else ""),
            (
                "context",
                f"{checkpoint.context_length:,} tokens" if checkpoint.context_length else "",
            ),
            ("vocabulary", f"{checkpoint.vocab_size:,}" if checkpoint.vocab_size else ""),
            ("output head", "tied to the embeddings" if checkpoint.tied_embeddings else "its own"),
            ("tokenizer", quantd.name_of(v1.TokenizerKind, checkpoint.tokenizer).lower()),
            ("quantized", f"already, with {already}" if already else "no"),
        ]
    )


def dtype_table(dtypes: Iterable[v1.DtypeSummary]) -> Table:
    """What each element type contributes to a checkpoint."""
    made = table("type", "tensors", "elements", "size", right=("tensors", "elements", "size"))
    for summary in dtypes:
        made.add_row(
            escape(summary.dtype),
            f"{summary.tensor_count:,}",
            f"{summary.element_count:,}",
            text.size(summary.size_bytes),
        )
    return made


def tensor_table(tensors: Iterable[v1.TensorInfo]) -> Table:
    """The tensors of a checkpoint."""
    made = table("tensor", "type", "shape", "size", "file", right=("size",))
    for tensor in tensors:
        made.add_row(
            escape(tensor.name),
            escape(tensor.dtype),
            text.shape(list(tensor.shape)),
            text.size(tensor.size_bytes),
            escape(tensor.file),
        )
    return made


def load_table(loads: Iterable[v1.LoadAssessment]) -> Table:
    """Whether this host can load a checkpoint."""
    made = table(
        "engine",
        "device",
        "loads",
        "weights",
        "cache",
        "free",
        right=("weights", "cache", "free"),
    )
    for load in loads:
        made.add_row(
            engine_name(load),
            device_name(load),
            "[green]yes[/]" if load.loadable else "[red]no[/]",
            text.size(load.weight_bytes),
            text.size(load.kv_cache_bytes),
            text.size(load.free_bytes),
        )
    return made


def engine_name(load: v1.LoadAssessment) -> str:
    """Name of an engine, as --serve-target takes it."""
    return quantd.name_of(v1.Engine, load.engine).lower().replace("_", ".")


def device_name(load: v1.LoadAssessment) -> str:
    """A device such as "cpu" or "cuda:0"."""
    kind = quantd.name_of(v1.DeviceKind, load.device).lower()
    return kind if kind == "cpu" else f"{kind}:{load.device_index}"


def job_table(jobs: Iterable[v1.Job]) -> Table:
    """One line a job."""
    made = table("job", "state", "method", "done", "created", "source", right=("done",))
    for job in jobs:
        progress = job.progress
        done = progress.bytes_done / progress.bytes_total if progress.bytes_total else 0.0
        made.add_row(
            escape(job.name),
            state(job),
            label(job.spec.method),
            f"{done:.0%}",
            f"{job.create_time.ToDatetime():%Y-%m-%d %H:%M}",
            escape(job.spec.source_uri),
        )
    return made


def state(job: v1.Job) -> str:
    """State of a job, coloured."""
    name = quantd.name_of(v1.JobState, job.state)
    colour = {"SUCCEEDED": "green", "FAILED": "red", "CANCELLED": "yellow"}.get(name, "cyan")
    return f"[{colour}]{name}[/]"


def print_result(result: v1.QuantizationResult, console: Console) -> None:
    """Sizes, errors and files of a job that succeeded."""
    ratio = result.source_bytes / result.output_bytes if result.output_bytes else 0.0
    console.print(type_table(result.types))
    console.print()
    console.print(
        facts(
            [
                ("before", f"{text.size(result.source_bytes)} ({result.source_bytes:,} bytes)"),
                ("after", f"{text.size(result.output_bytes)} ({result.output_bytes:,} bytes)"),
                (
                    "ratio",
                    f"{ratio:.2f} times smaller, {result.bits_per_weight:.2f} bits per weight",
                ),
                ("relative error", text.percent(result.relative_error)),
                (
                    "worst tensor",
                    f"{result.worst_tensor} ({text.percent(result.worst_relative_error)})"
                    if result.worst_tensor
                    else "",
                ),
                ("time", text.duration(result.elapsed.ToTimedelta().total_seconds())),
                ("peak memory", text.size(result.peak_memory_bytes)),
            ]
        )
    )
    console.print()
    for file in result.files:
        console.print(escape(_file(result, file)), soft_wrap=True)  # a path must stay in one piece


def _file(result: v1.QuantizationResult, file: v1.OutputFile) -> str:
    # The files of a .gguf are named as they are, beside it; others relative to their folder.
    place = result.output_uri.rstrip("/")
    folder = place.rpartition("/")[0] if place.endswith(".gguf") else place
    return f"{folder}/{file.name} ({text.size(file.size_bytes)})"


def quantd_method(method: v1.MethodConfig) -> str:
    """Name of a method as options spell it."""
    return str(method.WhichOneof("config")).replace("_", "-")
