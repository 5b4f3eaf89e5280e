package quantd_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/quantd/quantd/clients/go"
	"github.com/quantd/quantd/clients/go/quantdv1"
)

// quick comes back at once, so that tests don't wait for pauses.
var quick = quantd.WithReconnect(quantd.Reconnect{
	InitialDelay: 5 * time.Millisecond, MaxDelay: 100 * time.Millisecond, Timeout: time.Minute,
})

// dial connects until the test ends.
func dial(t *testing.T, address string, options ...quantd.Option) *quantd.Client {
	t.Helper()
	client, err := quantd.Dial(address, append([]quantd.Option{quick}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// within is a context that ends long after the test should have.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// must is the value of a call that has to succeed.
func must[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

// spec of a job without calibration.
func spec(source, output string, method *quantdv1.MethodConfig) *quantdv1.QuantizationSpec {
	return &quantdv1.QuantizationSpec{SourceUri: source, OutputUri: output, Method: method}
}

// slow is a job that takes seconds for a checkpoint of WriteSlow.
func slow(source, output string) *quantdv1.QuantizationSpec {
	return spec(source, output, quantd.GGUF(quantdv1.GgufFileType_GGUF_FILE_TYPE_IQ4_XS))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
