"""Parsing a quantization_config."""

from __future__ import annotations

from quantd_server.reasons.entry import Area, Reason

AREA = Area(
    title="Parsing a quantization_config",
    about="What `ParseConfig` and `InspectCheckpoint` say about a configuration, besides the "
    "rules of the spec.",
    reasons={
        "BITSANDBYTES_FLAGS_EXCLUSIVE": Reason(
            meaning="`load_in_8bit` and `load_in_4bit` are both true.",
            action="Set one of them to false.",
        ),
        "BITSANDBYTES_FLAG_MISSING": Reason(
            meaning="Neither `load_in_8bit` nor `load_in_4bit` is true.",
            action="Set the one that is meant to true.",
        ),
        "CONFIG_CONTRADICTION": Reason(
            meaning="Two fields that mean the same say different things.",
            action="Remove one of the two.",
        ),
        "CONFIG_DUPLICATE_KEY": Reason(
            meaning="A key of the JSON text is there more than once.",
            action="Keep one of them.",
        ),
        "CONFIG_FIELDS_IGNORED": Reason(
            meaning="Fields are known, but are no part of the typed configuration.",
            action="Nothing has to change.",
        ),
        "CONFIG_FIELD_MISSING": Reason(
            meaning="A field is not there without which readers load no checkpoint.",
            action="Write it into the config.json of a checkpoint; to quantize, the default holds.",
        ),
        "CONFIG_FIELD_NOT_CARRIED": Reason(
            meaning="A field is understood, but the typed configuration has none for it.",
            action="Do not expect it to be applied when you quantize with the typed configuration.",
        ),
        "CONFIG_NESTED_TOO_DEEPLY": Reason(
            meaning="The text nests lists and objects deeper than any configuration.",
            action="Send the `quantization_config` alone.",
        ),
        "CONFIG_NOT_JSON": Reason(
            meaning="The text is not a JSON object.",
            action="Send the JSON object of a `quantization_config`, or the text of a config.json.",
        ),
        "CONFIG_NOT_UNICODE": Reason(
            meaning="A text or a name holds half of a surrogate pair, which is no Unicode.",
            action="Mend it, or remove it.",
        ),
        "CONFIG_VALUE_NOT_ALLOWED": Reason(
            meaning="A value is of the right type, but none of those allowed.",
            action="Set the field to what the message allows, or remove it.",
        ),
        "CONFIG_VALUE_NOT_FINITE": Reason(
            meaning="A number is infinite or not a number.",
            action="Set the field to a finite number, or remove it.",
        ),
        "CONFIG_WRONG_TYPE": Reason(
            meaning="A value is of another JSON type than the field has.",
            action="Set the field to what the message allows, or remove it.",
        ),
        "GPTQ_FORMAT_ASSUMED": Reason(
            meaning="No format is said for an asymmetric grid, and readers differ in what they "
            "take then.",
            action="Say `checkpoint_format`.",
        ),
        "MORE_FINDINGS": Reason(
            meaning="There are more findings than one answer lists.",
            action="Mend those that are listed first.",
        ),
        "QUANT_METHOD_MISSING": Reason(
            meaning="`quant_method` is not set, and no field tells the method.",
            action="Name the method in `quant_method`.",
        ),
        "QUANT_METHOD_NOT_SERVED": Reason(
            meaning="The method is known to other engines; quantd neither makes nor reads it.",
            action="Choose a method that quantd serves, to quantize.",
        ),
        "QUANT_METHOD_UNKNOWN": Reason(
            meaning="No method of that name is known.",
            action="Correct `quant_method`; the message lists the names that are known.",
        ),
    },
)
