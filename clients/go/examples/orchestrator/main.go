// Command orchestrator quantizes checkpoints in bulk: it plans every job, submits those that would
// work, follows all of them at once, tries again what may succeed later, and prints a table. It
// survives servers that restart; started again itself with the same batch, it finds its jobs.
//
//	orchestrator --server 127.0.0.1:50051 --batch nightly --output /models/out \
//	    --methods nf4,q4_k_m /models/smollm2 /models/other
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/quantd/quantd/clients/go"
	"github.com/quantd/quantd/clients/go/quantdv1"
)

// methods by the name that the command line has for them.
var methods = map[string]func() *quantdv1.MethodConfig{
	"int8": func() *quantdv1.MethodConfig { return quantd.LLMInt8() },
	"nf4":  func() *quantdv1.MethodConfig { return quantd.NF4() },
	"gptq": func() *quantdv1.MethodConfig { return quantd.GPTQ(4) },
	"awq":  func() *quantdv1.MethodConfig { return quantd.AWQ() },
	"q4_k_m": func() *quantdv1.MethodConfig {
		return quantd.GGUF(quantdv1.GgufFileType_GGUF_FILE_TYPE_Q4_K_M)
	},
	"iq4_xs": func() *quantdv1.MethodConfig {
		return quantd.GGUF(quantdv1.GgufFileType_GGUF_FILE_TYPE_IQ4_XS)
	},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run returns an error unless every job has succeeded.
func run(ctx context.Context, arguments []string, output io.Writer, options ...quantd.Option) error {
	flags := flag.NewFlagSet("orchestrator", flag.ContinueOnError)
	server := flags.String("server", "127.0.0.1:50051", "address of the quantd server")
	name := flags.String("batch", "batch", "name of the batch: the same one finds the same jobs")
	folder := flags.String("output", "", "folder of the server to write to")
	chosen := flags.String("methods", "nf4", "methods, separated by commas")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if *folder == "" || flags.NArg() == 0 {
		return errors.New("usage: orchestrator --output FOLDER [--methods A,B] [--batch NAME] SOURCES")
	}
	batch := &batch{name: *name}
	for _, source := range flags.Args() {
		for method := range strings.SplitSeq(*chosen, ",") {
			build, known := methods[method]
			if !known {
				return fmt.Errorf("the method %q is not known", method)
			}
			batch.add(source, method, *folder, build())
		}
	}
	client, err := quantd.Dial(*server, options...)
	if err != nil {
		return err
	}
	defer client.Close()
	batch.run(ctx, client)
	return batch.print(output)
}
