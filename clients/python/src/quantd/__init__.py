"""Client of quantd, the server that quantizes language-model checkpoints.

`Client` and `AsyncClient` make the calls, `gguf`, `bitsandbytes_4bit` and the others say what to
do, and `quantd.v1` holds the messages.
"""

from quantd import v1
from quantd._async_client import AsyncClient
from quantd._async_job_stream import AsyncJobStream
from quantd._calibration import calibration, evaluation
from quantd._client import Client
from quantd._enumerations import name_of, names
from quantd._errors import (
    AlreadyExistsError,
    CallCancelledError,
    DeadlineExceededError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    JobCancelled,
    JobEndedError,
    JobFailed,
    NotFoundError,
    OutOfRangeError,
    PermissionDeniedError,
    Precondition,
    QuantdError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    Violation,
)
from quantd._follower import Reconnect
from quantd._job_stream import JobStream
from quantd._methods import (
    METHODS,
    aqlm,
    awq,
    bitsandbytes_4bit,
    bitsandbytes_8bit,
    gguf,
    gptq,
    method_config,
)
from quantd._specification import SpecOptions, serve_target, size_in_bytes
from quantd._version import VERSION as __version__  # noqa: N811
from quantd.v1 import JobEvent, MethodConfig, QuantizationResult

__all__ = [
    "METHODS",
    "AlreadyExistsError",
    "AsyncClient",
    "AsyncJobStream",
    "CallCancelledError",
    "Client",
    "DeadlineExceededError",
    "FailedPreconditionError",
    "InternalError",
    "InvalidArgumentError",
    "JobCancelled",
    "JobEndedError",
    "JobEvent",
    "JobFailed",
    "JobStream",
    "MethodConfig",
    "NotFoundError",
    "OutOfRangeError",
    "PermissionDeniedError",
    "Precondition",
    "QuantdError",
    "QuantizationResult",
    "Reconnect",
    "ResourceExhaustedError",
    "SpecOptions",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "Violation",
    "__version__",
    "aqlm",
    "awq",
    "bitsandbytes_4bit",
    "bitsandbytes_8bit",
    "calibration",
    "evaluation",
    "gguf",
    "gptq",
    "method_config",
    "name_of",
    "names",
    "serve_target",
    "size_in_bytes",
    "v1",
]
