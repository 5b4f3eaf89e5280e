//! The Rust side of the conformance suite; tests/conformance/ of the repository talks to it.
//!
//! Usage: conformance --address ADDRESS [--token FILE] [--ca PEM]. Requests come as JSON lines on
//! standard input, each `{"id", "rpc", "request", "timeout_seconds"}` or `{"id", "cancel"}`; answers
//! go as JSON lines to standard output: `event`, `reply`, `end` or `error`.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fs;
use std::io::Write as _;
use std::time::Duration;

use prost_reflect::{DescriptorPool, DynamicMessage};
use quantd_client::{Client, Error, JobStream, Reconnect, rpc, v1};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::oneshot;

const DESCRIPTORS: &[u8] = include_bytes!("conformance/descriptors.binpb");

type Failure = Box<dyn StdError + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let runner = Runner {
        client: client(std::env::args().skip(1).collect())?,
        messages: DescriptorPool::decode(DESCRIPTORS)?,
    };
    let mut running: HashMap<String, oneshot::Sender<()>> = HashMap::new();
    let mut tasks = tokio::task::JoinSet::new();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let line: Value = serde_json::from_str(&line)?;
        if let Some(id) = line["cancel"].as_str() {
            // Dropping the sender ends the call; a call that is over does not mind.
            running.remove(id);
            continue;
        }
        let (sender, cancelled) = oneshot::channel();
        running.insert(line["id"].as_str().unwrap_or_default().to_owned(), sender);
        tasks.spawn(runner.clone().answer(line, cancelled));
    }
    Ok(())
}

fn client(arguments: Vec<String>) -> Result<Client, Failure> {
    let mut options = HashMap::new();
    for pair in arguments.chunks(2) {
        let [name, value] = pair else {
            return Err(format!("{}: a value is missing", pair[0]).into());
        };
        options.insert(name.as_str(), value.as_str());
    }
    let address = options.remove("--address").ok_or("--address is missing")?;
    let mut builder = Client::builder(address).reconnect(Reconnect {
        initial_delay: Duration::from_millis(50),
        max_delay: Duration::from_millis(500),
        ..Default::default()
    });
    if let Some(file) = options.remove("--token") {
        builder = builder.token(fs::read_to_string(file)?.trim());
    }
    if let Some(file) = options.remove("--ca") {
        builder = builder.root_certificates(fs::read(file)?);
    }
    match options.keys().next() {
        Some(name) => Err(format!("{name} is not known").into()),
        None => Ok(builder.build()?),
    }
}

#[derive(Clone)]
struct Runner {
    client: Client,
    messages: DescriptorPool,
}

impl Runner {
    /// Makes one call and prints its lines.
    async fn answer(self, line: Value, cancelled: oneshot::Receiver<()>) {
        let id = &line["id"];
        let last = tokio::select! {
            last = self.call(&line) => last,
            _ = cancelled => Err(Problem::Cancelled),
        };
        let mut last = last.unwrap_or_else(|problem| problem.to_json());
        last["id"] = id.clone();
        print(&last);
    }

    /// Prints the events of a stream; returns the last line.
    async fn call(&self, line: &Value) -> Result<Value, Problem> {
        let seconds = line["timeout_seconds"].as_f64().unwrap_or(60.0);
        let limit = Duration::from_secs_f64(seconds);
        let client = self.client.with_timeout(limit);
        let jobs = client.jobs();
        let rpc = line["rpc"].as_str().unwrap_or_default();
        match rpc.rsplit('/').next().unwrap_or_default() {
            "GetCapabilities" => {
                let request: v1::GetCapabilitiesRequest =
                    self.read("GetCapabilitiesRequest", line)?;
                self.reply(
                    "GetCapabilitiesResponse",
                    &match request.refresh {
                        true => client.refreshed_capabilities().await?,
                        false => client.capabilities().await?,
                    },
                )
            }
            "InspectCheckpoint" => {
                let request = self.read("InspectCheckpointRequest", line)?;
                let answer = client.inspect_page(request).await?;
                self.reply("InspectCheckpointResponse", &answer)
            }
            "ParseConfig" => {
                let request: v1::ParseConfigRequest = self.read("ParseConfigRequest", line)?;
                let answer = client.parse_config(request.config_json).await?;
                self.reply("ParseConfigResponse", &answer)
            }
            "PlanQuantization" => {
                let request = self.read("PlanQuantizationRequest", line)?;
                let answer = client.plan_page(request).await?;
                self.reply("PlanQuantizationResponse", &answer)
            }
            "Quantize" => {
                let request: v1::QuantizeRequest = self.read("QuantizeRequest", line)?;
                let follow = async { self.follow(line, client.quantize(request).await?).await };
                within(limit, follow).await
            }
            "GetJob" => {
                let request: v1::GetJobRequest = self.read("GetJobRequest", line)?;
                let job = Some(jobs.get(request.name).await?);
                self.reply("GetJobResponse", &v1::GetJobResponse { job })
            }
            "ListJobs" => {
                let request = self.read("ListJobsRequest", line)?;
                self.reply("ListJobsResponse", &jobs.list_page(request).await?)
            }
            "WatchJob" => {
                let request: v1::WatchJobRequest = self.read("WatchJobRequest", line)?;
                let stream = jobs.watch_after(request.name, request.after_sequence);
                let follow = async { self.follow(line, stream.await?).await };
                within(limit, follow).await
            }
            "CancelJob" => {
                let request: v1::CancelJobRequest = self.read("CancelJobRequest", line)?;
                let job = Some(jobs.cancel(request.name, request.reason).await?);
                self.reply("CancelJobResponse", &v1::CancelJobResponse { job })
            }
            "DeleteJob" => {
                let request: v1::DeleteJobRequest = self.read("DeleteJobRequest", line)?;
                match request.delete_output {
                    true => jobs.delete_with_output(request.name).await?,
                    false => jobs.delete(request.name).await?,
                }
                self.reply("DeleteJobResponse", &v1::DeleteJobResponse {})
            }
            _ => Err(Problem::Harness(format!("{rpc}: there is no such call"))),
        }
    }

    async fn follow(&self, line: &Value, mut events: JobStream) -> Result<Value, Problem> {
        while let Some(event) = events.next().await {
            let event = self.write("JobEvent", &event?)?;
            // Both streams answer with a message whose only field is the event.
            print(&json!({"id": line["id"], "event": {"event": event}}));
        }
        Ok(json!({"end": true}))
    }

    fn reply(&self, message: &str, answer: &impl prost::Message) -> Result<Value, Problem> {
        Ok(json!({"reply": self.write(message, answer)?}))
    }

    fn read<M: prost::Message + Default>(&self, message: &str, line: &Value) -> Result<M, Problem> {
        let descriptor = self
            .messages
            .get_message_by_name(&format!("quantd.v1.{message}"));
        let descriptor = descriptor.ok_or_else(|| Problem::Harness(message.to_owned()))?;
        let read = DynamicMessage::deserialize(descriptor, &line["request"]);
        read.map_err(harness)?.transcode_to().map_err(harness)
    }

    fn write(&self, message: &str, answer: &impl prost::Message) -> Result<Value, Problem> {
        let descriptor = self
            .messages
            .get_message_by_name(&format!("quantd.v1.{message}"));
        let descriptor = descriptor.ok_or_else(|| Problem::Harness(message.to_owned()))?;
        let mut written = DynamicMessage::new(descriptor);
        written.transcode_from(answer).map_err(harness)?;
        serde_json::to_value(&written).map_err(harness)
    }
}

async fn within(
    limit: Duration,
    call: impl Future<Output = Result<Value, Problem>>,
) -> Result<Value, Problem> {
    tokio::time::timeout(limit, call)
        .await
        .unwrap_or(Err(Problem::Late))
}

/// Why a call has no answer.
enum Problem {
    Call(Error),
    Cancelled,
    Late,
    /// The line was not what it should be.
    Harness(String),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

fn harness(error: impl StdError) -> Problem {
    Problem::Harness(error.to_string())
}

impl Problem {
    fn to_json(&self) -> Value {
        match self {
            Self::Call(error) => json!({"error": described(error)}),
            Self::Cancelled => bare_error("CANCELLED", "the call was cancelled"),
            Self::Late => bare_error("DEADLINE_EXCEEDED", "the stream is not at its end"),
            Self::Harness(message) => bare_error("INTERNAL", message),
        }
    }
}

fn bare_error(code: &str, message: &str) -> Value {
    json!({"error": {
        "code": code, "reason": "", "message": message,
        "violations": [], "retryable": false,
    }})
}

fn described(error: &Error) -> Value {
    let violations = error.violations().iter().map(
        |item| json!({"field": item.field, "reason": item.reason, "description": item.message}),
    );
    let preconditions = error.preconditions().iter().map(
        |item| json!({"field": item.subject, "reason": item.reason, "description": item.message}),
    );
    json!({
        "code": rpc::Code::try_from(error.code() as i32).map_or("", |code| code.as_str_name()),
        "reason": error.reason(),
        "message": error.message(),
        "violations": violations.chain(preconditions).collect::<Vec<_>>(),
        "retryable": error.is_retryable(),
    })
}

fn print(line: &Value) {
    let mut output = std::io::stdout().lock();
    // Nobody is left to be told when standard output is closed.
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}
