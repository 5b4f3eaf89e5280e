"""The output."""

from __future__ import annotations

from quantd_server.reasons.entry import Area, Reason

AREA = Area(
    title="The output",
    about="Where a result goes.",
    reasons={
        "DISK_FULL": Reason(
            meaning="The disk filled up while the result, or what the job keeps beside it, was "
            "written.",
            action="Free disk space, or choose an `output_uri` on a larger disk, then quantize "
            "again.",
        ),
        "DISK_TOO_SMALL": Reason(
            meaning="The result does not fit on the disk.",
            action="Free as many bytes as the remedy says, or choose an `output_uri` on another "
            "disk.",
        ),
        "OUTPUT_FORM": Reason(
            meaning="The method writes a single .gguf file and `output_uri` names none, or the "
            "other way round.",
            action="Let `output_uri` end in .gguf for gguf, and name a folder for the other "
            "methods.",
        ),
        "OUTPUT_INSIDE_SOURCE": Reason(
            meaning="The output lies in the source, or the source in the output.",
            action="Name an output beside the source.",
        ),
        "OUTPUT_IN_USE": Reason(
            meaning="A job that has not ended writes the same output.",
            action="Choose another `output_uri`, or wait for that job.",
        ),
        "OUTPUT_NAME_TOO_LONG": Reason(
            meaning="The path, or one name in it, is longer than file systems allow.",
            action="Name a shorter path.",
        ),
        "OUTPUT_NOT_EMPTY": Reason(
            meaning="Something is at `output_uri` that is not an empty folder; nothing is ever "
            "replaced.",
            action="Choose another `output_uri`, or remove what is there.",
        ),
        "OUTPUT_NOT_WRITABLE": Reason(
            meaning="The server may not write, or remove, the output.",
            action="Give the server's user permission, or choose another `output_uri`.",
        ),
        "OUTPUT_PARENT_NOT_FOUND": Reason(
            meaning="The folder that shall hold the output is not there any more.",
            action="Create the folder, then quantize again.",
        ),
        "SCRATCH_FAILED": Reason(
            meaning="What the job keeps on disk beside the result could not be written or read.",
            action="Check the disk that holds the output, then quantize again.",
        ),
    },
)
