package main

import (
	"context"
	"encoding/json"
	"errors"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/quantd/quantd/clients/go"
	"github.com/quantd/quantd/clients/go/quantdv1"
)

// method makes a call, hands on its events, and gives its last line.
type method func(ctx context.Context, request json.RawMessage, event func(json.RawMessage)) line

// methodsOf are all RPCs, by name.
func methodsOf(client *quantd.Client) map[string]method {
	quantization, jobs := client.Stubs()
	return map[string]method{
		"quantd.v1.QuantizationService/GetCapabilities": unary(func(
			ctx context.Context, request *quantdv1.GetCapabilitiesRequest,
		) (*quantdv1.GetCapabilitiesResponse, error) {
			if request.GetRefresh() {
				return client.RefreshCapabilities(ctx)
			}
			return client.Capabilities(ctx)
		}),
		"quantd.v1.QuantizationService/InspectCheckpoint": unary(func(
			ctx context.Context, request *quantdv1.InspectCheckpointRequest,
		) (*quantdv1.InspectCheckpointResponse, error) {
			if request.GetPageSize() > 0 || request.GetPageToken() != "" {
				return quantization.InspectCheckpoint(ctx, request) // one page
			}
			var options []quantd.AskOption
			if request.ContextLength != nil {
				options = append(options, quantd.WithContextLength(request.GetContextLength()))
			}
			return client.Inspect(ctx, request.GetSourceUri(), options...)
		}),
		"quantd.v1.QuantizationService/ParseConfig": unary(func(
			ctx context.Context, request *quantdv1.ParseConfigRequest,
		) (*quantdv1.ParseConfigResponse, error) {
			return client.ParseConfig(ctx, request.GetConfigJson())
		}),
		"quantd.v1.QuantizationService/PlanQuantization": unary(func(
			ctx context.Context, request *quantdv1.PlanQuantizationRequest,
		) (*quantdv1.PlanQuantizationResponse, error) {
			if request.GetPageSize() > 0 || request.GetPageToken() != "" {
				return quantization.PlanQuantization(ctx, request) // one page
			}
			return client.Plan(ctx, request.GetSpec())
		}),
		"quantd.v1.QuantizationService/Quantize": streaming(func(
			ctx context.Context, request *quantdv1.QuantizeRequest, event func(*quantdv1.JobEvent),
		) error {
			job, err := client.Quantize(ctx, request.GetSpec(),
				quantd.WithRequestID(request.GetRequestId()), quantd.WithLabels(request.GetLabels()))
			if err != nil {
				return err
			}
			return follow(ctx, job, event)
		}),
		"quantd.v1.JobService/GetJob": unary(func(
			ctx context.Context, request *quantdv1.GetJobRequest,
		) (*quantdv1.GetJobResponse, error) {
			job, err := client.Jobs.Get(ctx, request.GetName())
			return &quantdv1.GetJobResponse{Job: job}, err
		}),
		"quantd.v1.JobService/ListJobs": unary(func(
			ctx context.Context, request *quantdv1.ListJobsRequest,
		) (*quantdv1.ListJobsResponse, error) {
			return jobs.ListJobs(ctx, request) // one page
		}),
		"quantd.v1.JobService/WatchJob": streaming(func(
			ctx context.Context, request *quantdv1.WatchJobRequest, event func(*quantdv1.JobEvent),
		) error {
			return follow(ctx, client.Jobs.Watch(request.GetName(), request.GetAfterSequence()), event)
		}),
		"quantd.v1.JobService/CancelJob": unary(func(
			ctx context.Context, request *quantdv1.CancelJobRequest,
		) (*quantdv1.CancelJobResponse, error) {
			job, err := client.Jobs.Cancel(ctx, request.GetName(), request.GetReason())
			return &quantdv1.CancelJobResponse{Job: job}, err
		}),
		"quantd.v1.JobService/DeleteJob": unary(func(
			ctx context.Context, request *quantdv1.DeleteJobRequest,
		) (*quantdv1.DeleteJobResponse, error) {
			if request.GetDeleteOutput() {
				return &quantdv1.DeleteJobResponse{}, client.Jobs.DeleteWithOutput(ctx, request.GetName())
			}
			return &quantdv1.DeleteJobResponse{}, client.Jobs.Delete(ctx, request.GetName())
		}),
	}
}

func follow(ctx context.Context, job *quantd.Job, event func(*quantdv1.JobEvent)) error {
	for each, err := range job.Events(ctx) {
		if err != nil {
			return err
		}
		event(each)
	}
	return nil
}

// message is a pointer to a message of type T.
type message[T any] interface {
	*T
	proto.Message
}

func unary[T any, Request message[T], Answer proto.Message](
	call func(context.Context, Request) (Answer, error),
) method {
	return func(ctx context.Context, text json.RawMessage, _ func(json.RawMessage)) line {
		request := Request(new(T))
		if err := protojson.Unmarshal(text, request); err != nil {
			return line{Error: described(err)}
		}
		answer, err := call(ctx, request)
		if err != nil {
			return line{Error: described(err)}
		}
		return line{Reply: asJSON(answer)}
	}
}

func streaming[T any, Request message[T]](
	call func(context.Context, Request, func(*quantdv1.JobEvent)) error,
) method {
	return func(ctx context.Context, text json.RawMessage, event func(json.RawMessage)) line {
		request := Request(new(T))
		if err := protojson.Unmarshal(text, request); err != nil {
			return line{Error: described(err)}
		}
		err := call(ctx, request, func(each *quantdv1.JobEvent) { event(asJSON(each)) })
		if err != nil {
			return line{Error: described(err)}
		}
		return line{End: true}
	}
}

func asJSON(what proto.Message) json.RawMessage {
	text, err := protojson.Marshal(what)
	if err != nil {
		panic(err) // it came from the wire
	}
	return text
}

// failure is what the suite compares of an error.
type failure struct {
	Code       string      `json:"code"`
	Reason     string      `json:"reason"`
	Message    string      `json:"message"`
	Violations []violation `json:"violations"`
	Retryable  bool        `json:"retryable"`
}

type violation struct {
	Field       string `json:"field"`
	Reason      string `json:"reason"`
	Description string `json:"description"`
}

func described(err error) *failure {
	typed, ok := errors.AsType[*quantd.Error](err)
	if !ok {
		return &failure{Code: code.Code_UNKNOWN.String(), Message: err.Error()}
	}
	what := &failure{
		Code: code.Code(typed.Code).String(), Reason: typed.Reason, Message: typed.Message,
		Violations: []violation{}, Retryable: typed.Retryable(),
	}
	for _, each := range typed.Violations {
		what.Violations = append(what.Violations, violation{each.Field, each.Reason, each.Message})
	}
	for _, each := range typed.Preconditions {
		what.Violations = append(what.Violations, violation{each.Subject, each.Reason, each.Message})
	}
	return what
}
