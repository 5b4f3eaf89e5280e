package quantd

import "github.com/quantd/quantd/clients/go/quantdv1"

// The functions below build a MethodConfig, one for each method. What is left out is filled by the
// server, which also checks the values; the comments of the messages say what they mean.

// LLMInt8 is bitsandbytes' int8 codes with one scale a row.
func LLMInt8(changes ...func(*quantdv1.Bitsandbytes8BitConfig)) *quantdv1.MethodConfig {
	config := changed(&quantdv1.Bitsandbytes8BitConfig{}, changes)
	return &quantdv1.MethodConfig{
		Config: &quantdv1.MethodConfig_Bitsandbytes_8Bit{Bitsandbytes_8Bit: config},
	}
}

// NF4 is bitsandbytes' 4-bit normal float, with one scale a block.
func NF4(changes ...func(*quantdv1.Bitsandbytes4BitConfig)) *quantdv1.MethodConfig {
	return fourBit(quantdv1.FourBitType_FOUR_BIT_TYPE_NF4, changes)
}

// FP4 is bitsandbytes' 4-bit float, with one scale a block.
func FP4(changes ...func(*quantdv1.Bitsandbytes4BitConfig)) *quantdv1.MethodConfig {
	return fourBit(quantdv1.FourBitType_FOUR_BIT_TYPE_FP4, changes)
}

// GGUF is a .gguf file for llama.cpp by a recipe.
func GGUF(
	recipe quantdv1.GgufFileType, changes ...func(*quantdv1.GgufConfig),
) *quantdv1.MethodConfig {
	config := changed(&quantdv1.GgufConfig{FileType: &recipe}, changes)
	return &quantdv1.MethodConfig{Config: &quantdv1.MethodConfig_Gguf{Gguf: config}}
}

// GPTQ is second-order rounding on calibration data, to 2, 3, 4 or 8 bits.
func GPTQ(bits uint32, changes ...func(*quantdv1.GptqConfig)) *quantdv1.MethodConfig {
	config := changed(&quantdv1.GptqConfig{Bits: &bits}, changes)
	return &quantdv1.MethodConfig{Config: &quantdv1.MethodConfig_Gptq{Gptq: config}}
}

// AWQ is 4 bits, with input channels scaled by their activations before rounding.
func AWQ(changes ...func(*quantdv1.AwqConfig)) *quantdv1.MethodConfig {
	config := changed(&quantdv1.AwqConfig{}, changes)
	return &quantdv1.MethodConfig{Config: &quantdv1.MethodConfig_Awq{Awq: config}}
}

// AQLM is sums of codebook vectors: so many codebooks, with indices of so many bits.
func AQLM(codebooks, bits uint32, changes ...func(*quantdv1.AqlmConfig)) *quantdv1.MethodConfig {
	config := changed(&quantdv1.AqlmConfig{NumCodebooks: &codebooks, NbitsPerCodebook: &bits}, changes)
	return &quantdv1.MethodConfig{Config: &quantdv1.MethodConfig_Aqlm{Aqlm: config}}
}

func fourBit(
	kind quantdv1.FourBitType, changes []func(*quantdv1.Bitsandbytes4BitConfig),
) *quantdv1.MethodConfig {
	config := changed(&quantdv1.Bitsandbytes4BitConfig{Bnb_4BitQuantType: &kind}, changes)
	return &quantdv1.MethodConfig{
		Config: &quantdv1.MethodConfig_Bitsandbytes_4Bit{Bitsandbytes_4Bit: config},
	}
}

func changed[T any](config *T, changes []func(*T)) *T {
	for _, change := range changes {
		change(config)
	}
	return config
}
