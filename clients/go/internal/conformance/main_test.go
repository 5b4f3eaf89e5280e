package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"testing"

	"github.com/quantd/quantd/clients/go/internal/servertest"
)

func TestTheContract(t *testing.T) {
	server := servertest.Start(t)
	source := server.WriteSmall(t, "small", 1)
	orders, input := io.Pipe()
	output, lines := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run([]string{"--address=" + server.Address}, orders, lines)
		lines.Close()
	}()
	read := bufio.NewScanner(output)
	read.Buffer(nil, maxLine)
	next := func() (got line) {
		t.Helper()
		if !read.Scan() {
			t.Fatalf("there is no line: %v", read.Err())
		}
		if err := json.Unmarshal(read.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		return got
	}
	order := func(id, rpc, request string) {
		fmt.Fprintf(input, `{"id": %q, "rpc": "quantd.v1.%s", "request": %s, "timeout_seconds": 60}`+"\n",
			id, rpc, request)
	}

	order("1", "QuantizationService/ParseConfig", `{"configJson": "{\"quant_method\": \"awq\"}"}`)
	if got := next(); got.ID != "1" || got.Reply == nil {
		t.Errorf("got %+v", got)
	}
	order("2", "QuantizationService/Quantize", fmt.Sprintf(
		`{"spec": {"sourceUri": %q, "outputUri": %q, "method": {"bitsandbytes8bit": {}}}}`,
		source, server.Path("out")))
	events := 0
	for got := next(); !got.End; got = next() {
		if events++; got.ID != "2" || got.Event == nil {
			t.Fatalf("got %+v", got)
		}
	}
	if events < 10 {
		t.Errorf("only %d events", events)
	}
	order("3", "JobService/GetJob", `{"name": "nonsense"}`)
	if got := next(); got.Error == nil || got.Error.Code != "INVALID_ARGUMENT" ||
		len(got.Error.Violations) != 1 || got.Error.Violations[0].Field != "name" {
		t.Errorf("got %+v", got.Error)
	}
	order("4", "JobService/GetJob", `{"no_such_field": 1}`)
	if got := next(); got.Error == nil || got.Error.Code != "UNKNOWN" {
		t.Errorf("got %+v", got)
	}
	order("5", "QuantizationService/Nothing", `{}`)
	if got := next(); got.Error == nil || got.Error.Code != "UNIMPLEMENTED" {
		t.Errorf("got %+v", got)
	}

	order("6", "QuantizationService/Quantize", fmt.Sprintf(
		`{"spec": {"sourceUri": %q, "outputUri": %q, "method": {"bitsandbytes8bit": {}}}}`,
		source, server.Path("other")))
	if got := next(); got.Event == nil {
		t.Errorf("got %+v", got)
	}
	fmt.Fprintln(input, `{"id": "7", "cancel": "6"}`)
	got := next()
	for got.Event != nil {
		got = next()
	}
	if got.ID != "6" || got.Error == nil || got.Error.Code != "CANCELLED" {
		t.Errorf("got %+v", got)
	}
	input.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
