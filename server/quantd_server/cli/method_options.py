"""What to do, as options of the command line: a method and the fields of its configuration."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quantd_server.cli.option_groups import option

if TYPE_CHECKING:
    import quantd

METHOD = "Method"
GGUF = "Options of gguf"
BITSANDBYTES = "Options of bitsandbytes-4bit and bitsandbytes-8bit"
CALIBRATED = "Options of gptq and awq"

FOUR_BIT, EIGHT_BIT = "bitsandbytes_4bit", "bitsandbytes_8bit"

FIELDS: dict[str, dict[str, str]] = {
    "type": {"gguf": "file_type"},
    "tensor_type": {"gguf": "tensor_types"},
    "output_tensor_type": {"gguf": "output_tensor_type"},
    "token_embedding_type": {"gguf": "token_embedding_type"},
    "pure": {"gguf": "pure"},
    "imatrix": {"gguf": "imatrix_uri"},
    "quant_type": {FOUR_BIT: "bnb_4bit_quant_type"},
    "compute_dtype": {FOUR_BIT: "bnb_4bit_compute_dtype"},
    "double_quant": {FOUR_BIT: "bnb_4bit_use_double_quant"},
    "quant_storage": {FOUR_BIT: "bnb_4bit_quant_storage"},
    "blocksize": {FOUR_BIT: "blocksize"},
    "threshold": {EIGHT_BIT: "llm_int8_threshold"},
    "skip_module": {
        FOUR_BIT: "llm_int8_skip_modules",
        EIGHT_BIT: "llm_int8_skip_modules",
        "awq": "modules_to_not_convert",
    },
    "bits": {"gptq": "bits", "awq": "bits"},
    "group_size": {"gptq": "group_size", "awq": "group_size"},
    "sym": {"gptq": "sym"},
    "desc_act": {"gptq": "desc_act"},
}
"""For each option, the field it sets, by method."""


@dataclass(frozen=True)
class MethodOptions:
    """A method and its configuration; None is what was not said."""

    method: Annotated[
        str | None,
        option(
            "--method",
            "-m",
            panel=METHOD,
            help="gguf, bitsandbytes-4bit, bitsandbytes-8bit, gptq, awq or aqlm.",
        ),
    ] = None
    config: Annotated[
        str | None,
        option(
            "--config",
            panel=METHOD,
            metavar="JSON|FILE",
            help="Instead of --method and its options: a Hugging Face quantization_config, or a "
            'MethodConfig such as {"gguf": {"file_type": "GGUF_FILE_TYPE_Q8_0"}}.',
        ),
    ] = None
    set: Annotated[
        list[str] | None,
        option(
            "--set",
            panel=METHOD,
            metavar="FIELD=VALUE",
            help="Any field of the method's configuration, by its name in the API. Repeatable.",
        ),
    ] = None
    type: Annotated[
        str | None,
        option("--type", "-t", panel=GGUF, help="File type: Q4_K_M (default), Q8_0, BF16, ..."),
    ] = None
    tensor_type: Annotated[
        list[str] | None,
        option(
            "--tensor-type",
            panel=GGUF,
            metavar="PATTERN=TYPE",
            help='Type of the tensors whose name matches, such as "attn_v=Q6_K". Repeatable.',
        ),
    ] = None
    output_tensor_type: Annotated[
        str | None, option("--output-tensor-type", panel=GGUF, help="Type of the output head.")
    ] = None
    token_embedding_type: Annotated[
        str | None, option("--token-embedding-type", panel=GGUF, help="Type of the embeddings.")
    ] = None
    pure: Annotated[
        bool | None,
        option("--pure/--no-pure", panel=GGUF, help="One type for all tensors, without mixture."),
    ] = None
    imatrix: Annotated[
        str | None, option("--imatrix", panel=GGUF, metavar="FILE", help="Importance matrix.")
    ] = None
    quant_type: Annotated[
        str | None, option("--quant-type", panel=BITSANDBYTES, help="4-bit: fp4 (default) or nf4.")
    ] = None
    compute_dtype: Annotated[
        str | None,
        option(
            "--compute-dtype", panel=BITSANDBYTES, help="4-bit: float32 (default), bfloat16, ..."
        ),
    ] = None
    double_quant: Annotated[
        bool | None,
        option(
            "--double-quant/--no-double-quant",
            panel=BITSANDBYTES,
            help="4-bit: quantize the scales too.",
        ),
    ] = None
    quant_storage: Annotated[
        str | None,
        option("--quant-storage", panel=BITSANDBYTES, help="4-bit: uint8 (default), bfloat16, ..."),
    ] = None
    blocksize: Annotated[
        int | None,
        option("--blocksize", panel=BITSANDBYTES, help="4-bit: weights per scale; default 64."),
    ] = None
    threshold: Annotated[
        float | None,
        option("--threshold", panel=BITSANDBYTES, help="8-bit: outlier threshold; default 6."),
    ] = None
    skip_module: Annotated[
        list[str] | None,
        option(
            "--skip-module",
            panel=BITSANDBYTES,
            metavar="NAME",
            help="Module to leave as it is; also for awq. Repeatable.",
        ),
    ] = None
    bits: Annotated[int | None, option("--bits", panel=CALIBRATED, help="Bits per weight.")] = None
    group_size: Annotated[
        int | None, option("--group-size", panel=CALIBRATED, help="Weights per scale.")
    ] = None
    sym: Annotated[
        bool | None, option("--sym/--no-sym", panel=CALIBRATED, help="gptq: symmetric grid.")
    ] = None
    desc_act: Annotated[
        bool | None,
        option("--desc-act/--no-desc-act", panel=CALIBRATED, help="gptq: activation order."),
    ] = None


def check(options: MethodOptions) -> None:
    """Finds contradictions that need no server.

    Raises:
        typer.BadParameter: An option is missing, or belongs to another method.
    """
    given = [name for name in FIELDS if getattr(options, name) is not None]
    if options.config is not None:
        if options.method is not None or given or options.set:
            raise typer.BadParameter(
                "--config already says everything; leave out the other options"
            )
        config_text(options.config)
    elif options.method is None:
        methods = [method for name in given for method in FIELDS[name]]
        hint = f", such as --method {methods[0].replace('_', '-')}" if methods else ""
        raise typer.BadParameter(f"say what to do with --method or --config{hint}")
    else:
        built(options)


def method_config(options: MethodOptions, client: quantd.Client) -> quantd.MethodConfig:
    """The configuration that the options describe; a Hugging Face one is parsed by the server.

    Raises:
        typer.BadParameter: The options contradict each other.
        QuantdError: The server does not understand the configuration.
    """
    if options.config is None:
        return built(options)
    text = config_text(options.config)
    typed = _typed(text)
    if typed is not None:
        return typed
    from rich.markup import escape

    from quantd import v1
    from quantd_server.cli.findings import print_findings, refuse
    from quantd_server.cli.printing import messages

    answer = client.parse_config(text)
    if not answer.HasField("method"):
        reason = {
            v1.ConfigStatus.CONFIG_STATUS_NOT_QUANTIZED: "there is no quantization_config in it",
            v1.ConfigStatus.CONFIG_STATUS_SERVED: f"this {answer.quant_method} makes no sense",
        }.get(answer.status, f"method {answer.quant_method!r} is not one this server knows to make")
        messages().print(f"quantd: --config: {escape(reason)}")
        refuse(answer.findings)
    severities = (v1.Severity.SEVERITY_ERROR, v1.Severity.SEVERITY_WARNING)
    print_findings((f for f in answer.findings if f.severity in severities), messages())
    return answer.method


def built(options: MethodOptions) -> quantd.MethodConfig:
    """The configuration from `--method` and the options of its fields.

    Raises:
        typer.BadParameter: An option belongs to another method, or its value is not known.
    """
    import quantd

    method = (options.method or "").replace("-", "_").lower()
    if method not in quantd.METHODS:
        known = ", ".join(name.replace("_", "-") for name in quantd.METHODS)
        raise typer.BadParameter(f"--method: {options.method!r} is not one of {known}")
    fields: dict[str, Any] = {}
    for name, by_method in FIELDS.items():
        value = getattr(options, name)
        if value is None:
            continue
        flag = "--" + name.replace("_", "-")
        if method not in by_method:
            owners = " and ".join(owner.replace("_", "-") for owner in by_method)
            raise typer.BadParameter(f"{flag} belongs to {owners}, not to {options.method}")
        fields[by_method[method]] = _value(name, flag, value)
    for assignment in options.set or ():
        name, value = pair(assignment, "--set", "FIELD=VALUE")
        fields[name] = json_or_text(value)
    try:
        return quantd.method_config(method, **fields)
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None


def _value(name: str, flag: str, value: Any) -> Any:
    if name == "tensor_type":
        rules = (pair(rule, flag, "PATTERN=TYPE", last=True) for rule in value)
        return [{"pattern": pattern, "type": type_} for pattern, type_ in rules]
    if name == "imatrix":
        from quantd_server.cli.paths import absolute

        return absolute(value)
    return value


def json_or_text(value: str) -> Any:
    """The value of JSON text, or the text where it is none."""
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def pair(text: str, flag: str, form: str, *, last: bool = False) -> tuple[str, str]:
    """The two sides of an equals sign: the first, or the last when patterns may hold others.

    Raises:
        typer.BadParameter: There is none.
    """
    left, sign, right = text.rpartition("=") if last else text.partition("=")
    if not sign or not left:
        raise typer.BadParameter(f"{flag}: {text!r} is not of the form {form}")
    return left.strip(), right.strip()


def config_text(config: str) -> str:
    """The JSON text given, or that of the file named.

    Raises:
        typer.BadParameter: It is neither.
    """
    text = config
    if not config.lstrip().startswith("{"):
        try:
            text = Path(os.path.expanduser(config)).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise typer.BadParameter(f"--config: cannot read {config!r}: {error}") from None
    try:
        parsed = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise typer.BadParameter(f"--config is not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise typer.BadParameter("--config has to be a JSON object")
    return text


def _typed(text: str) -> quantd.MethodConfig | None:
    """The message, if the text is that of a `MethodConfig`."""
    from google.protobuf import json_format

    import quantd

    keys = list(json.loads(text))
    if len(keys) != 1 or keys[0] not in quantd.METHODS:
        return None
    try:
        return json_format.Parse(text, quantd.MethodConfig())
    except json_format.ParseError as error:
        raise typer.BadParameter(f"--config: {error}") from None
