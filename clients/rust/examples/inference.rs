//! What an inference server asks before it loads a model: can this host load it as it is, or after
//! quantizing it, or not at all, and why?
//!
//! Usage: inference ADDRESS CHECKPOINT [ENGINE], where ENGINE is TRANSFORMERS (the default), VLLM,
//! SGLANG or LLAMA_CPP. Exits with 1 when the model cannot be loaded.

use std::process::ExitCode;

use quantd_client::{Client, Error, method, v1};

/// What to do with the checkpoint.
enum Decision {
    Load(v1::LoadAssessment),
    Quantize(v1::Method, u64),
    Refuse(String),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (address, checkpoint, engine) = match arguments.as_slice() {
        [address, checkpoint] => (address, checkpoint, "TRANSFORMERS"),
        [address, checkpoint, engine] => (address, checkpoint, engine.as_str()),
        _ => {
            eprintln!("usage: inference ADDRESS CHECKPOINT [ENGINE]");
            return ExitCode::from(2);
        }
    };
    let Some(engine) = v1::Engine::from_str_name(&format!("ENGINE_{engine}")) else {
        eprintln!("{engine} is not one of TRANSFORMERS, VLLM, SGLANG, LLAMA_CPP");
        return ExitCode::from(2);
    };
    let decision = decide(address, checkpoint, engine).await;
    match decision.unwrap_or_else(|error| Decision::Refuse(error.to_string())) {
        Decision::Load(load) => println!(
            "load it on {} {}: {} bytes of weights, {} bytes free",
            short_name(load.device().as_str_name(), "DEVICE_KIND_"),
            load.device_index,
            load.weight_bytes,
            load.free_bytes
        ),
        Decision::Quantize(method, bytes) => println!(
            "quantize it first, with {}: {bytes} bytes of weights",
            short_name(method.as_str_name(), "METHOD_")
        ),
        Decision::Refuse(reason) => {
            println!("refused: {reason}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

async fn decide(address: &str, checkpoint: &str, engine: v1::Engine) -> Result<Decision, Error> {
    let client = Client::connect(address).await?;
    let capabilities = client.capabilities().await?;
    let found = client.inspect(checkpoint).await?;
    let loads: Vec<_> = found
        .loads
        .into_iter()
        .filter(|load| load.engine() == engine)
        .collect();

    // A card before the processor, and the one with the most room.
    let loadable = loads.iter().filter(|load| load.loadable);
    let best = loadable.max_by_key(|load| (load.device() != v1::DeviceKind::Cpu, load.free_bytes));
    if let Some(load) = best {
        return Ok(Decision::Load(load.clone()));
    }
    let room = |load: &v1::LoadAssessment| load.free_bytes.saturating_sub(load.kv_cache_bytes);
    let room = loads.iter().map(room).max().unwrap_or(0);
    for candidate in capabilities.methods {
        let Some(config) = config_of(candidate.method()) else {
            continue;
        };
        if !can_be_made_and_loaded(&candidate, engine) {
            continue;
        }
        let spec = v1::QuantizationSpec::new(checkpoint, "", config).with_serve_target(engine);
        let answer = client.plan(spec).await?;
        let bytes = answer.plan.unwrap_or_default().output_bytes;
        if answer.executable && bytes <= room {
            return Ok(Decision::Quantize(candidate.method(), bytes));
        }
    }
    let findings = loads.iter().flat_map(|load| &load.findings);
    let stands_against = |finding: &&v1::Finding| finding.severity() == v1::Severity::Error;
    Ok(Decision::Refuse(
        match findings.chain(&found.findings).find(stands_against) {
            Some(finding) => format!(
                "{}: {}; {}",
                finding.reason, finding.message, finding.remedy
            ),
            None => "no engine of this name is known to the server".to_owned(),
        },
    ))
}

/// The methods that need no calibration data, so that a start-up can wait for them.
fn config_of(method: v1::Method) -> Option<v1::MethodConfig> {
    match method {
        v1::Method::Bitsandbytes8bit => Some(method::bitsandbytes_8bit()),
        v1::Method::Bitsandbytes4bit => Some(method::bitsandbytes_4bit(v1::FourBitType::Nf4)),
        v1::Method::Gguf => Some(method::gguf(v1::GgufFileType::Q4KM)),
        _ => None,
    }
}

fn can_be_made_and_loaded(candidate: &v1::MethodCapability, engine: v1::Engine) -> bool {
    let available = |availability: &Option<v1::Availability>| {
        availability.as_ref().is_some_and(|it| it.available)
    };
    available(&candidate.quantize)
        && candidate
            .load
            .iter()
            .any(|load| load.engine() == engine && available(&load.availability))
}

fn short_name(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_lowercase()
}
