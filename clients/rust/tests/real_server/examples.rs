//! The examples, as programs.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use quantd_client::v1::ListJobsRequest;
use serde_json::{Value, json};

use crate::server::Server;

/// cargo puts examples beside the folder of test programs.
fn example(name: &str) -> Command {
    let test = env::current_exe().unwrap();
    let folder: PathBuf = test.parent().unwrap().parent().unwrap().join("examples");
    Command::new(folder.join(name))
}

/// Whether it ended well, and what it printed.
fn inference(arguments: &[&str]) -> (bool, String) {
    let output = example("inference").args(arguments).output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    (
        output.status.success(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

#[tokio::test]
async fn inference_decides_before_it_loads() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let address = server.address();
    let source = server.write_llama_with_tokenizer("tiny");
    let (loadable, said) = inference(&[&address, &source]);
    assert!(loadable && said.starts_with("load it on "), "{said}");
    let (loadable, said) = inference(&[&address, &server.path("absent")]);
    let refused = "refused: SOURCE_NOT_FOUND: ";
    assert!(!loadable && said.starts_with(refused), "{said}");

    let (loadable, said) = inference(&[&address, &source, "SGLANG"]);
    let refused = "refused: PACKAGE_MISSING: sglang is not installed; ";
    assert!(!loadable && said.starts_with(refused), "{said}");
    server.install_program("llama-server");
    let refreshed = server.client().refreshed_capabilities().await;
    assert!(refreshed.is_ok());
    let (loadable, said) = inference(&[&address, &source, "LLAMA_CPP"]);
    let decided = "quantize it first, with gguf: ";
    assert!(loadable && said.starts_with(decided), "{said}");
}

#[test]
fn the_orchestrator_survives_a_server_that_is_killed() {
    // Two jobs wait at most, so that one or two of four have to be submitted again.
    let Some(mut server) = Server::start(&["--max-queued-jobs", "2"]) else {
        return;
    };
    let sources = [server.write_llama("one", 20), server.write_llama("two", 20)];
    let mut process = example("orchestrator")
        .args([&server.address(), "nightly", &server.path("out")])
        .args(&sources)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(process.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains(": accepted as jobs/")));
    server.kill();
    server.start_again();
    let rest: Vec<String> = said.map(Result::unwrap).collect();
    let output = process.wait_with_output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    let states: Vec<(&str, &str)> = table
        .lines()
        .filter(|line| !line.starts_with(' '))
        .map(|line| {
            let mut words = line.split_whitespace();
            (words.next().unwrap(), words.next().unwrap())
        })
        .collect();
    let names = [
        "one-int8",
        "one-nf4",
        "one-q8_0.gguf",
        "two-int8",
        "two-nf4",
        "two-q8_0.gguf",
    ];
    // Without a tokenizer there is no .gguf file.
    let expected = names.map(|name| match name.ends_with(".gguf") {
        true => (name, "REFUSED"),
        false => (name, "SUCCEEDED"),
    });
    assert_eq!(states, expected, "{table}\n{}", rest.join("\n"));
    assert!(!output.status.success());

    let batch = ListJobsRequest::default().with_label("batch", "nightly");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let listed = runtime.block_on(async { server.client().jobs().list_page(batch).await });
    assert_eq!(listed.unwrap().jobs.len(), 4);
}

#[test]
fn the_conformance_runner_speaks_json_lines() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let (source, output) = (server.write_llama("tiny", 1), server.path("out"));
    let spec = json!({
        "sourceUri": source, "outputUri": output, "method": {"bitsandbytes8bit": {}},
    });
    let mut process = example("conformance")
        .args(["--address", &server.address()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = process.stdin.take().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut call = |id: &str, rpc: &str, request: Value| -> Vec<Value> {
        writeln!(
            input,
            "{}",
            json!({"id": id, "rpc": rpc, "request": request})
        )
        .unwrap();
        let mut answers = Vec::new();
        loop {
            let answer: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            assert_eq!(answer["id"], id);
            let is_last = answer.get("event").is_none();
            answers.push(answer);
            if is_last {
                return answers;
            }
        }
    };
    let plan = call(
        "1",
        "quantd.v1.QuantizationService/PlanQuantization",
        json!({"spec": spec}),
    );
    assert_eq!(plan[0]["reply"]["executable"], true);
    let job = call(
        "2",
        "quantd.v1.QuantizationService/Quantize",
        json!({"spec": spec}),
    );
    let last = &job[job.len() - 2]["event"]["event"]["snapshot"];
    assert_eq!(last["state"], "JOB_STATE_SUCCEEDED");
    assert_eq!(job[job.len() - 1]["end"], true);
    let error = &call(
        "3",
        "quantd.v1.QuantizationService/Quantize",
        json!({"spec": spec}),
    )[0];
    assert_eq!(error["error"]["code"], "FAILED_PRECONDITION");
    assert_eq!(error["error"]["violations"][0]["field"], "spec.output_uri");
    let name = json!({"name": last["name"]});
    let got = call("4", "quantd.v1.JobService/GetJob", name.clone());
    assert_eq!(&got[0]["reply"]["job"], last);
    let deleted = call("5", "quantd.v1.JobService/DeleteJob", name.clone());
    assert!(deleted[0]["reply"].is_object());
    let gone = call("6", "quantd.v1.JobService/WatchJob", name);
    assert_eq!(gone[0]["error"]["reason"], "JOB_NOT_FOUND");
    drop(input);
    assert!(process.wait().unwrap().success());
}
