package quantd

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"github.com/quantd/quantd/clients/go/quantdv1"
)

// pageSize is the number of tensors in a page: some 300 KB, far below the limit of a message.
const pageSize = 2000

// Client calls a quantd server. It may be shared by goroutines.
//
// A context limits how long this side waits; it never stops a job.
type Client struct {
	// Jobs looks after jobs.
	Jobs *Jobs

	settings     *settings
	connection   *grpc.ClientConn
	quantization quantdv1.QuantizationServiceClient
	jobs         quantdv1.JobServiceClient
}

// Dial prepares a connection to "host:port" or "unix:/path.sock"; the first call opens it. An error
// means that the options contradict each other, name a file that cannot be read, or would send a
// token in clear.
func Dial(address string, options ...Option) (*Client, error) {
	given, err := settingsOf(options)
	if err != nil {
		return nil, fmt.Errorf("quantd: %w", err)
	}
	connection, err := connect(address, given)
	if err != nil {
		return nil, fmt.Errorf("quantd: %w", err)
	}
	client := &Client{
		settings:     given,
		connection:   connection,
		quantization: quantdv1.NewQuantizationServiceClient(connection),
		jobs:         quantdv1.NewJobServiceClient(connection),
	}
	client.Jobs = &Jobs{client}
	return client, nil
}

// Close closes the connection; jobs go on.
func (c *Client) Close() error { return c.connection.Close() }

// Stubs are the generated clients on the same connection, for requests sent as they are: of a
// listing, they get one page. Their errors are [*Error], too.
func (c *Client) Stubs() (quantdv1.QuantizationServiceClient, quantdv1.JobServiceClient) {
	return c.quantization, c.jobs
}

// Capabilities says what the server and its host can do.
func (c *Client) Capabilities(ctx context.Context) (*quantdv1.GetCapabilitiesResponse, error) {
	return c.quantization.GetCapabilities(ctx, &quantdv1.GetCapabilitiesRequest{})
}

// RefreshCapabilities looks for packages again, and asks torch again: after an installation.
func (c *Client) RefreshCapabilities(ctx context.Context) (*quantdv1.GetCapabilitiesResponse, error) {
	return c.quantization.GetCapabilities(ctx, &quantdv1.GetCapabilitiesRequest{Refresh: true})
}

// Inspect describes a checkpoint of the server, a path or a `file:` URI, from its headers:
// findings about it, whether this host can load it and, with [WithTensors], all of its tensors.
func (c *Client) Inspect(
	ctx context.Context, source string, options ...AskOption,
) (*quantdv1.InspectCheckpointResponse, error) {
	asked := questionOf(options)
	request := &quantdv1.InspectCheckpointRequest{
		SourceUri: source, PageSize: asked.pageSize, ContextLength: asked.contextLength,
	}
	answer, err := c.quantization.InspectCheckpoint(ctx, request)
	for err == nil && answer.GetNextPageToken() != "" {
		var page *quantdv1.InspectCheckpointResponse
		request.PageToken = answer.GetNextPageToken()
		page, err = c.quantization.InspectCheckpoint(ctx, request)
		answer.Tensors = append(answer.Tensors, page.GetTensors()...)
		answer.NextPageToken = page.GetNextPageToken()
	}
	return answerOr(answer, err)
}

// ParseConfig says what a Hugging Face `quantization_config`, or a whole config.json, means.
func (c *Client) ParseConfig(ctx context.Context, json string) (*quantdv1.ParseConfigResponse, error) {
	return c.quantization.ParseConfig(ctx, &quantdv1.ParseConfigRequest{ConfigJson: json})
}

// Plan says what [Client.Quantize] would do with the same spec, and everything that stands against
// it: Executable says whether it would be accepted, Findings why not. With [WithTensors] it says
// what happens to each tensor. An empty OutputUri leaves out the checks of the output.
func (c *Client) Plan(
	ctx context.Context, spec *quantdv1.QuantizationSpec, options ...AskOption,
) (*quantdv1.PlanQuantizationResponse, error) {
	request := &quantdv1.PlanQuantizationRequest{Spec: spec, PageSize: questionOf(options).pageSize}
	answer, err := c.quantization.PlanQuantization(ctx, request)
	for err == nil && answer.GetNextPageToken() != "" {
		var page *quantdv1.PlanQuantizationResponse
		request.PageToken = answer.GetNextPageToken()
		page, err = c.quantization.PlanQuantization(ctx, request)
		answer.Tensors = append(answer.Tensors, page.GetTensors()...)
		answer.NextPageToken = page.GetNextPageToken()
	}
	return answerOr(answer, err)
}

// Quantize starts a job, and returns when the server has accepted it.
//
// The request carries an id, so that it is sent again, without starting a second job, when the
// connection is lost before the answer; see [Reconnect]. When the context ends, the job may exist or
// not; with [WithRequestID] the same call tells.
func (c *Client) Quantize(
	ctx context.Context, spec *quantdv1.QuantizationSpec, options ...QuantizeOption,
) (*Job, error) {
	request := &quantdv1.QuantizeRequest{Spec: spec}
	for _, option := range options {
		option(request)
	}
	if request.RequestId == "" {
		request.RequestId = newUUID()
	}
	follower := newFollower(c.settings.reconnect, 0)
	for {
		made, err := c.submit(ctx, request)
		if err == nil {
			follower.job = made
			return &Job{client: c, name: made.GetName(), follower: follower}, nil
		}
		lost := failureOf(err)
		if !lost.connectionLost() {
			return nil, err
		}
		delay, err := follower.delayAfter(lost)
		if err != nil {
			return nil, err
		}
		if err := sleep(ctx, delay); err != nil {
			return nil, err
		}
	}
}

// submit starts the job of a request, or finds it. It leaves the stream after the first event: whoever
// wants to see the events watches the job.
func (c *Client) submit(
	ctx context.Context, request *quantdv1.QuantizeRequest,
) (*quantdv1.Job, error) {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	stream, err := c.quantization.Quantize(ctx, request)
	if err != nil {
		return nil, err
	}
	answer, err := stream.Recv()
	if err == io.EOF {
		return nil, unavailable("the stream ended before the job began")
	}
	return answer.GetEvent().GetSnapshot(), err
}

// WaitUntilServing waits until the server answers that it is serving, or the context ends.
func (c *Client) WaitUntilServing(ctx context.Context) error {
	health := grpc_health_v1.NewHealthClient(c.connection)
	for {
		answer, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true))
		if answer.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING {
			return nil
		}
		if err != nil && ctx.Err() == nil && !failureOf(err).connectionLost() {
			return err
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// AskOption changes what [Client.Inspect] and [Client.Plan] answer.
type AskOption func(*question)

type question struct {
	pageSize      uint32
	contextLength *uint64
}

func questionOf(options []AskOption) (asked question) {
	for _, option := range options {
		option(&asked)
	}
	return asked
}

// WithTensors lists the tensors, too: all of them, whatever the number of pages.
func WithTensors() AskOption {
	return func(q *question) { q.pageSize = pageSize }
}

// WithContextLength sizes the key/value cache of [Client.Inspect] for so many tokens; plans have no
// use for it. Default: the model's own length, at most 8192.
func WithContextLength(tokens uint64) AskOption {
	return func(q *question) { q.contextLength = &tokens }
}

// QuantizeOption changes the request of [Client.Quantize].
type QuantizeOption func(*quantdv1.QuantizeRequest)

// WithLabels adds labels to find the job by.
func WithLabels(labels map[string]string) QuantizeOption {
	return func(request *quantdv1.QuantizeRequest) {
		proto.Merge(request, &quantdv1.QuantizeRequest{Labels: labels})
	}
}

// WithRequestID is the UUID that makes the call idempotent, across programs too: the same call gives
// the same job. Default: a new one.
func WithRequestID(id string) QuantizeOption {
	return func(request *quantdv1.QuantizeRequest) { request.RequestId = id }
}

// newUUID is a random UUID, version 4 of RFC 9562.
func newUUID() string {
	var id [16]byte
	rand.Read(id[:]) // never fails
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// answerOr is an answer of all pages or none.
func answerOr[T any](answer *T, err error) (*T, error) {
	if err != nil {
		return nil, err
	}
	return answer, nil
}
