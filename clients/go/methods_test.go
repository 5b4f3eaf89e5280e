package quantd_test

import (
	"testing"

	"github.com/quantd/quantd/clients/go"
	"github.com/quantd/quantd/clients/go/internal/servertest"
	"github.com/quantd/quantd/clients/go/quantdv1"
)

func TestMethods(t *testing.T) {
	server := servertest.Start(t)
	client, ctx := dial(t, server.Address), within(t)
	source := server.WriteSmall(t, "small", 1)
	tokens := quantd.CalibrationTokens([]uint32{1, 2, 3, 4, 5, 6, 7, 8}, []uint32{8, 7, 6, 5, 4, 3, 2, 1})
	small := func(config *quantdv1.GptqConfig) { config.GroupSize = new(int32(64)) }
	for name, test := range map[string]struct {
		method *quantdv1.MethodConfig
		data   *quantdv1.CalibrationConfig
		// check says whether the resolved configuration is what was asked for.
		check func(*quantdv1.MethodConfig) bool
	}{
		"LLMInt8": {
			method: quantd.LLMInt8(func(config *quantdv1.Bitsandbytes8BitConfig) {
				config.LlmInt8SkipModules = []string{"lm_head"}
			}),
			check: func(config *quantdv1.MethodConfig) bool {
				return config.GetBitsandbytes_8Bit().GetLlmInt8SkipModules()[0] == "lm_head"
			},
		},
		"NF4": {method: quantd.NF4(), check: func(config *quantdv1.MethodConfig) bool {
			return quantd.Name(config.GetBitsandbytes_4Bit().GetBnb_4BitQuantType()) == "NF4"
		}},
		"FP4": {method: quantd.FP4(), check: func(config *quantdv1.MethodConfig) bool {
			return quantd.Name(config.GetBitsandbytes_4Bit().GetBnb_4BitQuantType()) == "FP4"
		}},
		"GGUF": {
			method: quantd.GGUF(quantdv1.GgufFileType_GGUF_FILE_TYPE_Q8_0),
			check: func(config *quantdv1.MethodConfig) bool {
				return quantd.Name(config.GetGguf().GetFileType()) == "Q8_0"
			},
		},
		"GPTQ": {method: quantd.GPTQ(3, small), data: tokens, check: func(config *quantdv1.MethodConfig) bool {
			return config.GetGptq().GetBits() == 3 && config.GetGptq().GetGroupSize() == 64
		}},
		"AWQ": {
			method: quantd.AWQ(func(config *quantdv1.AwqConfig) { config.GroupSize = new(int32(32)) }),
			data:   quantd.CalibrationTexts("Some text that is long enough to be of use.", "More."),
			check: func(config *quantdv1.MethodConfig) bool {
				return config.GetAwq().GetGroupSize() == 32
			},
		},
		"AQLM": {method: quantd.AQLM(1, 4), data: tokens, check: func(config *quantdv1.MethodConfig) bool {
			return config.GetAqlm().GetNumCodebooks() == 1 && config.GetAqlm().GetNbitsPerCodebook() == 4
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if test.data.GetTexts() != nil {
				test.data.SequenceLength = new(uint32(8))
			}
			asked := &quantdv1.QuantizationSpec{
				SourceUri: source, Method: test.method, Calibration: test.data,
			}
			answer := must(client.Plan(ctx, asked))(t)
			if !answer.GetExecutable() || !test.check(answer.GetPlan().GetMethod()) {
				t.Errorf("got %v", answer)
			}
		})
	}

	t.Run("CalibrationFile", func(t *testing.T) {
		asked := &quantdv1.QuantizationSpec{
			SourceUri: source, Method: quantd.GPTQ(4, small),
			Calibration: quantd.CalibrationFile(server.Path("none.txt")),
		}
		answer := must(client.Plan(ctx, asked))(t)
		if got := answer.GetFindings()[0].GetField(); got != "spec.calibration.file.uri" {
			t.Errorf("got %v", answer.GetFindings())
		}
	})
}

func TestNames(t *testing.T) {
	for _, test := range []struct{ got, wanted string }{
		{quantd.Name(quantdv1.JobState_JOB_STATE_RUNNING), "RUNNING"},
		{quantd.Name(quantdv1.JobState_JOB_STATE_UNSPECIFIED), "UNSPECIFIED"},
		{quantd.Name(quantdv1.GgufFileType_GGUF_FILE_TYPE_Q4_K_M), "Q4_K_M"},
		{quantd.Name(quantdv1.FourBitType_FOUR_BIT_TYPE_NF4), "NF4"},
		{quantd.Name(quantdv1.JobState(99)), "99"},
	} {
		if test.got != test.wanted {
			t.Errorf("got %s, expected %s", test.got, test.wanted)
		}
	}
}
