"""The environment of the processes that this server starts: what libraries need, and no secrets.

Workers and planners read files that strangers made. What is not in their environment cannot leak
from them: no token, no key of a cloud, no setting of this server. The names that libraries read are
a short list; those that hold secrets are not, so it is the former that is written down.
"""

from __future__ import annotations

import os

NAMES = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ"),
        *("TMPDIR", "TMP", "TEMP", "LD_LIBRARY_PATH", "LD_PRELOAD", "GLIBC_TUNABLES"),
        *("VIRTUAL_ENV", "HF_HOME", "HF_HUB_CACHE", "GPU_DEVICE_ORDINAL"),
    }
)
PREFIXES = (
    # the interpreter, locale and caches
    *("PYTHON", "LC_", "XDG_", "MALLOC_", "DYLD_"),
    # threads and compilers
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "NUMBA_", "TRITON_"),
    # devices
    *("CUDA_", "NVIDIA_", "HIP_", "ROCR_", "ROCM_", "HSA_", "ZE_", "ONEAPI_", "SYCL_"),
    # libraries
    *("TORCH", "PYTORCH_", "TRANSFORMERS_", "TOKENIZERS_", "BNB_"),
)
SECRET_WORDS = ("TOKEN", "SECRET", "PASSWORD", "CREDENTIAL", "KEY")
"""Not even where a prefix would let them through."""
NOT_SECRET = frozenset({"TOKENIZERS_PARALLELISM"})

OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
"""Sources are files of this host; nothing that reads them has a reason to ask the network."""


def process_environment(**variables: str) -> dict[str, str]:
    """The variables for a process of ours, ``variables`` among them."""
    kept = {name: value for name, value in os.environ.items() if _is_kept(name)}
    return {**kept, **OFFLINE, **variables}


def _is_kept(name: str) -> bool:
    if name in NOT_SECRET:
        return True
    if any(word in name for word in SECRET_WORDS):
        return False
    return name in NAMES or name.startswith(PREFIXES)
