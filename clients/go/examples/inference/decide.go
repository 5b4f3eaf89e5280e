package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/quantd/quantd/clients/go"
	"github.com/quantd/quantd/clients/go/quantdv1"
)

// question is what an inference server wants to know.
type question struct {
	checkpoint string
	engine     quantdv1.Engine
	memory     uint64 // 0: what is free on the device
	context    uint64 // 0: the model's own
}

// decision is how to load a checkpoint.
type decision struct {
	engine quantdv1.Engine
	device quantdv1.DeviceKind
	index  uint32
	method *quantdv1.MethodConfig // nil: as it is
	name   string                 // of the method
	bytes  uint64                 // of weights and cache
}

func (d *decision) String() string {
	how := "as it is"
	if d.method != nil {
		how = "quantized to " + d.name
	}
	return fmt.Sprintf("load %s with %s on %s:%d, %d MiB",
		how, quantd.Name(d.engine), quantd.Name(d.device), d.index, d.bytes>>20)
}

// refusal is why a checkpoint is not loaded, in the server's words.
type refusal struct{ reason, message, remedy string }

func (r *refusal) Error() string { return fmt.Sprintf("%s: %s; %s", r.reason, r.message, r.remedy) }

// candidate is a method that an engine reads.
type candidate struct {
	name   string
	kind   quantdv1.Method
	config *quantdv1.MethodConfig
}

// candidatesOf an engine, the most faithful first.
func candidatesOf(engine quantdv1.Engine) []candidate {
	switch engine {
	case quantdv1.Engine_ENGINE_LLAMA_CPP:
		return []candidate{
			{"Q8_0", quantdv1.Method_METHOD_GGUF, quantd.GGUF(quantdv1.GgufFileType_GGUF_FILE_TYPE_Q8_0)},
			{"Q4_K_M", quantdv1.Method_METHOD_GGUF, quantd.GGUF(quantdv1.GgufFileType_GGUF_FILE_TYPE_Q4_K_M)},
		}
	case quantdv1.Engine_ENGINE_TRANSFORMERS:
		return []candidate{
			{"int8", quantdv1.Method_METHOD_BITSANDBYTES_8BIT, quantd.LLMInt8()},
			{"NF4", quantdv1.Method_METHOD_BITSANDBYTES_4BIT, quantd.NF4()},
		}
	default:
		return []candidate{
			{"GPTQ, 8 bits", quantdv1.Method_METHOD_GPTQ, quantd.GPTQ(8)},
			{"AWQ", quantdv1.Method_METHOD_AWQ, quantd.AWQ()},
		}
	}
}

// decide asks the server; no weight is read. It returns a [*refusal] when there is no way.
func decide(ctx context.Context, client *quantd.Client, asked question) (*decision, error) {
	capabilities, err := settledCapabilities(ctx, client)
	if err != nil {
		return nil, err
	}
	var options []quantd.AskOption
	if asked.context > 0 {
		options = append(options, quantd.WithContextLength(asked.context))
	}
	inspection, err := client.Inspect(ctx, asked.checkpoint, options...)
	if err != nil {
		return nil, err
	}
	if wrong := firstError(inspection.GetFindings()); wrong != nil {
		return nil, wrong
	}
	load := bestLoad(inspection.GetLoads(), asked.engine)
	if load == nil {
		return nil, &refusal{"ENGINE_UNKNOWN", "the server knows nothing of the engine", "choose another"}
	}
	room := load.GetFreeBytes()
	if asked.memory > 0 {
		room = min(room, asked.memory)
	}
	found := &decision{
		engine: asked.engine, device: load.GetDevice(), index: load.GetDeviceIndex(),
		bytes: load.GetWeightBytes() + load.GetKvCacheBytes(),
	}
	if load.GetLoadable() && found.bytes <= room {
		return found, nil
	}
	if refused := hopeless(load.GetFindings()); refused != nil {
		return nil, refused
	}
	refused := firstError(load.GetFindings())
	if inspection.GetCheckpoint().GetQuantization() == nil {
		for _, each := range candidatesOf(asked.engine) {
			size, reason, err := sizeOf(ctx, client, capabilities, asked, load, each)
			switch {
			case err != nil:
				return nil, err
			case reason != nil:
				refused = reason
			case size+load.GetKvCacheBytes() <= room:
				found.method, found.name, found.bytes = each.config, each.name, size+load.GetKvCacheBytes()
				return found, nil
			}
		}
	}
	if refused == nil {
		refused = &refusal{"MEMORY_TOO_SMALL",
			fmt.Sprintf("no method makes it fit into %d bytes", room), "give it more memory"}
	}
	return nil, refused
}

// settledCapabilities waits until the server knows which devices its torch can compute on.
func settledCapabilities(
	ctx context.Context, client *quantd.Client,
) (*quantdv1.GetCapabilitiesResponse, error) {
	for {
		answer, err := client.Capabilities(ctx)
		if err != nil || answer.GetTorch().GetState() != quantdv1.TorchState_TORCH_STATE_PENDING {
			return answer, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// bestLoad is the assessment of an engine to go by: where it can be loaded, and rather not the CPU.
func bestLoad(loads []*quantdv1.LoadAssessment, engine quantdv1.Engine) *quantdv1.LoadAssessment {
	value := func(load *quantdv1.LoadAssessment) int {
		worth := 0
		if load.GetLoadable() {
			worth += 2
		}
		if load.GetDevice() != quantdv1.DeviceKind_DEVICE_KIND_CPU {
			worth++
		}
		return worth
	}
	var best *quantdv1.LoadAssessment
	for _, load := range loads {
		if load.GetEngine() == engine && (best == nil || value(load) > value(best)) {
			best = load
		}
	}
	return best
}

// sizeOf is the size of the weights after a method, or why that method is out of the question.
func sizeOf(
	ctx context.Context, client *quantd.Client, capabilities *quantdv1.GetCapabilitiesResponse,
	asked question, load *quantdv1.LoadAssessment, each candidate,
) (uint64, *refusal, error) {
	for _, method := range capabilities.GetMethods() {
		if method.GetMethod() != each.kind {
			continue
		}
		if unmet := method.GetQuantize().GetUnmet(); len(unmet) > 0 {
			return 0, refusalOf(unmet[0]), nil
		}
		for _, engine := range method.GetLoad() {
			if unmet := engine.GetAvailability().GetUnmet(); engine.GetEngine() == asked.engine && len(unmet) > 0 {
				return 0, refusalOf(unmet[0]), nil
			}
		}
	}
	target := &quantdv1.ServeTarget{Engine: asked.engine}
	place := slices.IndexFunc(capabilities.GetDevices(), func(device *quantdv1.Device) bool {
		return device.GetKind() == load.GetDevice() && device.GetIndex() == load.GetDeviceIndex()
	})
	if place >= 0 {
		target.ComputeCapability = capabilities.GetDevices()[place].GetComputeCapability()
	}
	plan, err := client.Plan(ctx, &quantdv1.QuantizationSpec{
		SourceUri: asked.checkpoint, Method: each.config, ServeTargets: []*quantdv1.ServeTarget{target},
	})
	if err != nil {
		return 0, nil, err
	}
	return plan.GetPlan().GetOutputBytes(), firstError(plan.GetFindings()), nil
}

func refusalOf(unmet *quantdv1.UnmetRequirement) *refusal {
	return &refusal{unmet.GetReason(), unmet.GetMessage(), unmet.GetRemedy()}
}

// hopeless is the first finding that quantizing would not change.
func hopeless(findings []*quantdv1.Finding) *refusal {
	return firstError(slices.DeleteFunc(slices.Clone(findings), func(each *quantdv1.Finding) bool {
		return each.GetReason() == "MEMORY_TOO_SMALL" || each.GetReason() == "ENGINE_CANNOT_READ"
	}))
}

// firstError is the first finding that forbids something.
func firstError(findings []*quantdv1.Finding) *refusal {
	for _, each := range findings {
		if each.GetSeverity() == quantdv1.Severity_SEVERITY_ERROR {
			return &refusal{each.GetReason(), each.GetMessage(), each.GetRemedy()}
		}
	}
	return nil
}
