//! A service that quantizes a batch of checkpoints: plans every job, submits what can be done,
//! follows all jobs at once, over restarts of the server, tries again what may succeed later, and
//! prints a table.
//!
//! Usage: orchestrator ADDRESS BATCH OUTPUTS SOURCE...: every source is quantized with three
//! methods into the folder OUTPUTS of the server, and BATCH is the label of the jobs. Exits with 1
//! when a job did not succeed.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use quantd_client::{Client, Error, JobStream, method, v1};
use tokio::task::JoinSet;

const ATTEMPTS: u32 = 3;

/// One line of the table.
struct Row {
    name: String,
    state: &'static str,
    text: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, batch, outputs, sources @ ..] = arguments.as_slice() else {
        eprintln!("usage: orchestrator ADDRESS BATCH OUTPUTS SOURCE...");
        return ExitCode::from(2);
    };
    let client = match Client::connect(address).await {
        Ok(client) => client,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let mut jobs = JoinSet::new();
    for source in sources {
        for (suffix, config) in methods() {
            let stem = Path::new(source).file_name().unwrap_or_default();
            let name = format!("{}{suffix}", stem.display());
            let spec = v1::QuantizationSpec::new(source, format!("{outputs}/{name}"), config);
            jobs.spawn(run(client.clone(), name, batch.clone(), spec));
        }
    }
    let mut rows = jobs.join_all().await;
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    for row in &rows {
        println!("{:<24} {:<10} {}", row.name, row.state, row.text);
    }
    match rows.iter().all(|row| row.state == "SUCCEEDED") {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn methods() -> [(&'static str, v1::MethodConfig); 3] {
    [
        ("-int8", method::bitsandbytes_8bit()),
        ("-nf4", method::bitsandbytes_4bit(v1::FourBitType::Nf4)),
        ("-q8_0.gguf", method::gguf(v1::GgufFileType::Q80)),
    ]
}

/// One job, from its plan to its line in the table.
async fn run(client: Client, name: String, batch: String, spec: v1::QuantizationSpec) -> Row {
    let (state, text) = match plan_and_quantize(&client, &name, &batch, spec).await {
        Ok(result) => (
            "SUCCEEDED",
            format!(
                "{:>10} bytes {:>6.2} bits per weight, error {:.4}",
                result.output_bytes, result.bits_per_weight, result.relative_error
            ),
        ),
        Err(error) if error.job().is_some() => ("FAILED", error.to_string()),
        Err(error) => ("REFUSED", error.to_string()),
    };
    Row { name, state, text }
}

async fn plan_and_quantize(
    client: &Client,
    name: &str,
    batch: &str,
    spec: v1::QuantizationSpec,
) -> Result<v1::QuantizationResult, Error> {
    let planned = loop {
        match client.plan(spec.clone()).await {
            Err(error) if error.is_retryable() => pause_after(name, &error).await,
            other => break other?,
        }
    };
    if let Some(plan) = planned.plan.filter(|_| planned.executable) {
        eprintln!("{name}: planned, {} bytes", plan.output_bytes);
    }
    let mut attempt = 1;
    loop {
        let request = v1::QuantizeRequest::from(spec.clone())
            .with_label("batch", batch)
            .with_request_id(uuid::Uuid::new_v4().to_string());
        let mut job = submit(client, name, request).await?;
        eprintln!("{name}: accepted as {}", job.name());
        match job.result().await {
            // A worker that ran out of memory, say.
            Err(error) if error.is_retryable() && attempt < ATTEMPTS => {
                eprintln!("{name}: trying again after {error}");
                tokio::time::sleep(error.retry_after().unwrap_or_default()).await;
                attempt += 1;
            }
            other => return other,
        }
    }
}

/// Submits a job as soon as the queue has a place for it. The id of the request stays the same, so
/// that there is one job whatever happens on the way.
async fn submit(
    client: &Client,
    name: &str,
    request: v1::QuantizeRequest,
) -> Result<JobStream, Error> {
    loop {
        match client.quantize(request.clone()).await {
            Err(error) if error.is_retryable() => pause_after(name, &error).await,
            other => return other,
        }
    }
}

/// Waits as long as the server asks for, or a second where it is not there to ask.
async fn pause_after(name: &str, error: &Error) {
    let pause = error.retry_after().unwrap_or(Duration::from_secs(1));
    eprintln!("{name}: {} once more in {pause:?}", error.reason());
    tokio::time::sleep(pause).await;
}
