package quantd_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/quantd/quantd/clients/go"
	"github.com/quantd/quantd/clients/go/internal/servertest"
	"github.com/quantd/quantd/clients/go/quantdv1"
)

// failed is the typed error of a call that has to fail.
func failed(t *testing.T, err error) *quantd.Error {
	t.Helper()
	failure, ok := errors.AsType[*quantd.Error](err)
	if !ok {
		t.Fatalf("got %v, expected a *quantd.Error", err)
	}
	return failure
}

func TestErrors(t *testing.T) {
	server := servertest.Start(t, "--max-queued-jobs=1")
	client, ctx := dial(t, server.Address), within(t)
	small := server.WriteSmall(t, "small", 1)

	t.Run("everything wrong is said at once", func(t *testing.T) {
		wrong := quantd.GPTQ(5, func(config *quantdv1.GptqConfig) { config.GroupSize = new(int32(100)) })
		_, err := client.Quantize(ctx, spec("", "", wrong))
		failure := failed(t, err)
		if failure.Code != codes.InvalidArgument || failure.Retryable() {
			t.Errorf("got %#v", failure)
		}
		fields := map[string]string{}
		for _, each := range failure.Violations {
			fields[each.Field] = each.Reason
		}
		for _, field := range []string{
			"spec.source_uri", "spec.method.gptq.bits", "spec.method.gptq.group_size",
		} {
			if fields[field] == "" || !strings.Contains(failure.Error(), "\n  "+field+": ") {
				t.Errorf("%s is missing in %v, or in %q", field, fields, failure)
			}
		}
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("gRPC takes it for %v", status.Code(err))
		}
	})

	t.Run("preconditions", func(t *testing.T) {
		pickled := server.Path("pickled")
		if err := os.Mkdir(pickled, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{
			"config.json": `{"model_type": "llama"}`, "pytorch_model.bin": "x",
		} {
			if err := os.WriteFile(pickled+"/"+name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, err := client.Quantize(ctx, spec(pickled, server.Path("out"), quantd.NF4()))
		failure := failed(t, err)
		if failure.Code != codes.FailedPrecondition || len(failure.Preconditions) != 1 {
			t.Fatalf("got %#v", failure)
		}
		got := failure.Preconditions[0]
		if got.Reason != "PICKLE_ONLY" || failure.Reason != got.Reason || got.Subject != "spec.source_uri" {
			t.Errorf("got %#v", got)
		}
	})

	t.Run("a request id is used again", func(t *testing.T) {
		id := quantd.WithRequestID("11111111-2222-4333-8444-555555555555")
		first := must(client.Quantize(ctx, spec(small, server.Path("one"), quantd.NF4()), id))(t)
		same := must(client.Quantize(ctx, spec(small, server.Path("one"), quantd.NF4()), id))(t)
		if first.Name() != same.Name() {
			t.Errorf("the same request made %s and %s", first.Name(), same.Name())
		}
		_, err := client.Quantize(ctx, spec(small, server.Path("other"), quantd.NF4()), id)
		failure := failed(t, err)
		if failure.Code != codes.AlreadyExists || failure.Reason != "REQUEST_ID_REUSED" {
			t.Errorf("got %#v", failure)
		}
		must(first.Cancel(ctx, "it was about its id"))(t)
	})

	t.Run("the queue is full", func(t *testing.T) {
		source := server.WriteSlow(t, "slow")
		running := must(client.Quantize(ctx, slow(source, server.Path("a.gguf"))))(t)
		for event, err := range running.Events(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			if event.GetStage() != nil {
				break
			}
		}
		waiting := must(client.Quantize(ctx, slow(source, server.Path("b.gguf"))))(t)
		_, err := client.Quantize(ctx, slow(source, server.Path("c.gguf")))
		failure := failed(t, err)
		if failure.Code != codes.ResourceExhausted || failure.Reason != "QUEUE_FULL" ||
			failure.RetryAfter < time.Second || failure.RetryAfter > 10*time.Minute || !failure.Retryable() {
			t.Errorf("got %#v", failure)
		}

		err = client.Jobs.Delete(ctx, running.Name())
		if got := failed(t, err).Reason; got != "JOB_NOT_FINISHED" {
			t.Errorf("got %s", got)
		}
		for _, job := range []*quantd.Job{waiting, running} {
			must(job.Cancel(ctx, "no longer needed"))(t)
			_, err = job.Result(ctx)
			ended, ok := errors.AsType[*quantd.JobError](err)
			if !ok || !ended.Cancelled() || !strings.Contains(err.Error(), "no longer needed") {
				t.Errorf("got %v", err)
			}
			if ended.Job.GetState() != quantdv1.JobState_JOB_STATE_CANCELLED {
				t.Errorf("got %v", ended.Job)
			}
			if got := failed(t, err).Code; got != codes.Canceled {
				t.Errorf("got %v", got)
			}
		}
	})

	t.Run("a job that fails says why", func(t *testing.T) {
		broken := server.WriteSmall(t, "broken", 1)
		damage(t, broken+"/model.safetensors")
		job := must(client.Quantize(ctx, spec(broken, server.Path("no"), quantd.LLMInt8())))(t)
		_, err := job.Result(ctx)
		ended, ok := errors.AsType[*quantd.JobError](err)
		if !ok || ended.Cancelled() {
			t.Fatalf("got %v", err)
		}
		if got := failed(t, err).Reason; got != "NON_FINITE_WEIGHTS" {
			t.Errorf("got %s: %v", got, err)
		}
	})

	t.Run("there is no such job", func(t *testing.T) {
		_, err := client.Jobs.Watch("jobs/nobody", 0).Result(ctx)
		if got := failed(t, err); got.Reason != "JOB_NOT_FOUND" || got.Retryable() {
			t.Errorf("got %#v", got)
		}
	})

	t.Run("watching from beyond the end", func(t *testing.T) {
		job := must(client.Quantize(ctx, spec(small, server.Path("two"), quantd.NF4())))(t)
		must(job.Result(ctx))(t)
		last := job.LastSequence()
		_, err := client.Jobs.Watch(job.Name(), last+1).Result(ctx)
		failure := failed(t, err)
		if failure.Code != codes.OutOfRange || failure.Metadata["last_sequence"] == "" {
			t.Errorf("got %#v", failure)
		}
		seen := client.Jobs.Watch(job.Name(), last)
		must(seen.Result(ctx))(t) // there is nothing left to see, but the result is known
		if seen.LastSequence() != last {
			t.Errorf("got %d, expected %d", seen.LastSequence(), last)
		}
		if err := client.Jobs.Delete(ctx, job.Name()); err != nil || !exists(server.Path("two")) {
			t.Errorf("the output is gone with its job, or not even that: %v", err)
		}
	})

	t.Run("this side ends the call", func(t *testing.T) {
		ended, cancel := context.WithCancel(ctx)
		cancel()
		_, err := client.Capabilities(ended)
		if failure := failed(t, err); !errors.Is(err, context.Canceled) || failure.Retryable() {
			t.Errorf("got %#v", failure)
		}
		impatient := dial(t, server.Address, quantd.WithTimeout(time.Nanosecond))
		if _, err = impatient.Capabilities(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestAServerThatIsNotThere(t *testing.T) {
	client := dial(t, "unix:"+t.TempDir()+"/none", quantd.WithReconnect(quantd.Reconnect{
		InitialDelay: time.Millisecond, MaxDelay: time.Millisecond, Timeout: 50 * time.Millisecond,
	}))
	_, err := client.Capabilities(t.Context())
	if failure := failed(t, err); failure.Code != codes.Unavailable || !failure.Retryable() {
		t.Errorf("got %#v", failure)
	}
	if _, err = client.Quantize(t.Context(), spec("/a", "/b", quantd.NF4())); !failed(t, err).Retryable() {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := client.WaitUntilServing(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// damage makes the last weight of a checkpoint infinite.
func damage(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copy(data[len(data)-2:], []byte{0x80, 0x7f}) // bfloat16, little-endian
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
