// Command conformance is the runner of the Go client in the suite that holds all clients to the same
// vectors, see tests/conformance. It reads calls as JSON lines, makes them, and writes what comes.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/quantd/quantd/clients/go"
)

// maxLine is the longest line that is read: a request with calibration data.
const maxLine = 64 << 20

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string, input io.Reader, output io.Writer) error {
	flags := flag.NewFlagSet("conformance", flag.ContinueOnError)
	address := flags.String("address", "", "address of the server")
	tokenFile := flags.String("token", "", "file that holds the token")
	authorities := flags.String("ca", "", "PEM file of the authority to trust; implies TLS")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	options := []quantd.Option{
		quantd.WithTimeout(0), // each call comes with its own
		quantd.WithReconnect(quantd.Reconnect{
			InitialDelay: 50 * time.Millisecond, MaxDelay: 500 * time.Millisecond, Timeout: 2 * time.Minute,
		}),
	}
	if *tokenFile != "" {
		token, err := os.ReadFile(*tokenFile)
		if err != nil {
			return err
		}
		options = append(options, quantd.WithToken(strings.TrimSpace(string(token))))
	}
	if *authorities != "" {
		options = append(options, quantd.WithRootCAs(*authorities))
	}
	client, err := quantd.Dial(*address, options...)
	if err != nil {
		return err
	}
	defer client.Close()
	runner := &runner{methods: methodsOf(client), output: output, calls: map[string]context.CancelFunc{}}
	return runner.run(input)
}

// order is a line of the input.
type order struct {
	ID             string          `json:"id"`
	RPC            string          `json:"rpc"`
	Request        json.RawMessage `json:"request"`
	TimeoutSeconds float64         `json:"timeout_seconds"`
	Cancel         string          `json:"cancel"`
}

// line is a line of the output.
type line struct {
	ID    string          `json:"id"`
	Event json.RawMessage `json:"event,omitempty"`
	Reply json.RawMessage `json:"reply,omitempty"`
	End   bool            `json:"end,omitempty"`
	Error *failure        `json:"error,omitempty"`
}

// runner has the calls under way.
type runner struct {
	methods map[string]method

	mutex  sync.Mutex // guards what follows
	output io.Writer
	calls  map[string]context.CancelFunc
}

// run answers until the input ends.
func (r *runner) run(input io.Reader) error {
	everything, stop := context.WithCancel(context.Background())
	var calls sync.WaitGroup
	defer calls.Wait()
	defer stop()
	lines := bufio.NewScanner(input)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var given order
		if err := json.Unmarshal(lines.Bytes(), &given); err != nil {
			return fmt.Errorf("a line is no order: %w", err)
		}
		if given.Cancel != "" {
			r.cancel(given.Cancel)
			continue
		}
		ctx, cancel := r.begin(everything, given)
		calls.Go(func() {
			defer cancel()
			r.say(r.answer(ctx, given))
		})
	}
	return lines.Err()
}

func (r *runner) begin(ctx context.Context, given order) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if given.TimeoutSeconds > 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(given.TimeoutSeconds*float64(time.Second)))
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.calls[given.ID] = cancel
	return ctx, cancel
}

func (r *runner) cancel(id string) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if cancel, ok := r.calls[id]; ok {
		cancel()
	}
}

// answer makes a call and gives its last line.
func (r *runner) answer(ctx context.Context, given order) line {
	call, ok := r.methods[given.RPC]
	if !ok {
		return line{ID: given.ID, Error: &failure{Code: "UNIMPLEMENTED", Message: given.RPC}}
	}
	last := call(ctx, given.Request, func(event json.RawMessage) {
		r.say(line{ID: given.ID, Event: event})
	})
	last.ID = given.ID
	return last
}

func (r *runner) say(what line) {
	text, err := json.Marshal(what)
	if err != nil {
		panic(err) // it is made of JSON and texts
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.output.Write(append(text, '\n'))
	if what.Event == nil {
		delete(r.calls, what.ID)
	}
}
