// Command overhead measures what this client, and the server, add to gRPC itself. It is run by
// bench/overhead.py.
//
// Arguments: address of the server, address of the echo, name of a finished job, calls, streams.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/quantd/quantd/clients/go"
	"github.com/quantd/quantd/clients/go/quantdv1"
)

// warmUp is the number of calls of each kind that are not counted.
const warmUp = 100

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string, output io.Writer) error {
	if len(arguments) != 5 {
		return fmt.Errorf("there are 5 arguments, got %d", len(arguments))
	}
	calls, err := strconv.Atoi(arguments[3])
	if err != nil {
		return err
	}
	streams, err := strconv.Atoi(arguments[4])
	if err != nil {
		return err
	}
	client, err := quantd.Dial(arguments[0])
	if err != nil {
		return err
	}
	defer client.Close()
	direct, err := dial(arguments[0])
	if err != nil {
		return err
	}
	defer direct.Close()
	echo, err := dial(arguments[1])
	if err != nil {
		return err
	}
	defer echo.Close()
	ways := &ways{client: client, jobs: quantdv1.NewJobServiceClient(direct), echo: echo, name: arguments[2]}
	if err := ways.prepare(); err != nil {
		return err
	}
	took, err := measure(calls, []kind{
		{"client", ways.callClient}, {"stub", ways.callStub}, {"echo", ways.callEcho},
	})
	if err != nil {
		return err
	}
	streamed, err := measure(streams, []kind{
		{"client", ways.followClient}, {"stub", ways.followStub}, {"echo", ways.followEcho},
	})
	if err != nil {
		return err
	}
	return json.NewEncoder(output).Encode(map[string]any{
		"calls": took, "streams": streamed, "events": ways.events,
	})
}

func dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// ways are those to ask for a job and for its events.
type ways struct {
	client *quantd.Client
	jobs   quantdv1.JobServiceClient
	echo   *grpc.ClientConn
	name   string

	job    *quantdv1.Job
	event  *quantdv1.WatchJobResponse // that of median size
	events int
}

// prepare asks for what the echo sends back.
func (w *ways) prepare() (err error) {
	if w.job, err = w.client.Jobs.Get(context.Background(), w.name); err != nil {
		return err
	}
	stream, err := w.jobs.WatchJob(context.Background(), &quantdv1.WatchJobRequest{Name: w.name})
	if err != nil {
		return err
	}
	var answers []*quantdv1.WatchJobResponse
	for {
		answer, err := stream.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if answer.GetEvent().GetHeartbeat() == nil {
			answers = append(answers, answer)
		}
	}
	slices.SortFunc(answers, func(a, b *quantdv1.WatchJobResponse) int { return proto.Size(a) - proto.Size(b) })
	w.events = len(answers)
	w.event = answers[len(answers)/2]
	return nil
}

func (w *ways) callClient() error {
	_, err := w.client.Jobs.Get(context.Background(), w.name)
	return err
}

func (w *ways) callStub() error {
	_, err := w.jobs.GetJob(context.Background(), &quantdv1.GetJobRequest{Name: w.name})
	return err
}

func (w *ways) callEcho() error {
	return w.echo.Invoke(context.Background(), "/bench.Echo/Call", w.job, new(quantdv1.Job))
}

func (w *ways) followClient() error {
	seen := 0
	for _, err := range w.client.Jobs.Watch(w.name, 0).Events(context.Background()) {
		if err != nil {
			return err
		}
		seen++
	}
	return w.enough(seen)
}

func (w *ways) followStub() error {
	stream, err := w.jobs.WatchJob(context.Background(), &quantdv1.WatchJobRequest{Name: w.name})
	if err != nil {
		return err
	}
	return w.read(func() error {
		_, err := stream.Recv()
		return err
	})
}

func (w *ways) followEcho() error {
	ctx := metadata.AppendToOutgoingContext(context.Background(), "times", strconv.Itoa(w.events))
	stream, err := w.echo.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/bench.Echo/Repeat")
	if err != nil {
		return err
	}
	if err := stream.SendMsg(w.event); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return w.read(func() error { return stream.RecvMsg(new(quantdv1.WatchJobResponse)) })
}

func (w *ways) read(next func() error) error {
	for seen := 0; ; seen++ {
		if err := next(); err == io.EOF {
			return w.enough(seen)
		} else if err != nil {
			return err
		}
	}
}

func (w *ways) enough(seen int) error {
	if seen < w.events {
		return fmt.Errorf("a stream of %d events ended after %d", w.events, seen)
	}
	return nil
}

type kind struct {
	name string
	ask  func() error
}

// measure gives the seconds of each call. The kinds take turns, so that what disturbs one disturbs all.
func measure(times int, kinds []kind) (map[string][]float64, error) {
	took := map[string][]float64{}
	for number := -min(warmUp, times); number < times; number++ {
		for _, kind := range kinds {
			start := time.Now()
			if err := kind.ask(); err != nil {
				return nil, fmt.Errorf("%s: %w", kind.name, err)
			}
			if number >= 0 {
				took[kind.name] = append(took[kind.name], time.Since(start).Seconds())
			}
		}
	}
	return took, nil
}
