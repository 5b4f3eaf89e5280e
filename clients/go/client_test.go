package quantd_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/quantd/quantd/clients/go"
	"github.com/quantd/quantd/clients/go/internal/servertest"
	"github.com/quantd/quantd/clients/go/quantdv1"
)

func TestQuestions(t *testing.T) {
	server := servertest.Start(t)
	client, ctx := dial(t, server.Address), within(t)
	if err := client.WaitUntilServing(ctx); err != nil {
		t.Fatal(err)
	}
	small := server.WriteSmall(t, "small", 2)
	// More tensors than fit into a page.
	deep := server.WriteSmall(t, "deep", 230)
	const deepTensors = 230*9 + 2

	t.Run("Capabilities", func(t *testing.T) {
		answer := must(client.Capabilities(ctx))(t)
		if len(answer.GetMethods()) != 6 || answer.GetServer().GetInstanceId() == "" {
			t.Errorf("got %v", answer)
		}
		refreshed := must(client.RefreshCapabilities(ctx))(t)
		if got := refreshed.GetTorch().GetState(); got != quantdv1.TorchState_TORCH_STATE_PENDING {
			t.Errorf("after a refresh torch is asked again, but its state is %v", got)
		}
	})

	t.Run("Inspect", func(t *testing.T) {
		answer := must(client.Inspect(ctx, small, quantd.WithContextLength(77)))(t)
		if got := answer.GetCheckpoint().GetModelType(); got != "llama" {
			t.Errorf("model type %q", got)
		}
		if len(answer.GetTensors()) != 0 {
			t.Error("nobody asked for tensors")
		}
		// Keys and values of 2 layers, 2 heads of 16 elements, 2 bytes each.
		if got := answer.GetLoads()[0].GetKvCacheBytes(); got != 77*2*2*2*16*2 {
			t.Errorf("the cache takes %d bytes", got)
		}
		all := must(client.Inspect(ctx, deep, quantd.WithTensors()))(t)
		names := map[string]bool{}
		for _, tensor := range all.GetTensors() {
			names[tensor.GetName()] = true
		}
		if len(names) != deepTensors || len(all.GetTensors()) != deepTensors {
			t.Errorf("got %d tensors, %d names", len(all.GetTensors()), len(names))
		}
	})

	t.Run("ParseConfig", func(t *testing.T) {
		answer := must(client.ParseConfig(ctx, `{"quant_method": "gptq", "bits": 4, "group_size": 64}`))(t)
		got := answer.GetMethod().GetGptq()
		if got.GetBits() != 4 || got.GetGroupSize() != 64 {
			t.Errorf("got %v", answer)
		}
	})

	t.Run("Plan", func(t *testing.T) {
		asked := spec(deep, "", quantd.NF4())
		answer := must(client.Plan(ctx, asked, quantd.WithTensors()))(t)
		if !answer.GetExecutable() || len(answer.GetTensors()) != deepTensors {
			t.Errorf("executable %v, %d tensors", answer.GetExecutable(), len(answer.GetTensors()))
		}
		bare := must(client.Plan(ctx, asked))(t)
		if len(bare.GetTensors()) != 0 || !proto.Equal(bare.GetPlan(), answer.GetPlan()) {
			t.Error("the plan depends on whether tensors are listed")
		}
	})

	t.Run("Stubs", func(t *testing.T) {
		quantization, _ := client.Stubs()
		page := must(quantization.InspectCheckpoint(ctx, &quantdv1.InspectCheckpointRequest{
			SourceUri: small, PageSize: 3,
		}))(t)
		if len(page.GetTensors()) != 3 || page.GetNextPageToken() == "" {
			t.Errorf("got %v", page)
		}
	})
}

func TestAJobFromPlanToDeletion(t *testing.T) {
	server := servertest.Start(t)
	client, ctx := dial(t, server.Address), within(t)
	asked := spec(server.WriteSmall(t, "small", 2), server.Path("small-nf4"), quantd.NF4())
	plan := must(client.Plan(ctx, asked, quantd.WithTensors()))(t)

	labels := map[string]string{"team": "a"}
	job := must(client.Quantize(ctx, asked, quantd.WithLabels(labels)))(t)
	done := map[string]string{}
	next := job.LastSequence() + 1
	for event, err := range job.Events(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if event.GetHeartbeat() == nil {
			if event.GetSequence() != next {
				t.Errorf("got event %d, expected %d", event.GetSequence(), next)
			}
			next++
		}
		if tensor := event.GetTensor(); tensor != nil {
			done[tensor.GetName()] = tensor.GetTargetType()
		}
	}
	for _, tensor := range plan.GetTensors() {
		if done[tensor.GetTargetName()] != tensor.GetTargetType() {
			t.Errorf("%s: %q", tensor.GetTargetName(), done[tensor.GetTargetName()])
		}
	}
	result := must(job.Result(ctx))(t)
	file, err := os.Stat(server.Path("small-nf4/model.safetensors"))
	if err != nil || uint64(file.Size()) != result.GetOutputBytes() {
		t.Errorf("the result has %d bytes, the file %v, %v", result.GetOutputBytes(), file, err)
	}

	got := must(client.Jobs.Get(ctx, job.Name()))(t)
	if got.GetLabels()["team"] != "a" || !proto.Equal(got, job.Snapshot()) {
		t.Errorf("got %v, the events told %v", got, job.Snapshot())
	}
	again := must(client.Jobs.Cancel(ctx, job.Name(), "too late"))(t)
	if again.GetState() != quantdv1.JobState_JOB_STATE_SUCCEEDED {
		t.Errorf("a finished job is %v after it was cancelled", again.GetState())
	}
	if err := client.Jobs.DeleteWithOutput(ctx, job.Name()); err != nil {
		t.Fatal(err)
	}
	if exists(server.Path("small-nf4")) {
		t.Error("the output is still there")
	}
	_, err = client.Jobs.Get(ctx, job.Name())
	failure := failed(t, err)
	if failure.Code != codes.NotFound || failure.Reason != "JOB_NOT_FOUND" || failure.RequestID == "" {
		t.Errorf("got %#v", failure)
	}
	if failure.Remedy == "" || !strings.HasSuffix(failure.Message, failure.Remedy) {
		t.Errorf("the remedy is %q, the message %q", failure.Remedy, failure.Message)
	}
}

func TestListing(t *testing.T) {
	server := servertest.Start(t)
	client, ctx := dial(t, server.Address), within(t)
	source := server.WriteSmall(t, "small", 1)
	var made []string
	for _, name := range []string{"a", "b", "c"} {
		job := must(client.Quantize(ctx, spec(source, server.Path(name), quantd.LLMInt8()),
			quantd.WithLabels(map[string]string{"name": name})))(t)
		must(job.Cancel(ctx, ""))(t)
		for _, err := range job.Events(ctx) {
			if err != nil {
				t.Fatal(err)
			}
		}
		made = append(made, job.Name())
	}
	list := func(filter *quantdv1.ListJobsRequest) (names []string) {
		for job, err := range client.Jobs.List(ctx, filter) {
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, job.GetName())
		}
		return names
	}
	newestFirst := []string{made[2], made[1], made[0]}
	onePerPage := &quantdv1.ListJobsRequest{PageSize: 1}
	expect(t, list(nil), newestFirst...)
	expect(t, list(onePerPage), newestFirst...)
	expect(t, list(&quantdv1.ListJobsRequest{Labels: map[string]string{"name": "b"}}), made[1])
	expect(t, list(&quantdv1.ListJobsRequest{Methods: []quantdv1.Method{quantdv1.Method_METHOD_GGUF}}))
	if onePerPage.GetPageToken() != "" {
		t.Error("the filter was changed")
	}
	for range client.Jobs.List(ctx, onePerPage) {
		break // is allowed
	}
	for _, err := range client.Jobs.List(ctx, &quantdv1.ListJobsRequest{PageToken: "x"}) {
		if got := failed(t, err).Reason; got != "PAGE_TOKEN_INVALID" {
			t.Errorf("got %s", got)
		}
	}

	if err := client.Jobs.Delete(ctx, made[0]); err != nil {
		t.Fatal(err)
	}
	expect(t, list(nil), made[2], made[1])
}

func expect(t *testing.T, got []string, wanted ...string) {
	t.Helper()
	if !slices.Equal(got, wanted) {
		t.Fatalf("got %v, expected %v", got, wanted)
	}
}
