package main

import (
	"strings"
	"testing"
	"time"

	"github.com/quantd/quantd/clients/go"
	"github.com/quantd/quantd/clients/go/internal/servertest"
	"github.com/quantd/quantd/clients/go/quantdv1"
)

var quick = quantd.WithReconnect(quantd.Reconnect{
	InitialDelay: 5 * time.Millisecond, MaxDelay: 100 * time.Millisecond, Timeout: time.Minute,
})

func TestABatchOverAServerThatIsKilled(t *testing.T) {
	// One job has a place in the queue, the others wait for one.
	server := servertest.Start(t, "--max-queued-jobs=1")
	small, slow := server.WriteSmall(t, "small", 2), server.WriteSlow(t, "slow")
	arguments := []string{
		"--server=" + server.Address, "--batch=nightly", "--output=" + server.Path("out"),
		"--methods=nf4,iq4_xs", small, slow,
	}
	killed := make(chan struct{})
	go func() {
		defer close(killed)
		waitForARunningJob(t, server)
		server.Kill(t)
		server.StartAgain(t)
	}()
	var output strings.Builder
	err := run(t.Context(), arguments, &output, quick)
	<-killed
	t.Logf("\n%s", output.String())
	rows := strings.Split(strings.TrimSpace(output.String()), "\n")[1:]
	if err != nil || len(rows) != 4 {
		t.Fatalf("got %d rows, %v", len(rows), err)
	}
	for _, row := range rows {
		if fields := strings.Fields(row); fields[2] != "SUCCEEDED" || fields[4] == "0" {
			t.Errorf("got %s", row)
		}
	}

	// The same batch again finds the same jobs, and makes none.
	var again strings.Builder
	if err := run(t.Context(), arguments, &again, quick); err != nil || again.String() != output.String() {
		t.Errorf("got %v\n%s", err, again.String())
	}

	// Another batch would write to the same places.
	arguments[1] = "--batch=other"
	var refused strings.Builder
	err = run(t.Context(), arguments, &refused, quick)
	if err == nil || strings.Count(refused.String(), "REFUSED") != 4 ||
		!strings.Contains(refused.String(), "OUTPUT_NOT_EMPTY") {
		t.Errorf("got %v\n%s", err, refused.String())
	}
}

func waitForARunningJob(t *testing.T, server *servertest.Server) {
	client, err := quantd.Dial(server.Address)
	if err != nil {
		t.Error(err)
		return
	}
	defer client.Close()
	running := &quantdv1.ListJobsRequest{
		States: []quantdv1.JobState{quantdv1.JobState_JOB_STATE_RUNNING},
	}
	for {
		for job, err := range client.Jobs.List(t.Context(), running) {
			if err != nil {
				t.Error(err)
				return
			}
			if job.GetProgress().GetTensorsDone() > 0 {
				return
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}
