package quantd

import (
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

func statusWith(t *testing.T, code codes.Code, message string, details ...protoadapt.MessageV1) *status.Status {
	t.Helper()
	made, err := status.New(code, message).WithDetails(details...)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestTextOfAnError(t *testing.T) {
	info := &errdetails.ErrorInfo{Reason: "WRONG", Domain: "quantd"}
	violation := func(field, description string) *errdetails.BadRequest_FieldViolation {
		return &errdetails.BadRequest_FieldViolation{Field: field, Description: description, Reason: "WRONG"}
	}
	for name, test := range map[string]struct {
		status *status.Status
		text   string
	}{
		"not the server's own": {
			status.New(codes.Unavailable, "connection refused"), "Unavailable: connection refused",
		},
		"one problem is said once": {
			statusWith(t, codes.InvalidArgument, "is 5; use 4", info, &errdetails.BadRequest{
				FieldViolations: []*errdetails.BadRequest_FieldViolation{violation("bits", "is 5; use 4")},
			}),
			"WRONG: bits: is 5; use 4",
		},
		"a field is not named twice": {
			statusWith(t, codes.InvalidArgument, "bits: is 5", info, &errdetails.BadRequest{
				FieldViolations: []*errdetails.BadRequest_FieldViolation{violation("bits", "bits: is 5")},
			}),
			"WRONG: bits: is 5",
		},
		"several, and some that did not fit": {
			statusWith(t, codes.InvalidArgument, "4 problems",
				&errdetails.ErrorInfo{
					Reason: "WRONG", Domain: "quantd", Metadata: map[string]string{"violation_count": "4"},
				},
				&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
					violation("bits", "is 5"), violation("", "no"),
				}},
				&errdetails.PreconditionFailure{Violations: []*errdetails.PreconditionFailure_Violation{
					{Type: "DISK", Subject: "output_uri", Description: "is full"},
				}}),
			"WRONG: 4 problems\n  bits: is 5\n  no\n  output_uri: is full\n  ... and 1 more",
		},
		"when to come back": {
			statusWith(t, codes.ResourceExhausted, "full", info,
				&errdetails.RetryInfo{RetryDelay: durationpb.New(3 * time.Second)}),
			"WRONG: full\n  try again after 3s",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := errorOfStatus(test.status).Error(); got != test.text {
				t.Errorf("got %q, expected %q", got, test.text)
			}
		})
	}
}

func TestWhatMayBeRepeated(t *testing.T) {
	own := &errdetails.ErrorInfo{Reason: "ANY", Domain: "quantd"}
	soon := &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)}
	for _, test := range []struct {
		status    *status.Status
		retryable bool
	}{
		{status.New(codes.Unavailable, ""), true},
		{statusWith(t, codes.Unavailable, "", own), true},
		{status.New(codes.Internal, "RST_STREAM"), true}, // of gRPC itself
		{status.New(codes.Unknown, ""), true},
		{status.New(codes.Canceled, ""), true},
		{statusWith(t, codes.Internal, "", own), false}, // of the server
		{statusWith(t, codes.Canceled, "", own), false},
		{statusWith(t, codes.ResourceExhausted, "", own, soon), true},
		{status.New(codes.ResourceExhausted, "too large"), false},
		{status.New(codes.DeadlineExceeded, ""), false},
		{statusWith(t, codes.InvalidArgument, "", own), false},
	} {
		if got := errorOfStatus(test.status).Retryable(); got != test.retryable {
			t.Errorf("%v: got %v", test.status, got)
		}
	}
}
