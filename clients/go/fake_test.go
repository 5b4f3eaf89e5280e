package quantd_test

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/quantd/quantd/clients/go"
	"github.com/quantd/quantd/clients/go/quantdv1"
)

// stream is what a fake server does with one call of WatchJob: it sends events, then ends it.
type stream struct {
	events []*quantdv1.JobEvent
	end    error
}

// fakeJobs is a server that does what real ones rarely do.
type fakeJobs struct {
	quantdv1.UnimplementedJobServiceServer
	job     *quantdv1.Job
	streams []stream

	mutex sync.Mutex
	asked []uint64 // after_sequence of each WatchJob
}

func (f *fakeJobs) GetJob(context.Context, *quantdv1.GetJobRequest) (*quantdv1.GetJobResponse, error) {
	return &quantdv1.GetJobResponse{Job: f.job}, nil
}

func (f *fakeJobs) WatchJob(
	request *quantdv1.WatchJobRequest, answers grpc.ServerStreamingServer[quantdv1.WatchJobResponse],
) error {
	f.mutex.Lock()
	now := f.streams[min(len(f.asked), len(f.streams)-1)]
	f.asked = append(f.asked, request.GetAfterSequence())
	f.mutex.Unlock()
	for _, event := range now.events {
		if err := answers.Send(&quantdv1.WatchJobResponse{Event: event}); err != nil {
			return err
		}
	}
	return now.end
}

// follow reads the job of a fake server: the sequences of its events and how it ended.
func (f *fakeJobs) follow(t *testing.T, options ...quantd.Option) (sequences []uint64, err error) {
	t.Helper()
	path := t.TempDir() + "/s"
	listener := must(net.Listen("unix", path))(t)
	server := grpc.NewServer()
	quantdv1.RegisterJobServiceServer(server, f)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	job := dial(t, "unix:"+path, options...).Jobs.Watch("jobs/a", 0)
	for event, err := range job.Events(within(t)) {
		if err != nil {
			return sequences, err
		}
		sequences = append(sequences, event.GetSequence())
	}
	_, err = job.Result(t.Context())
	return sequences, err
}

func (f *fakeJobs) expect(t *testing.T, options ...quantd.Option) {
	t.Helper()
	sequences, err := f.follow(t, options...)
	if err != nil || !slices.Equal(sequences, []uint64{1, 2, 3}) {
		t.Errorf("got %v, %v", sequences, err)
	}
}

var (
	succeeded = &quantdv1.Job{
		Name: "jobs/a", State: quantdv1.JobState_JOB_STATE_SUCCEEDED, LastSequence: 3,
		Result: &quantdv1.QuantizationResult{},
	}
	running = &quantdv1.Job{
		Name: "jobs/a", State: quantdv1.JobState_JOB_STATE_RUNNING, LastSequence: 2,
	}
	first  = &quantdv1.JobEvent{Sequence: 1, Event: &quantdv1.JobEvent_Snapshot{Snapshot: running}}
	second = &quantdv1.JobEvent{Sequence: 2, Event: &quantdv1.JobEvent_Stage{Stage: &quantdv1.StageEvent{}}}
	last   = &quantdv1.JobEvent{Sequence: 3, Event: &quantdv1.JobEvent_Snapshot{Snapshot: succeeded}}
)

func TestAStreamThatEndsBeforeTheJob(t *testing.T) {
	fake := &fakeJobs{job: running, streams: []stream{
		{events: []*quantdv1.JobEvent{first}}, {}, {events: []*quantdv1.JobEvent{second, last}},
	}}
	fake.expect(t)
	if wanted := []uint64{0, 1, 1}; !slices.Equal(fake.asked, wanted) {
		t.Errorf("asked for events after %v, expected %v", fake.asked, wanted)
	}
}

func TestEventsThatComeTwice(t *testing.T) {
	broken := status.Error(codes.Internal, "RST_STREAM")
	(&fakeJobs{job: running, streams: []stream{
		{[]*quantdv1.JobEvent{first, first, second}, broken},
		{[]*quantdv1.JobEvent{first, second, last}, nil},
	}}).expect(t)
}

func TestAFinishedJobWhoseLastEventIsNotSentAgain(t *testing.T) {
	fake := &fakeJobs{job: succeeded, streams: []stream{{}}}
	if _, err := fake.follow(t, quantd.WithReconnect(quantd.Reconnect{
		InitialDelay: time.Millisecond, MaxDelay: time.Millisecond, Timeout: 20 * time.Millisecond,
	})); err == nil || !strings.Contains(err.Error(), "ended before the job did") {
		t.Errorf("three events are missing, but got %v", err)
	}
}

func TestAServerThatHasTooManyCalls(t *testing.T) {
	busy, err := status.New(codes.ResourceExhausted, "too many").WithDetails(
		&errdetails.ErrorInfo{Reason: "TOO_MANY_CALLS", Domain: "quantd"},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(50 * time.Millisecond)},
	)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	(&fakeJobs{job: running, streams: []stream{
		{[]*quantdv1.JobEvent{first}, status.Error(codes.Unavailable, "cut")},
		{nil, busy.Err()},
		{[]*quantdv1.JobEvent{second, last}, nil},
	}}).expect(t)
	if time.Since(began) < 50*time.Millisecond {
		t.Error("it has not waited as long as the server asked for")
	}
}

func TestAnAnswerOfTheServerEndsTheEvents(t *testing.T) {
	fault, err := status.New(codes.Internal, "incident").WithDetails(
		&errdetails.ErrorInfo{Reason: "INTERNAL", Domain: "quantd"})
	if err != nil {
		t.Fatal(err)
	}
	fake := &fakeJobs{job: running, streams: []stream{{[]*quantdv1.JobEvent{first}, fault.Err()}}}
	sequences, err := fake.follow(t)
	if len(sequences) != 1 || failed(t, err).Reason != "INTERNAL" || len(fake.asked) != 1 {
		t.Errorf("got %v, %v after %d calls", sequences, err, len(fake.asked))
	}
}
