//! Constructors of [`MethodConfig`] with what is usually chosen. What they leave out is filled by
//! the server, which also checks the values. Everything else is a field of the method's own
//! message, which converts into a [`MethodConfig`].
//!
//! ```
//! use quantd_client::{method, v1};
//!
//! let nf4: v1::MethodConfig = method::bitsandbytes_4bit(v1::FourBitType::Nf4);
//! let gptq: v1::MethodConfig = v1::GptqConfig {
//!     bits: Some(4),
//!     desc_act: Some(true),
//!     ..Default::default()
//! }
//! .into();
//! assert_ne!(nf4, gptq);
//! ```

use crate::v1::method_config::Config;
use crate::v1::{
    AqlmConfig, AwqConfig, Bitsandbytes4BitConfig, Bitsandbytes8BitConfig, FourBitType, GgufConfig,
    GgufFileType, GptqConfig, MethodConfig,
};

/// LLM.int8: int8 codes with one scale a row.
pub fn bitsandbytes_8bit() -> MethodConfig {
    Bitsandbytes8BitConfig::default().into()
}

/// NF4 and FP4: 4-bit codes with one scale for 64 weights.
pub fn bitsandbytes_4bit(quant_type: FourBitType) -> MethodConfig {
    Bitsandbytes4BitConfig {
        bnb_4bit_quant_type: Some(quant_type.into()),
        ..Default::default()
    }
    .into()
}

/// A .gguf file for llama.cpp by one of its recipes, such as `Q4KM`.
pub fn gguf(file_type: GgufFileType) -> MethodConfig {
    GgufConfig {
        file_type: Some(file_type.into()),
        ..Default::default()
    }
    .into()
}

/// GPTQ: second-order rounding on calibration data, with 2, 3, 4 or 8 bits. `group_size` is the
/// number of weights per scale; -1 means one scale a row, and 128 is usual.
pub fn gptq(bits: u32, group_size: i32) -> MethodConfig {
    GptqConfig {
        bits: Some(bits),
        group_size: Some(group_size),
        ..Default::default()
    }
    .into()
}

/// AWQ: 4 bits, with input channels scaled by their activations before rounding. `group_size` is
/// the number of weights per scale; -1 means one scale a row, and 128 is usual.
pub fn awq(group_size: i32) -> MethodConfig {
    AwqConfig {
        group_size: Some(group_size),
        ..Default::default()
    }
    .into()
}

/// AQLM: every group of 8 weights is a sum of vectors, one from each of `num_codebooks` codebooks
/// of 2^`nbits_per_codebook` vectors. 1 and 16, or 2 and 8, are usual.
pub fn aqlm(num_codebooks: u32, nbits_per_codebook: u32) -> MethodConfig {
    AqlmConfig {
        num_codebooks: Some(num_codebooks),
        nbits_per_codebook: Some(nbits_per_codebook),
        ..Default::default()
    }
    .into()
}

macro_rules! method_config_from {
    ($($message:ident => $method:ident),* $(,)?) => {$(
        impl From<$message> for MethodConfig {
            fn from(config: $message) -> Self {
                Self { config: Some(Config::$method(config)) }
            }
        }
    )*};
}

method_config_from! {
    Bitsandbytes8BitConfig => Bitsandbytes8bit,
    Bitsandbytes4BitConfig => Bitsandbytes4bit,
    GptqConfig => Gptq,
    AwqConfig => Awq,
    GgufConfig => Gguf,
    AqlmConfig => Aqlm,
}
