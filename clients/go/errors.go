package quantd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/quantd/quantd/clients/go/quantdv1"
)

// domain of google.rpc.ErrorInfo in every answer of a server.
const domain = "quantd"

// Violation is one thing that is wrong with the request.
type Violation struct {
	// Field is the path of the field, such as "spec.method.gptq.group_size".
	Field string
	// Reason is a stable identifier.
	Reason string
	// Message says what was got, what is allowed and how to fix it.
	Message string
}

// Precondition is one thing about the checkpoint, the host or the disk that stands against the
// request.
type Precondition struct {
	// Reason is a stable identifier.
	Reason string
	// Subject is what it is about: a field of the request, or empty.
	Subject string
	// Message says what is the case and how to change it.
	Message string
}

// Error is a call that did not succeed, with everything that its status carries.
type Error struct {
	// Code is the gRPC status code.
	Code codes.Code
	// Reason is a stable identifier to branch on; empty when the error is not the server's own.
	// docs/reasons.md in the server's repository explains each.
	Reason string
	// Message says what is wrong and how to mend it, in a sentence.
	Message string
	// Remedy says how to mend it, which Message ends with, too; empty when the server does not know.
	Remedy string
	// Violations are what is wrong with the request, field by field.
	Violations []Violation
	// Preconditions are what stands against the request.
	Preconditions []Precondition
	// RetryAfter is the time after which a repetition may succeed; 0 when that is not said.
	RetryAfter time.Duration
	// Metadata has the variable parts of the message, by name.
	Metadata map[string]string
	// RequestID finds the call in the server's log; empty when it is not known.
	RequestID string

	domain string
	// cause is why this side ended the call: the error of its context.
	cause error
}

// Retryable says whether the same call may succeed later, without a change to it: the server could
// not be reached, starts or stops, or says when to come back.
func (e *Error) Retryable() bool {
	return e.connectionLost() || e.RetryAfter > 0
}

// connectionLost says whether this is about the way to the server and not about the request.
func (e *Error) connectionLost() bool {
	if e.cause != nil {
		return false
	}
	switch e.Code {
	case codes.Unavailable:
		return true
	case codes.Internal, codes.Unknown, codes.Canceled:
		// A connection that breaks in the middle of a stream has many names. An answer of the server
		// always carries its ErrorInfo.
		return e.domain != domain
	default:
		return false
	}
}

// Error is the reason and the message, and a line for each thing that is wrong.
func (e *Error) Error() string {
	name := e.Reason
	if name == "" {
		name = e.Code.String()
	}
	var problems []string
	for _, each := range e.Violations {
		problems = append(problems, withField(each.Field, each.Message))
	}
	for _, each := range e.Preconditions {
		problems = append(problems, withField(each.Subject, each.Message))
	}
	var text strings.Builder
	if len(problems) == 1 && strings.HasSuffix(problems[0], e.Message) {
		fmt.Fprintf(&text, "%s: %s", name, problems[0])
		problems = nil
	} else {
		fmt.Fprintf(&text, "%s: %s", name, e.Message)
	}
	for _, problem := range problems {
		fmt.Fprintf(&text, "\n  %s", problem)
	}
	total, _ := strconv.Atoi(e.Metadata["violation_count"])
	if more := total - len(problems); len(problems) > 0 && more > 0 {
		fmt.Fprintf(&text, "\n  ... and %d more", more)
	}
	if e.RetryAfter > 0 {
		fmt.Fprintf(&text, "\n  try again after %s", e.RetryAfter)
	}
	return text.String()
}

// Unwrap is context.Canceled or context.DeadlineExceeded when this side ended the call.
func (e *Error) Unwrap() error { return e.cause }

// GRPCStatus is what the status package of gRPC asks for; details are left out.
func (e *Error) GRPCStatus() *status.Status { return status.New(e.Code, e.Message) }

// JobError is a job that ended without output. It wraps the [*Error] that says why.
type JobError struct {
	// Job is the job in its final state.
	Job *quantdv1.Job

	why *Error
}

// Cancelled says whether somebody asked the job to stop; nothing of it is left.
func (e *JobError) Cancelled() bool {
	return e.Job.GetState() == quantdv1.JobState_JOB_STATE_CANCELLED
}

// Error names the job and says why it ended.
func (e *JobError) Error() string {
	what := "failed"
	if e.Cancelled() {
		what = "was cancelled"
	}
	return fmt.Sprintf("%s %s: %s", e.Job.GetName(), what, e.why)
}

// Unwrap is the [*Error] in the job.
func (e *JobError) Unwrap() error { return e.why }

// withField puts a message behind the field it is about, unless it starts with it already.
func withField(field, message string) string {
	if field == "" || strings.HasPrefix(message, field+":") {
		return message
	}
	return field + ": " + message
}

// errorOfCall is the [*Error] of a call that gRPC ended with err.
func errorOfCall(ctx context.Context, err error, trailer metadata.MD) error {
	if err == nil {
		return nil
	}
	answer, ok := status.FromError(err)
	if !ok {
		return err // of this side: not a status
	}
	failure := errorOfStatus(answer)
	if ids := trailer.Get("x-request-id"); failure.RequestID == "" && len(ids) > 0 {
		failure.RequestID = ids[0]
	}
	if own := ctx.Err(); own != nil && failure.domain != domain {
		failure.cause = own
	}
	return failure
}

// errorOfContext is the [*Error] of a call that this side gave up between two attempts.
func errorOfContext(err error) *Error {
	answer := status.FromContextError(err)
	return &Error{Code: answer.Code(), Message: answer.Message(), cause: err}
}

// unavailable is an error that this side noticed.
func unavailable(message string) *Error {
	return &Error{Code: codes.Unavailable, Message: message}
}

// errorOfStatus takes a status apart; details of a type that is not known are left out.
func errorOfStatus(answer *status.Status) *Error {
	failure := &Error{Code: answer.Code(), Message: answer.Message()}
	for _, detail := range answer.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			failure.Reason, failure.domain = detail.GetReason(), detail.GetDomain()
			failure.Metadata = detail.GetMetadata()
			failure.Remedy = failure.Metadata["remedy"]
		case *errdetails.BadRequest:
			for _, each := range detail.GetFieldViolations() {
				failure.Violations = append(failure.Violations, Violation{
					Field: each.GetField(), Reason: each.GetReason(), Message: each.GetDescription(),
				})
			}
		case *errdetails.PreconditionFailure:
			for _, each := range detail.GetViolations() {
				failure.Preconditions = append(failure.Preconditions, Precondition{
					Reason: each.GetType(), Subject: each.GetSubject(), Message: each.GetDescription(),
				})
			}
		case *errdetails.RetryInfo:
			failure.RetryAfter = detail.GetRetryDelay().AsDuration()
		case *errdetails.RequestInfo:
			failure.RequestID = detail.GetRequestId()
		}
	}
	return failure
}

// failureOf is the [*Error] in err; one made of it when there is none.
func failureOf(err error) *Error {
	if failure, ok := errors.AsType[*Error](err); ok {
		return failure
	}
	return &Error{Code: codes.Unknown, Message: err.Error(), domain: domain}
}
