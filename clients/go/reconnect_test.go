package quantd_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/quantd/quantd/clients/go"
	"github.com/quantd/quantd/clients/go/internal/servertest"
	"github.com/quantd/quantd/clients/go/quantdv1"
)

// record keeps the stored events of a job, and checks that each comes once and in order.
type record struct {
	t      *testing.T
	events []*quantdv1.JobEvent
}

// add takes an event in.
func (r *record) add(event *quantdv1.JobEvent) {
	r.t.Helper()
	if event.GetHeartbeat() != nil {
		return
	}
	r.events = append(r.events, event)
	if wanted := uint64(len(r.events)); event.GetSequence() != wanted {
		r.t.Fatalf("got event %d, expected %d", event.GetSequence(), wanted)
	}
}

// follow reads events until one of a kind was seen; without a kind to the end of the job.
func (r *record) follow(ctx context.Context, job *quantd.Job, until func(*quantdv1.JobEvent) bool) {
	r.t.Helper()
	for event, err := range job.Events(ctx) {
		if err != nil {
			r.t.Fatal(err)
		}
		r.add(event)
		if until != nil && until(event) {
			return
		}
	}
	if until != nil {
		r.t.Fatal("the job has ended too early")
	}
}

// expectWhole says that the job has succeeded and that its last event was seen.
func (r *record) expectWhole() {
	r.t.Helper()
	last := r.events[len(r.events)-1]
	job := last.GetSnapshot()
	if job.GetState() != quantdv1.JobState_JOB_STATE_SUCCEEDED ||
		job.GetLastSequence() != last.GetSequence() {
		r.t.Errorf("the last event is %v", last)
	}
}

// expectSame says that the server's log, read by somebody who was never disturbed, is the same.
func (r *record) expectSame(ctx context.Context, client *quantd.Client, name string) {
	r.t.Helper()
	undisturbed := &record{t: r.t}
	undisturbed.follow(ctx, client.Jobs.Watch(name, 0), nil)
	if len(undisturbed.events) != len(r.events) {
		r.t.Errorf("%d events, but the log has %d", len(r.events), len(undisturbed.events))
	}
}

func isTensor(event *quantdv1.JobEvent) bool { return event.GetTensor() != nil }

func TestServersThatAreKilled(t *testing.T) {
	server := servertest.Start(t)
	client, ctx := dial(t, server.Address), within(t)
	source := server.WriteSlow(t, "slow")
	job := must(client.Quantize(ctx, slow(source, server.Path("out.gguf"))))(t)
	seen := &record{t: t}
	kills := 2 // a third worker is the last one
	if testing.Short() {
		kills = 1
	}
	for range kills {
		seen.follow(ctx, job, isTensor)
		restarted := make(chan struct{})
		go func() {
			defer close(restarted)
			server.Kill(t)
			server.StartAgain(t)
		}()
		// The loop goes on while there is no server.
		seen.follow(ctx, job, func(event *quantdv1.JobEvent) bool {
			return event.GetWarning().GetReason() == "JOB_RETRIED"
		})
		<-restarted
	}
	seen.follow(ctx, job, nil)
	seen.expectWhole()
	must(job.Result(ctx))(t)
	seen.expectSame(ctx, client, job.Name())
}

func TestTwentyServersThatAreStopped(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	server := servertest.Start(t, "--grace=0")
	client, ctx := dial(t, server.Address), within(t)
	source := server.WriteSlow(t, "slow")
	job := must(client.Quantize(ctx, slow(source, server.Path("out.gguf"))))(t)
	seen := &record{t: t}
	var lock sync.Mutex
	count := func() int {
		lock.Lock()
		defer lock.Unlock()
		return len(seen.events)
	}
	restarted := make(chan struct{})
	go func() {
		defer close(restarted)
		for range 20 {
			for before := count(); count() == before; { // something has to come in between
				time.Sleep(time.Millisecond)
			}
			server.Stop(t)
			server.StartAgain(t)
		}
	}()
	for event, err := range job.Events(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		lock.Lock()
		seen.add(event)
		lock.Unlock()
	}
	<-restarted
	seen.expectWhole()
	seen.expectSame(ctx, client, job.Name())
}

func TestConnectionsThatAreCut(t *testing.T) {
	server := servertest.Start(t)
	proxy := servertest.StartProxy(t, server)
	client, ctx := dial(t, proxy.Address), within(t)
	source := server.WriteSmall(t, "deep", 60)
	job := must(client.Quantize(ctx, spec(source, server.Path("out"), quantd.LLMInt8())))(t)
	over := make(chan struct{})
	var cutter sync.WaitGroup
	cutter.Go(func() {
		for {
			select {
			case <-over:
				return
			case <-time.After(20 * time.Millisecond):
				proxy.Cut()
			}
		}
	})
	seen := &record{t: t}
	seen.follow(ctx, job, nil)
	close(over)
	cutter.Wait()
	seen.expectWhole()
	seen.expectSame(ctx, dial(t, server.Address), job.Name())
	if proxy.Connections() < 3 {
		t.Errorf("only %d connections", proxy.Connections())
	}
}

func TestALostSubmitIsRepeatedAndMakesOneJob(t *testing.T) {
	server := servertest.Start(t)
	proxy := servertest.StartProxy(t, server)
	client, direct, ctx := dial(t, proxy.Address), dial(t, server.Address), within(t)
	if err := client.WaitUntilServing(ctx); err != nil {
		t.Fatal(err)
	}
	source := server.WriteSmall(t, "small", 1)
	jobs := func() (names []string) {
		for job, err := range direct.Jobs.List(ctx, nil) {
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, job.GetName())
		}
		return names
	}
	proxy.SetDeaf(true) // the request gets through, the answer does not
	go func() {
		for len(jobs()) == 0 {
			time.Sleep(5 * time.Millisecond)
		}
		proxy.SetDeaf(false)
		proxy.Cut()
	}()
	job := must(client.Quantize(ctx, spec(source, server.Path("out"), quantd.NF4())))(t)
	must(job.Result(ctx))(t)
	expect(t, jobs(), job.Name())
}

func TestLeavingAJobDoesNotStopIt(t *testing.T) {
	server := servertest.Start(t)
	client, ctx := dial(t, server.Address), within(t)
	source := server.WriteSlow(t, "slow")
	started, leave := context.WithCancel(ctx)
	job := must(client.Quantize(started, slow(source, server.Path("out.gguf"))))(t)
	leave() // the context of the call that started it
	seen := &record{t: t}
	seen.follow(ctx, job, isTensor) // leaves the loop

	watched, leave := context.WithCancel(ctx)
	defer leave()
	for event, err := range job.Events(watched) {
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			break
		}
		seen.add(event)
		leave() // the context of the loop
	}
	impatient, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	if _, err := job.Result(impatient); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if got := must(client.Jobs.Get(ctx, job.Name()))(t).GetState(); got != quantdv1.JobState_JOB_STATE_RUNNING {
		t.Fatalf("the job is %v", got)
	}

	// Another client goes on where this one was.
	other := dial(t, server.Address).Jobs.Watch(job.Name(), job.LastSequence())
	seen.follow(ctx, other, isTensor)
	must(other.Cancel(ctx, "enough"))(t)
	_, err := other.Result(ctx)
	if ended, ok := errors.AsType[*quantd.JobError](err); !ok || !ended.Cancelled() {
		t.Errorf("got %v", err)
	}
	if exists(server.Path("out.gguf")) {
		t.Error("a cancelled job has left its output")
	}
}
