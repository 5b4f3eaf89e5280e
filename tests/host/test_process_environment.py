"""What the processes of this server get of its environment."""

from __future__ import annotations

import pytest

from quantd_server.host.process_environment import process_environment


@pytest.mark.parametrize(
    "name",
    [
        *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN", "TRANSFORMERS_TOKEN"),
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"),
        *("GOOGLE_APPLICATION_CREDENTIALS", "AZURE_CLIENT_SECRET", "WANDB_API_KEY", "NGC_API_KEY"),
        *("QUANTD_TOKEN", "QUANTD_TOKENS", "QUANTD_TLS_KEY", "DATABASE_URL", "PGPASSWORD"),
        *("SSH_AUTH_SOCK", "KUBECONFIG", "HTTPS_PROXY", "GITHUB_TOKEN", "NVIDIA_API_KEY"),
        *("PYTHON_KEYRING_BACKEND", "PIP_INDEX_URL", "UV_INDEX_URL", "MY_OWN"),
    ],
)
def test_secrets_stay_here(monkeypatch, name):
    monkeypatch.setenv(name, "x")
    assert name not in process_environment()


@pytest.mark.parametrize(
    "name",
    [
        *("PATH", "HOME", "PYTHONPATH", "LC_ALL", "TMPDIR", "XDG_CACHE_HOME", "LD_LIBRARY_PATH"),
        *("NUMBA_CACHE_DIR", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"),
        *("PYTORCH_CUDA_ALLOC_CONF", "TORCHINDUCTOR_CACHE_DIR", "TOKENIZERS_PARALLELISM"),
        *("MKL_NUM_THREADS", "BNB_CUDA_VERSION", "HF_HOME"),
    ],
)
def test_what_libraries_need_goes_along(monkeypatch, name):
    monkeypatch.setenv(name, "x")
    assert process_environment()[name] == "x"


def test_nothing_asks_the_network_and_what_is_given_counts(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    made = process_environment(OMP_NUM_THREADS="2")
    assert (made["HF_HUB_OFFLINE"], made["TRANSFORMERS_OFFLINE"]) == ("1", "1")
    assert made["OMP_NUM_THREADS"] == "2"
