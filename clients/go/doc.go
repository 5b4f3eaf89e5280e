// Package quantd is the Go client of quantd, the gRPC server that quantizes language-model
// checkpoints.
//
// [Dial] gives a [Client]: it answers what a server can do, describes checkpoints, plans, and starts
// jobs. A [Job] hands out the events of a job and bridges lost connections and servers that restart.
// Messages are those of package quantdv1, generated from proto/quantd/v1; its comments are the
// manual of the API.
//
// Whatever a server answers instead of a result is an [*Error]; a job that ended without output is a
// [*JobError]. Branch on Reason:
//
//	if failure, ok := errors.AsType[*quantd.Error](err); ok && failure.Reason == "QUEUE_FULL" {
//		time.Sleep(failure.RetryAfter)
//	}
package quantd
