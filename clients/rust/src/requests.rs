//! Builds requests: methods and conversions of the messages that calls take.

use crate::v1::{
    CalibrationConfig, DeviceKind, Engine, EvaluationConfig, InspectCheckpointRequest, JobState,
    ListJobsRequest, Method, MethodConfig, PlanQuantizationRequest, QuantizationSpec,
    QuantizeRequest, ServeTarget,
};

/// Tensors in a page: some 300 KB, far below the limit of a message.
const PAGE_SIZE: u32 = 2000;

impl QuantizationSpec {
    /// What to do with the checkpoint `source`, a path or `file:` URI on the server, and where the
    /// result goes there. To plan, `output` may be empty: then it is not checked.
    pub fn new(
        source: impl Into<String>,
        output: impl Into<String>,
        method: impl Into<MethodConfig>,
    ) -> Self {
        Self {
            source_uri: source.into(),
            output_uri: output.into(),
            method: Some(method.into()),
            ..Default::default()
        }
    }

    /// With calibration data, for the methods that need it.
    #[must_use]
    pub fn with_calibration(mut self, calibration: CalibrationConfig) -> Self {
        self.calibration = Some(calibration);
        self
    }

    /// With a measurement of the result, for the same methods.
    #[must_use]
    pub fn with_evaluation(mut self, evaluation: EvaluationConfig) -> Self {
        self.evaluation = Some(evaluation);
        self
    }

    /// With a largest size of one safetensors file, in bytes.
    #[must_use]
    pub fn with_max_shard_size(mut self, bytes: u64) -> Self {
        self.max_shard_size = Some(bytes);
        self
    }

    /// With the kind of device that computes. Default: the server chooses.
    #[must_use]
    pub fn with_device(mut self, device: DeviceKind) -> Self {
        self.set_device(device);
        self
    }

    /// With one more engine that has to be able to load the result.
    #[must_use]
    pub fn with_serve_target(mut self, target: impl Into<ServeTarget>) -> Self {
        self.serve_targets.push(target.into());
        self
    }
}

impl ServeTarget {
    /// An engine on a CUDA card of this compute capability, such as "8.6".
    pub fn new(engine: Engine, compute_capability: impl Into<String>) -> Self {
        Self {
            engine: engine.into(),
            compute_capability: compute_capability.into(),
        }
    }
}

impl From<Engine> for ServeTarget {
    fn from(engine: Engine) -> Self {
        Self::new(engine, "")
    }
}

impl InspectCheckpointRequest {
    /// Asks about a checkpoint: a path or `file:` URI on the server.
    pub fn new(source: impl Into<String>) -> Self {
        Self {
            source_uri: source.into(),
            ..Default::default()
        }
    }

    /// Lists the tensors, too.
    #[must_use]
    pub fn with_tensors(mut self) -> Self {
        self.page_size = PAGE_SIZE;
        self
    }

    /// With a context length to size the key/value cache for, in tokens.
    #[must_use]
    pub fn with_context_length(mut self, tokens: u64) -> Self {
        self.context_length = Some(tokens);
        self
    }
}

impl<T: Into<String>> From<T> for InspectCheckpointRequest {
    fn from(source: T) -> Self {
        Self::new(source)
    }
}

impl PlanQuantizationRequest {
    /// Says what happens to each tensor, too.
    #[must_use]
    pub fn with_tensors(mut self) -> Self {
        self.page_size = PAGE_SIZE;
        self
    }
}

impl From<QuantizationSpec> for PlanQuantizationRequest {
    fn from(spec: QuantizationSpec) -> Self {
        Self {
            spec: Some(spec),
            ..Default::default()
        }
    }
}

impl QuantizeRequest {
    /// With one more label to find the job by.
    #[must_use]
    pub fn with_label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// With a UUID of your own, which makes the call idempotent beyond the life of this process.
    #[must_use]
    pub fn with_request_id(mut self, id: impl Into<String>) -> Self {
        self.request_id = id.into();
        self
    }
}

impl From<QuantizationSpec> for QuantizeRequest {
    fn from(spec: QuantizationSpec) -> Self {
        Self {
            spec: Some(spec),
            ..Default::default()
        }
    }
}

impl ListJobsRequest {
    /// With one more state to include. Default: all.
    #[must_use]
    pub fn with_state(mut self, state: JobState) -> Self {
        self.push_states(state);
        self
    }

    /// With one more method to include. Default: all.
    #[must_use]
    pub fn with_method(mut self, method: Method) -> Self {
        self.push_methods(method);
        self
    }

    /// With one more label that a job must have.
    #[must_use]
    pub fn with_label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }
}
