"""Rules of the spec."""

from __future__ import annotations

from quantd_server.reasons.entry import Area, Reason

AREA = Area(
    title="Rules of the spec",
    about="What a field of a message may be is said by the rules in proto/quantd/v1; each rule "
    "has a reason, made of its id. The message says what is allowed.",
    reasons={
        "AWQ_GEMM_NEEDS_ZERO_POINT": Reason(
            meaning="The AWQ format `gemm` stores zero points, and `zero_point` is false.",
            action="Set `zero_point` to true, or leave it out.",
        ),
        "BITSANDBYTES_8BIT_HAS_FP16_WEIGHT": Reason(
            meaning="`llm_int8_has_fp16_weight` is true, which would save weights that are not "
            "quantized.",
            action="Set it to false, or leave it out.",
        ),
        "DOUBLE_FINITE": Reason(
            meaning="The number is infinite or not a number.",
            action="Send a finite number.",
        ),
        "DOUBLE_GTE": Reason(
            meaning="The number is too small.",
            action="Send at least the number that the message names.",
        ),
        "DOUBLE_GTE_LT": Reason(
            meaning="The number is outside its range.",
            action="Send a number within the range that the message names.",
        ),
        "DOUBLE_GTE_LTE": Reason(
            meaning="The number is outside its range.",
            action="Send a number within the range that the message names.",
        ),
        "DOUBLE_GT_LT": Reason(
            meaning="The number is outside its range.",
            action="Send a number within the range that the message names.",
        ),
        "DOUBLE_GT_LTE": Reason(
            meaning="The number is outside its range.",
            action="Send a number within the range that the message names.",
        ),
        "ENUM_DEFINED_ONLY": Reason(
            meaning="The number is no value of the enum.",
            action="Use a value that the spec of this server lists.",
        ),
        "ENUM_NOT_IN": Reason(
            meaning="The value of the enum is not allowed here.",
            action="Use another one; UNSPECIFIED means nothing in this place.",
        ),
        "GPTQ_ACT_GROUP_AWARE_NEEDS_GROUPS": Reason(
            meaning="`act_group_aware` orders groups, and `group_size` -1 makes none.",
            action="Set `act_group_aware` to false, or give a `group_size` such as 128.",
        ),
        "GPTQ_ACT_ORDER_EXCLUSIVE": Reason(
            meaning="`desc_act` and `act_group_aware` are two orders of the columns, and both are "
            "true.",
            action="Set one of them to false.",
        ),
        "GPTQ_ASYMMETRIC_NEEDS_V2": Reason(
            meaning="The format `gptq` cannot hold the zero point 0 of an asymmetric grid (`sym` "
            "is false).",
            action="Use the format `gptq_v2`, or set `sym` to true.",
        ),
        "GPTQ_MAX_SHRINK_NEEDS_STATIC_GROUPS": Reason(
            meaning="`max_shrink` clips the ranges of fixed groups, and `static_groups` is false.",
            action="Set `static_groups` to true, or `max_shrink` to 0.",
        ),
        "GPTQ_ONE_RANGE_SEARCH": Reason(
            meaning="`mse` and `max_shrink` are two searches for ranges, and both are above 0.",
            action="Set one of them to 0.",
        ),
        "INT32_IN": Reason(
            meaning="The number is none of those allowed.",
            action="Send one of the numbers that the message names.",
        ),
        "MAP_MAX_PAIRS": Reason(
            meaning="The map has too many entries.",
            action="Send at most as many as the message says.",
        ),
        "QUANTIZE_OUTPUT_URI_REQUIRED": Reason(
            meaning="`Quantize` needs `spec.output_uri`.",
            action="Name a path that does not exist yet, below an output root.",
        ),
        "REPEATED_MAX_ITEMS": Reason(
            meaning="The list has too many items.",
            action="Send at most as many as the message says.",
        ),
        "REPEATED_MIN_ITEMS": Reason(
            meaning="The list has too few items.",
            action="Send at least as many as the message says.",
        ),
        "REPEATED_UNIQUE": Reason(
            meaning="The list holds an item twice.",
            action="Send each item once.",
        ),
        "REQUIRED": Reason(
            meaning="A field that has to be set is not.",
            action="Set the field that the finding names.",
        ),
        "STRING_MAX_BYTES": Reason(
            meaning="The text is too long in UTF-8.",
            action="Shorten it to the number of bytes that the message names.",
        ),
        "STRING_MAX_LEN": Reason(
            meaning="The text is too long.",
            action="Shorten it to the number of characters that the message names.",
        ),
        "STRING_MIN_LEN": Reason(
            meaning="The text is too short, or empty.",
            action="Send at least as many characters as the message names.",
        ),
        "STRING_PATTERN": Reason(
            meaning="The text has not the form that the field needs.",
            action="Write it in the form that the message names.",
        ),
        "STRING_UUID": Reason(
            meaning="The text is no UUID.",
            action="Send a UUID in its usual form, as in 123e4567-e89b-42d3-a456-426614174000.",
        ),
        "UINT32_GTE_LTE": Reason(
            meaning="The number is outside its range.",
            action="Send a number within the range that the message names.",
        ),
        "UINT32_IN": Reason(
            meaning="The number is none of those allowed.",
            action="Send one of the numbers that the message names.",
        ),
        "UINT32_LTE": Reason(
            meaning="The number is too large.",
            action="Send at most the number that the message names.",
        ),
        "UINT64_GTE": Reason(
            meaning="The number is too small.",
            action="Send at least the number that the message names.",
        ),
        "UINT64_GTE_LTE": Reason(
            meaning="The number is outside its range.",
            action="Send a number within the range that the message names.",
        ),
    },
)
