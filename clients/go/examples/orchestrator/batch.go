package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/quantd/quantd/clients/go"
	"github.com/quantd/quantd/clients/go/quantdv1"
)

// maxAttempts is how often a job is submitted that fails for a reason that may pass.
const maxAttempts = 3

// batch is a set of jobs with a name.
type batch struct {
	name string
	rows []*row
}

// row is one job of a batch, and a line of its table.
type row struct {
	source string
	method string
	spec   *quantdv1.QuantizationSpec

	job      string
	attempts int
	tensors  int
	result   *quantdv1.QuantizationResult
	problem  error // why there is no result
}

// refusal is a finding that stands against a job.
type refusal struct{ *quantdv1.Finding }

func (r refusal) Error() string { return r.GetReason() + ": " + r.GetMessage() }

func (b *batch) add(source, method, folder string, config *quantdv1.MethodConfig) {
	output := path.Join(folder, path.Base(source)+"-"+method)
	if config.GetGguf() != nil {
		output += ".gguf"
	}
	spec := &quantdv1.QuantizationSpec{SourceUri: source, OutputUri: output, Method: config}
	b.rows = append(b.rows, &row{source: path.Base(source), method: method, spec: spec})
}

// run does all jobs at once; the server decides how many of them run.
func (b *batch) run(ctx context.Context, client *quantd.Client) {
	var jobs sync.WaitGroup
	for _, each := range b.rows {
		jobs.Go(func() { each.problem = b.quantize(ctx, client, each) })
	}
	jobs.Wait()
}

// quantize does one job, with more attempts where they make sense.
func (b *batch) quantize(ctx context.Context, client *quantd.Client, one *row) error {
	for {
		one.attempts++
		err := b.attempt(ctx, client, one)
		failed, ok := errors.AsType[*quantd.Error](err)
		if !ok || !failed.Retryable() {
			return err
		}
		if _, jobFailed := errors.AsType[*quantd.JobError](err); jobFailed && one.attempts >= maxAttempts {
			return err
		}
		if !wait(ctx, max(failed.RetryAfter, time.Second)) {
			return ctx.Err()
		}
		if _, jobFailed := errors.AsType[*quantd.JobError](err); !jobFailed {
			one.attempts-- // the queue was full: the same request again
		}
	}
}

func (b *batch) attempt(ctx context.Context, client *quantd.Client, one *row) error {
	// A job of ours may be there already, with its output: this would be found in its way.
	id := b.requestID(one)
	if one.job == "" && !b.isKnown(ctx, client, id) {
		plan, err := client.Plan(ctx, one.spec)
		if err != nil {
			return err
		}
		for _, finding := range plan.GetFindings() {
			if finding.GetSeverity() == quantdv1.Severity_SEVERITY_ERROR {
				return refusal{finding}
			}
		}
	}
	job, err := client.Quantize(ctx, one.spec, quantd.WithRequestID(id),
		quantd.WithLabels(map[string]string{"batch": b.name, "method": one.method}))
	if err != nil {
		return err
	}
	one.job, one.tensors = job.Name(), 0
	for event, err := range job.Events(ctx) {
		if err != nil {
			return err
		}
		if tensor := event.GetTensor(); tensor != nil {
			one.tensors = int(tensor.GetProgress().GetTensorsDone())
		}
	}
	one.result, err = job.Result(ctx)
	return err
}

// isKnown says whether the server has a job of a request.
func (b *batch) isKnown(ctx context.Context, client *quantd.Client, id string) bool {
	filter := &quantdv1.ListJobsRequest{Labels: map[string]string{"batch": b.name}}
	for job, err := range client.Jobs.List(ctx, filter) {
		if err == nil && job.GetRequestId() == id {
			return true
		}
	}
	return false
}

// requestID is the same UUID (version 8 of RFC 9562) whenever the same attempt is made.
func (b *batch) requestID(one *row) string {
	id := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s\n%d",
		b.name, one.spec.GetSourceUri(), one.spec.GetOutputUri(), one.attempts))
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:16])
}

// print writes the table. It returns an error unless every job has succeeded.
func (b *batch) print(output io.Writer) error {
	table := tabwriter.NewWriter(output, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SOURCE\tMETHOD\tSTATE\tATTEMPTS\tTENSORS\tMIB\tBITS\tERROR\tWHY")
	failed := 0
	for _, each := range b.rows {
		if each.problem != nil {
			failed++
			state := "REFUSED"
			if each.job != "" {
				state = "FAILED"
			}
			why, _, _ := strings.Cut(each.problem.Error(), "\n")
			fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%d\t\t\t\t%s\n",
				each.source, each.method, state, each.attempts, each.tensors, why)
			continue
		}
		fmt.Fprintf(table, "%s\t%s\tSUCCEEDED\t%d\t%d\t%.1f\t%.2f\t%.2f%%\t\n",
			each.source, each.method, each.attempts, each.tensors,
			float64(each.result.GetOutputBytes())/(1<<20), each.result.GetBitsPerWeight(),
			100*each.result.GetRelativeError())
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d jobs have no result", failed, len(b.rows))
	}
	return nil
}

// wait says whether the context is still alive after a pause.
func wait(ctx context.Context, pause time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(pause):
		return true
	}
}
