package quantd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
)

// Version of this module.
const Version = "0.1.0"

// maxReceivedBytes is the largest answer that is taken. A page of a listing is far smaller.
const maxReceivedBytes = 64 << 20

// connect prepares the connection to an address; the first call opens it.
func connect(address string, s *settings) (*grpc.ClientConn, error) {
	if err := checkAddress(address, s); err != nil {
		return nil, err
	}
	transport := insecure.NewCredentials()
	if s.tls != nil {
		transport = credentials.NewTLS(s.tls)
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithUserAgent("quantd-go/" + Version),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReceivedBytes)),
		// A connection that died silently is noticed in 80 s. The server's heartbeats are more
		// frequent than these pings, so that it never takes them for a flood.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Minute, Timeout: 20 * time.Second}),
		// gRPC's own pause between attempts grows to two minutes; a job wants to be back earlier.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second,
			},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithChainUnaryInterceptor(s.callUnary),
		grpc.WithChainStreamInterceptor(s.callStream),
	}
	if s.token != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearer{s.token, s.tls != nil}))
	}
	return grpc.NewClient(address, append(options, s.grpc...)...)
}

func checkAddress(address string, s *settings) error {
	switch {
	case address == "":
		return errors.New(`address: it is empty; write "host:port" or "unix:/path.sock"`)
	case strings.Contains(address, "://") && !strings.HasPrefix(address, "unix:"):
		return fmt.Errorf(`address: %q is a URL; write "host:port" or "unix:/path.sock"`, address)
	case s.token != "" && s.tls == nil && !s.tokenInClear && !isLocal(address):
		return fmt.Errorf("the token would cross the network to %s in clear; "+
			"use WithTLS, or WithTokenInClear to allow it", address)
	}
	return nil
}

func isLocal(address string) bool {
	if strings.HasPrefix(address, "unix:") || strings.HasPrefix(address, "unix-abstract:") {
		return true
	}
	host, _, err := net.SplitHostPort(address)
	return err == nil && (host == "localhost" || host == "127.0.0.1" || host == "::1")
}

// bearer is a token as credentials of every call.
type bearer struct {
	token   string
	overTLS bool
}

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token}, nil
}

func (b bearer) RequireTransportSecurity() bool { return b.overTLS }

// callUnary adds the limit of time and the metadata, and makes errors an [*Error].
func (s *settings) callUnary(
	ctx context.Context, method string, request, answer any, connection *grpc.ClientConn,
	invoke grpc.UnaryInvoker, options ...grpc.CallOption,
) error {
	if s.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.timeout)
		defer cancel()
	}
	var trailer metadata.MD
	options = append(options, grpc.Trailer(&trailer))
	outgoing := metadata.AppendToOutgoingContext(ctx, s.metadata...)
	return errorOfCall(ctx, invoke(outgoing, method, request, answer, connection, options...), trailer)
}

// callStream adds the metadata, and makes errors an [*Error].
func (s *settings) callStream(
	ctx context.Context, description *grpc.StreamDesc, connection *grpc.ClientConn, method string,
	open grpc.Streamer, options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	outgoing := metadata.AppendToOutgoingContext(ctx, s.metadata...)
	opened, err := open(outgoing, description, connection, method, options...)
	if err != nil {
		return nil, errorOfCall(ctx, err, nil)
	}
	return typedStream{opened, ctx}, nil
}

// typedStream is a stream whose errors are an [*Error].
type typedStream struct {
	grpc.ClientStream
	// ctx is the caller's. That of the stream ends whenever the stream does.
	ctx context.Context
}

func (s typedStream) SendMsg(message any) error {
	return s.typed(s.ClientStream.SendMsg(message), nil)
}

func (s typedStream) RecvMsg(message any) error {
	if err := s.ClientStream.RecvMsg(message); err != nil {
		return s.typed(err, s.Trailer())
	}
	return nil
}

func (s typedStream) typed(err error, trailer metadata.MD) error {
	if err == nil || err == io.EOF {
		return err
	}
	return errorOfCall(s.ctx, err, trailer)
}
