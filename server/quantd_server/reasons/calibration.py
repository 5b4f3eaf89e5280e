"""Data to calibrate with and to measure on."""

from __future__ import annotations

from quantd_server.reasons.entry import Area, Reason

AREA = Area(
    title="Calibration and evaluation data",
    about="What is wrong with, or worth knowing about, the data that a job calibrates with or is "
    "measured on.",
    reasons={
        "BUILTIN_TEXT_USED": Reason(
            meaning="No calibration data is given, and the small text that comes with the server "
            "is used.",
            action="Give text like that the model will see, or set `calibration.builtin` to say "
            "that this one is meant.",
        ),
        "CALIBRATION_CHANGED": Reason(
            meaning="The data gives other tokens than when the job was planned: the file or the "
            "tokenizer was changed under it.",
            action="Let them rest, and quantize again.",
        ),
        "CALIBRATION_IGNORED": Reason(
            meaning="The method needs no calibration data, and what was given is not used.",
            action="Nothing has to change; leave `calibration` out.",
        ),
        "CHAT_TEMPLATE_FAILED": Reason(
            meaning="The chat template of the checkpoint fails, or takes too much, on these "
            "messages.",
            action="Give messages as the template expects them, or leave `apply_chat_template` "
            "out.",
        ),
        "CHAT_TEMPLATE_MISSING": Reason(
            meaning="A chat template is to be applied, and the checkpoint has none.",
            action="Leave `apply_chat_template` out, or add the template of the model.",
        ),
        "EVALUATION_IGNORED": Reason(
            meaning="The method measures nothing at the end, and `evaluation` is not used.",
            action="Nothing has to change; leave `evaluation` out.",
        ),
        "EVALUATION_ON_CALIBRATION_TEXT": Reason(
            meaning="The result is measured on the very file that it is fitted to.",
            action="Name another file, or leave `evaluation.file` out.",
        ),
        "JSON_FIELD_INVALID": Reason(
            meaning="A line of a .jsonl file does not hold text, or messages, in the field that "
            "is read.",
            action="Name the right field in `json_field`, and leave out lines without it.",
        ),
        "JSON_LINE_INVALID": Reason(
            meaning="A line of a .jsonl file is no JSON, or is too long.",
            action="Write one JSON object a line; divide long texts among several.",
        ),
        "NO_SAMPLES": Reason(
            meaning="The data does not give a single sequence of the length that is asked for.",
            action="Give more text, lower `sequence_length`, or let short texts be joined.",
        ),
        "SECOND_MOMENT_INDEFINITE": Reason(
            meaning="The inputs that a module saw say too little about its weights, or are too "
            "large; it was quantized without them.",
            action="Calibrate with more data, or set a larger `damp_percent`.",
        ),
        "SEQUENCE_TOO_LONG": Reason(
            meaning="Sequences are longer than the context of the model.",
            action="Use sequences of at most the context that the message names.",
        ),
        "SHORT_TEXTS_DROPPED": Reason(
            meaning="Texts with fewer tokens than a sequence has are not used.",
            action="Use the packing CONCATENATE, which joins them, or lower `sequence_length`.",
        ),
        "TEXT_FILE_FORMAT": Reason(
            meaning="The name of the file ends in neither .txt nor .jsonl.",
            action="Give paragraphs in a .txt file, or JSON objects in a .jsonl file, one a line.",
        ),
        "TEXT_FILE_UNREADABLE": Reason(
            meaning="The file is no regular file, or cannot be read.",
            action="Name a regular file that the server's user may read, and check the storage "
            "that holds it.",
        ),
        "TEXT_NOT_UTF8": Reason(
            meaning="The file is no UTF-8 text.",
            action="Save it as UTF-8.",
        ),
        "TEXT_READ_IN_PARTS": Reason(
            meaning="The file is larger than what is needed of it, and only a part is read.",
            action="Nothing has to change.",
        ),
        "TOKEN_BEYOND_VOCABULARY": Reason(
            meaning="A token id, given or made by the tokenizer, is not in the model's vocabulary.",
            action="Use the tokenizer of this model; restore its files if they are those of "
            "another.",
        ),
        "TOO_FEW_SAMPLES": Reason(
            meaning="The data gives fewer sequences than are asked for.",
            action="Give more text, or lower `num_samples` or `sequence_length`.",
        ),
        "TOO_FEW_TOKENS": Reason(
            meaning="A module saw so few calibration tokens that it was quantized without them; "
            "experts that are rarely chosen are like that.",
            action="Calibrate with more, or with more varied, data.",
        ),
        "TOO_MANY_TOKENS": Reason(
            meaning="More tokens are asked for than a job may use.",
            action="Lower `num_samples` or `sequence_length`.",
        ),
    },
)
