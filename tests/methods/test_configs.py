"""Defaults fill what is unset, and only that."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quantd_server.methods.bitsandbytes import Bitsandbytes4Bit, Bitsandbytes8Bit
from quantd_server.methods.configs import (
    Bitsandbytes4BitConfig,
    Bitsandbytes8BitConfig,
    GgufConfig,
    MethodConfig,
)
from quantd_server.methods.gguf import Gguf


def test_values_that_are_false_are_set_all_the_same() -> None:
    given_config = Bitsandbytes8BitConfig(llm_int8_threshold=0.0)
    assert Bitsandbytes8Bit().resolve(given_config).llm_int8_threshold == 0.0


@given(config=st.from_type(Bitsandbytes4BitConfig))
def test_resolving_keeps_what_is_set_and_leaves_nothing_unset(
    config: Bitsandbytes4BitConfig,
) -> None:
    resolved = Bitsandbytes4Bit().resolve(config)
    for field in config.__struct_fields__:
        before, after = getattr(config, field), getattr(resolved, field)
        assert after is not None
        assert before in (None, after)
    assert Bitsandbytes4Bit().resolve(resolved) == resolved


def test_defaults_are_those_of_hugging_face() -> None:
    resolved = Bitsandbytes4Bit().resolve(Bitsandbytes4BitConfig())
    assert resolved.bnb_4bit_quant_type == "FP4"
    assert resolved.bnb_4bit_compute_dtype == "FLOAT32"
    assert resolved.blocksize == 64
    assert Gguf().resolve(GgufConfig()).file_type == "Q4_K_M"


def test_a_method_config_knows_which_field_is_set() -> None:
    config = MethodConfig.of("gguf", GgufConfig(file_type="Q8_0"))
    assert config.name == "gguf"
    assert config.value == GgufConfig(file_type="Q8_0")
