"""Reason codes without a vector, and why: what a client library cannot bring about on any machine.

A test holds this table and the vectors against the list of all codes, so that each is in one of
the two. Every code here has tests of its own, below tests/.
"""

from __future__ import annotations

STARTING = "`quantd serve` prints it and does not start, so that no client sees it"
DEVICE = "it takes a GPU, or a torch, of a certain kind"
BROKEN_HOST = "it takes a disk or a system that fails at the right moment"
BYTES = "a client library sends what the spec generates, and nothing else"

WITHOUT_VECTOR: dict[str, str] = {
    "EXPOSED_WITHOUT_CREDENTIALS": STARTING,
    "EXPOSED_WITHOUT_ENCRYPTION": STARTING,
    "SECRET_FILE_EXPOSED": STARTING,
    "SECRET_FILE_UNREADABLE": STARTING,
    "STATE_IN_USE": STARTING,
    "STATE_TOO_NEW": STARTING,
    "STATE_UNREADABLE": STARTING,
    "TLS_FILE_INVALID": STARTING,
    "TLS_OPTIONS_INCOMPLETE": STARTING,
    "TOKEN_FILE_INVALID": STARTING,
    "TRACING_NOT_INSTALLED": STARTING,
    "TRACING_NOT_SUPPORTED": STARTING,
    "BITSANDBYTES_LACKS_DEVICE": DEVICE,
    "DEVICE_MISSING": DEVICE,
    "DEVICE_NOT_SERVED": DEVICE,
    "MEMORY_UNKNOWN": DEVICE,
    "TORCH_BUILT_FOR_OTHER_DEVICE": DEVICE,
    "TORCH_CANNOT_USE_DEVICE": DEVICE,
    "TORCH_DOES_NOT_WORK": DEVICE,
    "TORCH_LACKS_KERNELS": DEVICE,
    "TORCH_NOT_ASKED_YET": DEVICE,
    "BLOCKS_SOLVED_AGAIN": "the processor, torch or a record has to change between two workers",
    "CALIBRATION_CHANGED": "a text has to change between a job's plan and its beginning",
    "CAPABILITIES_UNKNOWN": BROKEN_HOST,
    "DISK_FULL": BROKEN_HOST,
    "OUTPUT_PARENT_NOT_FOUND": BROKEN_HOST,
    "READ_FAILED": BROKEN_HOST,
    "SCRATCH_FAILED": BROKEN_HOST,
    "STATE_NOT_WRITABLE": BROKEN_HOST,
    "KILLED_FOR_MEMORY": "the kernel has to run out of memory",
    "OUT_OF_MEMORY": "the worker has to run out of memory",
    "MEMORY_TIGHT": "it depends on the memory that is free, to a tenth",
    "PLANNING_FAILED": "it takes a text that is slow, or large, to parse on this very machine",
    "CREDENTIALS_CHANGED": "iterators bridge it, and the operator has to change a file meanwhile",
    "METHOD_NOT_FOUND": BYTES,
    "REQUEST_MISSING": BYTES,
    "REQUEST_NOT_DECODABLE": BYTES,
    "RULE_NOT_EVALUABLE": "no rule of this spec fails for any message; a test makes one that does",
    "CERTIFICATE_UNKNOWN": "the contract of runners has tokens, and no client certificates",
    "INTERNAL": "no way to a fault of the server is known",
    "NOT_A_DIRECTORY": "a source that is a file is told as SOURCE_KIND_UNKNOWN before",
    "PACKAGE_TOO_OLD": "requirements.lock installs packages that are new enough",
    "SHUTTING_DOWN": "iterators bridge it; the vectors of servers that stop make it happen",
}
