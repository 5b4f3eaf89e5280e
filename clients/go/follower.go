package quantd

import (
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/quantd/quantd/clients/go/quantdv1"
)

// Reconnect says what is done about a lost connection while a job is started or followed.
//
// Pauses grow from InitialDelay to MaxDelay by doubling; each is shortened by a random part, up to
// half of it, so that clients don't all come back at once.
type Reconnect struct {
	// InitialDelay is the first pause.
	InitialDelay time.Duration
	// MaxDelay is the longest pause.
	MaxDelay time.Duration
	// Timeout is the time without any event after which the job is given up; 0 never reconnects.
	Timeout time.Duration
}

var defaultReconnect = Reconnect{
	InitialDelay: 200 * time.Millisecond,
	MaxDelay:     10 * time.Second,
	Timeout:      2 * time.Minute,
}

// follower keeps a job up to date from its events, and decides what is new and over, and when to
// come back. It makes no calls.
type follower struct {
	job          *quantdv1.Job
	lastSequence uint64
	finished     bool

	reconnect Reconnect
	now       func() time.Time
	attempts  int
	lostAt    time.Time
}

func newFollower(reconnect Reconnect, lastSequence uint64) *follower {
	return &follower{
		job: &quantdv1.Job{}, lastSequence: lastSequence, reconnect: reconnect, now: time.Now,
	}
}

// accept takes an event in; it says whether it is new.
func (f *follower) accept(event *quantdv1.JobEvent) bool {
	// A heartbeat is not stored and carries the sequence of the event before it.
	if event.GetHeartbeat() == nil && event.GetSequence() <= f.lastSequence {
		return false
	}
	f.attempts = 0
	f.lastSequence = max(f.lastSequence, event.GetSequence())
	switch what := event.GetEvent().(type) {
	case *quantdv1.JobEvent_Snapshot:
		f.job = proto.CloneOf(what.Snapshot)
		f.finished = isFinal(f.job.GetState())
	case *quantdv1.JobEvent_Stage:
		if f.job.Progress == nil {
			f.job.Progress = &quantdv1.Progress{}
		}
		f.job.Progress.Stage = what.Stage.GetStage()
	case *quantdv1.JobEvent_Tensor:
		f.job.Progress = proto.CloneOf(what.Tensor.GetProgress())
	case *quantdv1.JobEvent_Heartbeat:
		f.job.Progress = proto.CloneOf(what.Heartbeat.GetProgress())
	case *quantdv1.JobEvent_Warning:
		f.job.Findings = append(f.job.Findings, proto.CloneOf(what.Warning))
	}
	f.job.LastSequence = f.lastSequence
	return true
}

// see takes in the job as GetJob returns it. It is over if it is in a final state and its last event
// was seen: a stream that asks for what comes after that one has nothing to say and simply ends.
func (f *follower) see(job *quantdv1.Job) {
	f.job = job
	f.finished = isFinal(job.GetState()) && job.GetLastSequence() == f.lastSequence
}

// delayAfter is the pause before the next attempt, or the error when there is none any more, after
// too long a silence.
func (f *follower) delayAfter(lost *Error) (time.Duration, error) {
	now := f.now()
	if f.attempts == 0 {
		f.lostAt = now
	}
	pause := f.reconnect.InitialDelay << min(f.attempts, 30)
	if pause <= 0 || pause > f.reconnect.MaxDelay {
		pause = f.reconnect.MaxDelay
	}
	delay := max(time.Duration(float64(pause)*(0.5+rand.Float64()/2)), lost.RetryAfter)
	if now.Add(delay).Sub(f.lostAt) >= f.reconnect.Timeout {
		return 0, lost
	}
	f.attempts++
	return delay, nil
}

// result of a job that is over.
func (f *follower) result() (*quantdv1.QuantizationResult, error) {
	if f.job.GetState() == quantdv1.JobState_JOB_STATE_SUCCEEDED {
		return proto.CloneOf(f.job.GetResult()), nil
	}
	why := errorOfStatus(status.FromProto(f.job.GetError()))
	return nil, &JobError{Job: proto.CloneOf(f.job), why: why}
}

func isFinal(state quantdv1.JobState) bool {
	switch state {
	case quantdv1.JobState_JOB_STATE_SUCCEEDED, quantdv1.JobState_JOB_STATE_FAILED,
		quantdv1.JobState_JOB_STATE_CANCELLED:
		return true
	default:
		return false
	}
}
