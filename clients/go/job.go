package quantd

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/quantd/quantd/clients/go/quantdv1"
)

// Job follows one job of a server. It holds no connection of its own and needs no closing.
//
// The job itself depends on nothing here: leaving a loop over [Job.Events], or the end of a context,
// never stops it. Only [Job.Cancel] does.
type Job struct {
	client *Client
	name   string

	mutex    sync.Mutex // guards follower
	follower *follower
}

// Name is "jobs/{id}".
func (j *Job) Name() string { return j.name }

// Snapshot is the job as far as its events tell; its progress is that of the last event.
func (j *Job) Snapshot() *quantdv1.Job {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	return proto.CloneOf(j.follower.job)
}

// LastSequence is the sequence of the last event seen: where another watcher would go on.
func (j *Job) LastSequence() uint64 {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	return j.follower.lastSequence
}

// Events are the events of the job, from the first one not yet seen to its last one; among them are
// heartbeats, which have no sequence of their own.
//
// A lost connection is made anew without losing or repeating an event; see [Reconnect]. The
// iteration ends after the last event, which is a snapshot in a final state, or with an error: the
// context ended, the server does not know the job any more, or it cannot be reached for too long.
// Whatever ended it, ranging again goes on where it was. Range in one goroutine at a time.
func (j *Job) Events(ctx context.Context) iter.Seq2[*quantdv1.JobEvent, error] {
	return func(yield func(*quantdv1.JobEvent, error) bool) {
		for !j.isOver() {
			left, lost := j.follow(ctx, yield)
			if left {
				return
			}
			if lost == nil {
				lost = j.look(ctx)
			}
			if lost == nil {
				continue // it is over
			}
			if err := j.pause(ctx, lost); err != nil {
				yield(nil, err)
				return
			}
		}
	}
}

// follow attaches once and hands on what is new. It says whether that was left: by the caller, or
// because the job is over. Otherwise the stream broke, or ended without an error.
func (j *Job) follow(
	ctx context.Context, yield func(*quantdv1.JobEvent, error) bool,
) (left bool, lost error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	request := &quantdv1.WatchJobRequest{Name: j.name, AfterSequence: j.LastSequence()}
	stream, err := j.client.jobs.WatchJob(ctx, request)
	for err == nil {
		var answer *quantdv1.WatchJobResponse
		answer, err = stream.Recv()
		if err == nil && j.accept(answer.GetEvent()) {
			if !yield(answer.GetEvent(), nil) || j.isOver() {
				return true, nil
			}
		}
	}
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	return false, err
}

// look asks for the job after a stream that ended without an error. It returns one unless the job
// is over.
func (j *Job) look(ctx context.Context) error {
	job, err := j.client.Jobs.Get(ctx, j.name)
	if err != nil {
		return err
	}
	j.mutex.Lock()
	defer j.mutex.Unlock()
	j.follower.see(job)
	if j.follower.finished {
		return nil
	}
	return unavailable("the stream ended before the job did")
}

// pause waits before the next attempt. It returns the error when another attempt would be of no
// use.
func (j *Job) pause(ctx context.Context, lost error) error {
	failure := failureOf(lost)
	if !failure.Retryable() {
		return lost
	}
	j.mutex.Lock()
	delay, err := j.follower.delayAfter(failure)
	j.mutex.Unlock()
	if err != nil {
		return err
	}
	return sleep(ctx, delay)
}

func (j *Job) accept(event *quantdv1.JobEvent) bool {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	return j.follower.accept(event)
}

func (j *Job) isOver() bool {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	return j.follower.finished
}

// Result reads the remaining events and returns what the job made. A job that ended without output
// is a [*JobError].
func (j *Job) Result(ctx context.Context) (*quantdv1.QuantizationResult, error) {
	for _, err := range j.Events(ctx) {
		if err != nil {
			return nil, err
		}
	}
	j.mutex.Lock()
	defer j.mutex.Unlock()
	return j.follower.result()
}

// Cancel asks the server to stop the job; its events go on until the last one. It returns the job,
// which may still be CANCELLING. reason is kept for the record and may be empty.
func (j *Job) Cancel(ctx context.Context, reason string) (*quantdv1.Job, error) {
	return j.client.Jobs.Cancel(ctx, j.name, reason)
}

// sleep waits, unless the context ends before.
func sleep(ctx context.Context, delay time.Duration) error {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return errorOfContext(ctx.Err())
	case <-timer.C:
		return nil
	}
}
