package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quantd/quantd/clients/go"
	"github.com/quantd/quantd/clients/go/internal/servertest"
)

func TestDecisions(t *testing.T) {
	server := servertest.Start(t)
	slow := server.WriteSlow(t, "slow") // 50 MiB in bfloat16
	for name, test := range map[string]struct {
		arguments []string
		decides   string
		refuses   string
	}{
		"as it is":           {nil, "load as it is with TRANSFORMERS on CPU:0", ""},
		"eight bits":         {[]string{"--memory=40000000"}, "load quantized to int8 with", ""},
		"four bits":          {[]string{"--memory=20000000"}, "load quantized to NF4 with", ""},
		"too little memory":  {[]string{"--memory=1000"}, "", "MEMORY_TOO_SMALL"},
		"engine not there":   {[]string{"--engine=vllm"}, "", "PACKAGE_MISSING"},
		"checkpoint damaged": {[]string{"damaged"}, "", "HEADER_TRUNCATED"},
	} {
		t.Run(name, func(t *testing.T) {
			source := slow
			if len(test.arguments) == 1 && test.arguments[0] == "damaged" {
				source, test.arguments = damaged(t, server), nil
			}
			var output strings.Builder
			arguments := append([]string{"--server=" + server.Address, "--context=64"}, test.arguments...)
			err := run(t.Context(), append(arguments, source), &output)
			if test.decides != "" {
				if err != nil || !strings.HasPrefix(output.String(), test.decides) {
					t.Errorf("got %q, %v; expected %q", output.String(), err, test.decides)
				}
				return
			}
			if got := reasonOf(err); !strings.HasPrefix(got, test.refuses) {
				t.Errorf("got %q, %v; expected %s", output.String(), err, test.refuses)
			}
		})
	}
	if err := run(t.Context(), []string{"--engine=none", slow}, os.Stdout); err == nil {
		t.Error("an engine that nobody knows is accepted")
	}
}

// damaged is a checkpoint whose weights are cut off.
func damaged(t *testing.T, server *servertest.Server) string {
	folder := server.WriteSmall(t, "damaged", 1)
	if err := os.Truncate(filepath.Join(folder, "model.safetensors"), 1000); err != nil {
		t.Fatal(err)
	}
	return folder
}

func reasonOf(err error) string {
	if refused, ok := errors.AsType[*refusal](err); ok {
		return refused.reason
	}
	if failure, ok := errors.AsType[*quantd.Error](err); ok {
		return failure.Reason
	}
	return ""
}
