"""Builders of method configurations make the messages of the spec."""

from __future__ import annotations

import inspect

import pytest

import quantd
from quantd import v1


def test_a_builder_sets_what_was_given_and_nothing_else():
    config = quantd.bitsandbytes_4bit("nf4", bnb_4bit_use_double_quant=False, blocksize=64)
    assert config == v1.MethodConfig(
        bitsandbytes_4bit=v1.Bitsandbytes4BitConfig(
            bnb_4bit_quant_type="FOUR_BIT_TYPE_NF4", bnb_4bit_use_double_quant=False, blocksize=64
        )
    )
    assert not config.bitsandbytes_4bit.HasField("bnb_4bit_compute_dtype")


def test_a_builder_without_arguments_still_chooses_the_method():
    assert quantd.gguf().WhichOneof("config") == "gguf"


def test_tensor_types_keep_their_order():
    config = quantd.gguf("q4_k_m", tensor_types={"attn_v": "Q6_K", "attn": "Q5_K"})
    rules = [
        (rule.pattern, quantd.name_of(v1.GgmlType, rule.type)) for rule in config.gguf.tensor_types
    ]
    assert rules == [("attn_v", "Q6_K"), ("attn", "Q5_K")]


@pytest.mark.parametrize("method", quantd.METHODS)
def test_each_method_has_a_builder_with_a_parameter_for_every_field(method):
    builder = getattr(quantd, method)
    message = v1.MethodConfig.DESCRIPTOR.fields_by_name[method].message_type
    assert set(inspect.signature(builder).parameters) == set(message.fields_by_name)


@pytest.mark.parametrize("name", quantd.names(v1.GgufFileType))
def test_every_file_type_is_known_by_its_name(name):
    number = quantd.gguf(name.lower()).gguf.file_type
    assert quantd.name_of(v1.GgufFileType, number) == name


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: quantd.gguf("Q4_K_X"), ValueError, r"file_type: 'Q4_K_X' .* did you mean Q4_K_"),
        (lambda: quantd.gguf("Q4_0", fille=1), TypeError, "unexpected keyword argument 'fille'"),
        (lambda: quantd.gguf(tensor_types={"a": "Q9"}), ValueError, "tensor_types: type: 'Q9'"),
        (lambda: quantd.gptq(bits=-1), ValueError, "bits: "),
        (lambda: quantd.gptq(bits="4"), TypeError, "bits: "),
        (lambda: quantd.awq(modules_to_not_convert="lm_head"), TypeError, "expected, as a list"),
        (lambda: quantd.method_config("q4"), ValueError, "'q4' is not one of bitsandbytes_8bit"),
        (lambda: quantd.method_config("awq", sym=True), TypeError, "AwqConfig has no field 'sym'"),
    ],
)
def test_wrong_arguments_are_named(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_a_number_newer_than_this_package_has_a_name_too():
    assert quantd.name_of(v1.GgufFileType, 4711) == "4711"


@pytest.mark.parametrize(
    ("text", "size"),
    [(1 << 20, 1 << 20), ("5GB", 5 * 10**9), ("1.5 GiB", 3 << 29), ("500mb", 5 * 10**8), ("7", 7)],
)
def test_sizes(text, size):
    assert quantd.size_in_bytes(text, "size") == size


@pytest.mark.parametrize("text", ["", "GB", "5 parsecs", "-1GB", "1e9"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="is no size"):
        quantd.size_in_bytes(text, "size")
