package quantd

import (
	"context"
	"iter"

	"google.golang.org/protobuf/proto"

	"github.com/quantd/quantd/clients/go/quantdv1"
)

// Jobs looks after jobs; see [Client.Jobs]. A name is always "jobs/{id}"; one that the server does
// not know is an [*Error] of code NotFound.
type Jobs struct {
	client *Client
}

// Get returns a job as it is now.
func (j *Jobs) Get(ctx context.Context, name string) (*quantdv1.Job, error) {
	answer, err := j.client.jobs.GetJob(ctx, &quantdv1.GetJobRequest{Name: name})
	return answer.GetJob(), err
}

// List hands out jobs, the newest first, and gets more pages while it is ranged over. filter says
// which; nil means all. An error ends the iteration.
func (j *Jobs) List(
	ctx context.Context, filter *quantdv1.ListJobsRequest,
) iter.Seq2[*quantdv1.Job, error] {
	return func(yield func(*quantdv1.Job, error) bool) {
		request := &quantdv1.ListJobsRequest{}
		proto.Merge(request, filter)
		for {
			answer, err := j.client.jobs.ListJobs(ctx, request)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, job := range answer.GetJobs() {
				if !yield(job, nil) {
					return
				}
			}
			if answer.GetNextPageToken() == "" {
				return
			}
			request.PageToken = answer.GetNextPageToken()
		}
	}
}

// Watch follows a job from the event after a sequence; 0 starts at the beginning. It makes no call:
// whether there is such a job is found out by [Job.Events].
func (j *Jobs) Watch(name string, afterSequence uint64) *Job {
	follower := newFollower(j.client.settings.reconnect, afterSequence)
	return &Job{client: j.client, name: name, follower: follower}
}

// Cancel asks a job to stop and returns it; it may still be CANCELLING. A finished job is returned
// as it is. reason is kept for the record and may be empty.
func (j *Jobs) Cancel(ctx context.Context, name, reason string) (*quantdv1.Job, error) {
	request := &quantdv1.CancelJobRequest{Name: name, Reason: reason}
	answer, err := j.client.jobs.CancelJob(ctx, request)
	return answer.GetJob(), err
}

// Delete forgets a finished job and keeps its output.
func (j *Jobs) Delete(ctx context.Context, name string) error {
	_, err := j.client.jobs.DeleteJob(ctx, &quantdv1.DeleteJobRequest{Name: name})
	return err
}

// DeleteWithOutput forgets a finished job and deletes what it wrote.
func (j *Jobs) DeleteWithOutput(ctx context.Context, name string) error {
	request := &quantdv1.DeleteJobRequest{Name: name, DeleteOutput: true}
	_, err := j.client.jobs.DeleteJob(ctx, request)
	return err
}
