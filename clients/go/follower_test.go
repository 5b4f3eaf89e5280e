package quantd

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/quantd/quantd/clients/go/quantdv1"
)

// followerAt is a follower with a clock that stands still.
func followerAt(reconnect Reconnect) (*follower, *time.Time) {
	followed, now := newFollower(reconnect, 0), new(time.Time)
	followed.now = func() time.Time { return *now }
	return followed, now
}

func stage(sequence uint64) *quantdv1.JobEvent {
	return &quantdv1.JobEvent{Sequence: sequence, Event: &quantdv1.JobEvent_Stage{Stage: &quantdv1.StageEvent{}}}
}

func TestPausesDoubleAndAreShortenedByHalfAtMost(t *testing.T) {
	followed, _ := followerAt(Reconnect{time.Second, 8 * time.Second, time.Hour})
	for attempt := range 100 {
		full := time.Second << min(attempt, 3)
		delay, err := followed.delayAfter(unavailable("gone"))
		if err != nil || delay < full/2 || delay > full {
			t.Fatalf("attempt %d: got %s, %v", attempt, delay, err)
		}
	}
}

func TestPausesDifferBetweenClients(t *testing.T) {
	delays := map[time.Duration]bool{}
	for range 20 {
		delay, _ := newFollower(defaultReconnect, 0).delayAfter(unavailable("gone"))
		delays[delay] = true
	}
	if len(delays) < 2 {
		t.Error("all are the same")
	}
}

func TestAnEventStartsTheCountAgain(t *testing.T) {
	followed, now := followerAt(Reconnect{time.Second, time.Minute, 100 * time.Second})
	for range 5 {
		delay, _ := followed.delayAfter(unavailable("gone"))
		*now = now.Add(delay)
	}
	followed.accept(stage(1))
	*now = now.Add(time.Hour)
	if delay, err := followed.delayAfter(unavailable("gone")); err != nil || delay > time.Second {
		t.Errorf("got %s, %v", delay, err)
	}
}

func TestItGivesUpWithTheErrorAfterASilence(t *testing.T) {
	followed, now := followerAt(Reconnect{time.Second, time.Minute, 10 * time.Second})
	lost := unavailable("gone")
	for {
		delay, err := followed.delayAfter(lost)
		if err != nil {
			if !errors.Is(err, lost) || now.Sub(time.Time{}) >= 10*time.Second {
				t.Errorf("got %v after %s", err, now.Sub(time.Time{}))
			}
			return
		}
		*now = now.Add(delay)
	}
}

func TestNoTimeoutMeansNoReconnecting(t *testing.T) {
	followed, _ := followerAt(Reconnect{time.Nanosecond, time.Second, 0})
	if _, err := followed.delayAfter(unavailable("gone")); err == nil {
		t.Error("it would come back")
	}
}

func TestTheServerMayAskForALongerPause(t *testing.T) {
	followed, _ := followerAt(defaultReconnect)
	lost := &Error{Code: codes.ResourceExhausted, RetryAfter: 3 * time.Second}
	if delay, err := followed.delayAfter(lost); err != nil || delay != 3*time.Second {
		t.Errorf("got %s, %v", delay, err)
	}
}

func TestWhatEventsTellOfAJob(t *testing.T) {
	followed, _ := followerAt(defaultReconnect)
	job := &quantdv1.Job{Name: "jobs/a", State: quantdv1.JobState_JOB_STATE_RUNNING}
	progress := &quantdv1.Progress{TensorsDone: 3}
	for place, event := range []*quantdv1.JobEvent{
		{Event: &quantdv1.JobEvent_Snapshot{Snapshot: job}},
		{Event: &quantdv1.JobEvent_Stage{Stage: &quantdv1.StageEvent{Stage: quantdv1.JobStage_JOB_STAGE_QUANTIZING}}},
		{Event: &quantdv1.JobEvent_Warning{Warning: &quantdv1.Finding{Reason: "ODD"}}},
		{Event: &quantdv1.JobEvent_Tensor{Tensor: &quantdv1.TensorEvent{Progress: progress}}},
	} {
		event.Sequence = uint64(place) + 1
		if !followed.accept(event) {
			t.Errorf("%v is not new", event)
		}
		if followed.accept(event) {
			t.Errorf("%v is new twice", event)
		}
	}
	alive := &quantdv1.JobEvent{Sequence: 4, Event: &quantdv1.JobEvent_Heartbeat{
		Heartbeat: &quantdv1.Heartbeat{Progress: &quantdv1.Progress{TensorsDone: 4}},
	}}
	for range 2 {
		if !followed.accept(alive) {
			t.Error("a heartbeat is always new")
		}
	}
	wanted := &quantdv1.Job{
		Name: "jobs/a", State: quantdv1.JobState_JOB_STATE_RUNNING, LastSequence: 4,
		Progress: &quantdv1.Progress{TensorsDone: 4}, Findings: []*quantdv1.Finding{{Reason: "ODD"}},
	}
	if !proto.Equal(followed.job, wanted) || followed.finished {
		t.Errorf("got %v", followed.job)
	}
	if job.GetLastSequence() != 0 {
		t.Error("the event was changed")
	}
}

func TestAJobIsOverWhenItsLastEventWasSeen(t *testing.T) {
	job := &quantdv1.Job{State: quantdv1.JobState_JOB_STATE_FAILED, LastSequence: 7}
	for sequence, over := range map[uint64]bool{0: false, 6: false, 7: true, 8: false} {
		followed := newFollower(defaultReconnect, sequence)
		if followed.see(job); followed.finished != over {
			t.Errorf("after event %d: got %v", sequence, followed.finished)
		}
	}
}
