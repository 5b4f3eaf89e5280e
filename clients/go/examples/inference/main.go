// Command inference is what an inference server does before it loads a checkpoint: it asks a quantd
// server what the host can do and what the checkpoint needs, and decides on which device to load it,
// as it is or quantized; or it refuses, with the server's reason.
//
//	inference --server 127.0.0.1:50051 --engine transformers /models/smollm2
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/quantd/quantd/clients/go"
	"github.com/quantd/quantd/clients/go/quantdv1"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	err := run(ctx, os.Args[1:], os.Stdout)
	if refused, ok := errors.AsType[*refusal](err); ok {
		fmt.Fprintln(os.Stderr, refused)
		os.Exit(3)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string, output io.Writer) error {
	flags := flag.NewFlagSet("inference", flag.ContinueOnError)
	server := flags.String("server", "127.0.0.1:50051", "address of the quantd server")
	engineName := flags.String("engine", "transformers", "transformers, vllm, sglang or llama_cpp")
	memory := flags.Uint64("memory", 0, "bytes that may be used; 0: what is free on the device")
	context := flags.Uint64("context", 0, "tokens of the key/value cache; 0: the model's own")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	engine, known := quantdv1.Engine_value["ENGINE_"+strings.ToUpper(*engineName)]
	if !known || flags.NArg() != 1 {
		return errors.New("usage: inference [--engine NAME] [--memory BYTES] CHECKPOINT")
	}
	client, err := quantd.Dial(*server)
	if err != nil {
		return err
	}
	defer client.Close()
	made, err := decide(ctx, client, question{
		checkpoint: flags.Arg(0), engine: quantdv1.Engine(engine), memory: *memory, context: *context,
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(output, made)
	return err
}
