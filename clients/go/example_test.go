package quantd_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/quantd/quantd/clients/go"
	"github.com/quantd/quantd/clients/go/quantdv1"
)

func Example() {
	ctx := context.Background()
	client, err := quantd.Dial("127.0.0.1:50051")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	spec := &quantdv1.QuantizationSpec{
		SourceUri: "/models/smollm2",
		OutputUri: "/models/smollm2-Q4_K_M.gguf",
		Method:    quantd.GGUF(quantdv1.GgufFileType_GGUF_FILE_TYPE_Q4_K_M),
	}
	job, err := client.Quantize(ctx, spec)
	if err != nil {
		log.Fatal(err)
	}
	for event, err := range job.Events(ctx) { // a lost connection is made anew
		if err != nil {
			log.Fatal(err)
		}
		if tensor := event.GetTensor(); tensor != nil {
			fmt.Printf("%s %s %.2f%%\n", tensor.GetName(), tensor.GetTargetType(), 100*tensor.GetRelativeError())
		}
	}
	result, err := job.Result(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.GetOutputBytes(), result.GetRelativeError(), result.GetWorstTensor())
}

func ExampleClient_Plan() {
	ctx := context.Background()
	client, err := quantd.Dial("127.0.0.1:50051")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	answer, err := client.Plan(ctx, &quantdv1.QuantizationSpec{
		SourceUri: "/models/smollm2",
		Method: quantd.GPTQ(4, func(config *quantdv1.GptqConfig) {
			config.GroupSize = new(int32(64))
		}),
		Calibration:  quantd.CalibrationFile("/data/texts.txt"),
		ServeTargets: []*quantdv1.ServeTarget{{Engine: quantdv1.Engine_ENGINE_VLLM, ComputeCapability: "8.6"}},
	}, quantd.WithTensors())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer.GetExecutable(), answer.GetPlan().GetOutputBytes(), answer.GetPlan().GetPeakMemoryBytes())
	for _, finding := range answer.GetFindings() { // everything at once, not the first thing only
		fmt.Println(finding.GetReason(), finding.GetField(), finding.GetMessage(), finding.GetRemedy())
	}
	for _, tensor := range answer.GetTensors() { // what happens to each, and why
		fmt.Println(tensor.GetTargetName(), tensor.GetTargetType(), tensor.GetReason())
	}
}

func ExampleError() {
	ctx := context.Background()
	client, err := quantd.Dial("127.0.0.1:50051")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	spec := &quantdv1.QuantizationSpec{
		SourceUri: "/models/smollm2", OutputUri: "/models/small", Method: quantd.NF4(),
	}

	job, err := client.Quantize(ctx, spec)
	if failure, ok := errors.AsType[*quantd.Error](err); ok {
		switch {
		case failure.Reason == "QUEUE_FULL":
			time.Sleep(failure.RetryAfter)
		case failure.Retryable():
			log.Print("the server cannot be reached: ", err)
		default:
			for _, each := range failure.Violations {
				log.Print(each.Field, each.Reason, each.Message)
			}
		}
		return
	}
	_, err = job.Result(ctx)
	if ended, ok := errors.AsType[*quantd.JobError](err); ok {
		log.Print(ended.Job.GetName(), ended.Cancelled(), err)
	}
}

func ExampleJobs() {
	ctx := context.Background()
	client, err := quantd.Dial("127.0.0.1:50051")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	running := &quantdv1.ListJobsRequest{
		States: []quantdv1.JobState{quantdv1.JobState_JOB_STATE_RUNNING},
		Labels: map[string]string{"team": "a"},
	}
	for job, err := range client.Jobs.List(ctx, running) { // page by page
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(job.GetName(), quantd.Name(job.GetState()), job.GetProgress().GetFraction())
		if _, err := client.Jobs.Cancel(ctx, job.GetName(), "no longer needed"); err != nil {
			log.Fatal(err)
		}
		if _, err := client.Jobs.Watch(job.GetName(), 0).Result(ctx); err != nil {
			log.Print(err) // it was cancelled
		}
	}
}

func ExampleDial() {
	overTLS, err := quantd.Dial("quantd.example.org:443",
		quantd.WithTLS(nil), quantd.WithToken(os.Getenv("QUANTD_TOKEN")))
	if err != nil {
		log.Fatal(err)
	}
	defer overTLS.Close()
	withCertificates, err := quantd.Dial("10.0.0.7:50051",
		quantd.WithRootCAs("ca.pem"), quantd.WithClientCertificate("chain.pem", "key.pem"))
	if err != nil {
		log.Fatal(err)
	}
	defer withCertificates.Close()
	local, err := quantd.Dial("unix:/run/quantd/socket")
	if err != nil {
		log.Fatal(err)
	}
	defer local.Close()
}
