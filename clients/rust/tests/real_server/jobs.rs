//! Jobs, from their plan to their end.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_core::Stream;
use quantd_client::v1::job_event::Event;
use quantd_client::v1::{
    FourBitType, GgufFileType, JobEvent, JobState, ListJobsRequest, Method,
    PlanQuantizationRequest, QuantizationSpec, QuantizeRequest,
};
use quantd_client::{Client, Code, Error, JobStream, method};

use crate::server::Server;

/// Every stored event once and in order, the finished job last.
pub fn assert_whole(events: &[JobEvent]) {
    let stored = events
        .iter()
        .filter(|event| !matches!(event.event, Some(Event::Heartbeat(_))));
    let sequences: Vec<u64> = stored.map(|event| event.sequence).collect();
    assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>());
    let Some(Event::Snapshot(last)) = &events.last().unwrap().event else {
        panic!("the last event is no snapshot");
    };
    assert_eq!(last.last_sequence, sequences.len() as u64);
}

pub async fn read(stream: &mut JobStream) -> Result<Vec<JobEvent>, Error> {
    let mut events = Vec::new();
    while let Some(event) = stream.next().await {
        events.push(event?);
    }
    Ok(events)
}

fn nf4(source: &str, output: String) -> QuantizationSpec {
    QuantizationSpec::new(source, output, method::bitsandbytes_4bit(FourBitType::Nf4))
}

/// A job that takes seconds.
pub fn slow(server: &Server) -> QuantizationSpec {
    let source = server.write_slow("slow");
    QuantizationSpec::new(
        source,
        server.path("slow.gguf"),
        method::gguf(GgufFileType::Iq4Xs),
    )
}

pub async fn wait_for(client: &Client, name: &str, wanted: JobState) {
    // Kernels may have to be compiled first.
    for _ in 0..9000 {
        let state = client.jobs().get(name).await.unwrap().state();
        if state == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{name} never became {wanted:?}");
}

#[tokio::test]
async fn a_job_from_plan_to_deletion() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let client = server.client();
    let spec = nf4(&server.write_llama("tiny", 2), server.path("tiny-nf4"));
    let request = PlanQuantizationRequest::from(spec.clone()).with_tensors();
    let planned = client.plan(request).await.unwrap();
    assert!(planned.executable);

    let request = QuantizeRequest::from(spec).with_label("team", "a");
    let mut job = client.quantize(request).await.unwrap();
    let events = read(&mut job).await.unwrap();
    assert_whole(&events);
    let done: BTreeMap<_, _> = events
        .iter()
        .filter_map(|event| match &event.event {
            Some(Event::Tensor(tensor)) => Some((&tensor.name, &tensor.target_type)),
            _ => None,
        })
        .collect();
    let expected = planned.tensors.iter();
    let expected = expected
        .map(|tensor| (&tensor.target_name, &tensor.target_type))
        .collect();
    assert_eq!(done, expected);
    let result = job.result().await.unwrap();
    let file = std::fs::metadata(server.path("tiny-nf4/model.safetensors")).unwrap();
    assert_eq!(result.output_bytes, file.len());
    assert_eq!(result.output_bytes, planned.plan.unwrap().output_bytes);
    assert_eq!(job.job(), &client.jobs().get(job.name()).await.unwrap());

    client.jobs().delete_with_output(job.name()).await.unwrap();
    assert!(!std::fs::exists(server.path("tiny-nf4")).unwrap());
    let error = client.jobs().get(job.name()).await.unwrap_err();
    assert_eq!(
        (error.code(), error.reason()),
        (Code::NotFound, "JOB_NOT_FOUND")
    );
    let error = client.jobs().watch(job.name()).await.unwrap_err();
    assert_eq!(error.reason(), "JOB_NOT_FOUND");
}

#[tokio::test]
async fn a_listing_goes_over_pages_and_filters() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let client = server.client();
    let source = server.write_llama("tiny", 1);
    let mut names = Vec::new();
    for number in 0..3 {
        let spec = nf4(&source, server.path(&format!("out-{number}")));
        let request = QuantizeRequest::from(spec).with_label("parity", ["even", "odd"][number % 2]);
        let mut job = client.quantize(request).await.unwrap();
        job.result().await.unwrap();
        names.insert(0, job.name().to_owned());
    }
    let listed = async |request: ListJobsRequest| {
        let request = ListJobsRequest {
            page_size: 1,
            ..request
        };
        let mut jobs = client.jobs().list(request);
        let mut listed = Vec::new();
        while let Some(job) = jobs.next().await {
            listed.push(job.unwrap().name);
        }
        listed
    };
    let all = ListJobsRequest::default();
    assert_eq!(listed(all.clone()).await, names);
    assert_eq!(
        listed(all.clone().with_label("parity", "odd")).await,
        names[1..2]
    );
    assert_eq!(
        listed(all.clone().with_state(JobState::Succeeded)).await,
        names
    );
    assert!(
        listed(all.clone().with_state(JobState::Failed))
            .await
            .is_empty()
    );
    assert_eq!(
        listed(all.clone().with_method(Method::Bitsandbytes4bit)).await,
        names
    );
    assert!(listed(all.with_method(Method::Gguf)).await.is_empty());

    let wrong = ListJobsRequest {
        page_token: "wrong".to_owned(),
        ..Default::default()
    };
    let mut jobs = client.jobs().list(wrong);
    let error = jobs.next().await.unwrap().unwrap_err();
    assert_eq!(error.reason(), "PAGE_TOKEN_INVALID");
    assert!(jobs.next().await.is_none());
}

#[tokio::test]
async fn dropping_the_stream_leaves_the_job_running() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let client = server.client();
    let job = client.quantize(slow(&server)).await.unwrap();
    let name = job.name().to_owned();
    drop(job);
    wait_for(&client, &name, JobState::Succeeded).await;
    let mut again = client.jobs().watch(&name).await.unwrap();
    assert_whole(&read(&mut again).await.unwrap());
}

#[tokio::test]
async fn cancelling_ends_the_job_and_its_events_tell() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let client = server.client();
    let mut job = client.quantize(slow(&server)).await.unwrap();
    // A future that can go to another task, as the stream itself can.
    let cancelled = tokio::spawn(job.cancel("not needed"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(cancelled.name, job.name());
    let job = tokio::spawn(async move {
        assert_whole(&read(&mut job).await.unwrap());
        job
    });
    let mut job = job.await.unwrap();
    assert_eq!(job.job().state(), JobState::Cancelled);
    let error = job.result().await.unwrap_err();
    assert_eq!(error.code(), Code::Cancelled);
    assert_eq!(error.reason(), "CANCELLED");
    assert_eq!(error.job().unwrap().name, job.name());
    assert!(!error.is_retryable());
    client.jobs().delete(job.name()).await.unwrap();
}

#[tokio::test]
async fn a_job_that_runs_cannot_be_deleted() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let client = server.client();
    let job = client.quantize(slow(&server)).await.unwrap();
    let error = client.jobs().delete(job.name()).await.unwrap_err();
    assert_eq!(
        (error.code(), error.reason()),
        (Code::FailedPrecondition, "JOB_NOT_FINISHED")
    );
}

#[tokio::test]
async fn watching_goes_on_after_what_was_seen() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let client = server.client();
    let spec = nf4(&server.write_llama("tiny", 1), server.path("out"));
    let mut job = client.quantize(spec).await.unwrap();
    let events = read(&mut job).await.unwrap();
    let last = job.last_sequence();
    let jobs = client.jobs();

    let mut rest = jobs.watch_after(job.name(), 3).await.unwrap();
    assert_eq!(read(&mut rest).await.unwrap(), events[3..]);
    rest.result().await.unwrap();
    let mut nothing = jobs.watch_after(job.name(), last).await.unwrap();
    assert!(nothing.next().await.is_none());
    nothing.result().await.unwrap();
    let mut beyond = jobs.watch_after(job.name(), last + 1).await.unwrap();
    let error = beyond.next().await.unwrap().unwrap_err();
    assert_eq!(
        (error.code(), error.reason()),
        (Code::OutOfRange, "SEQUENCE_OUT_OF_RANGE")
    );
    assert!(beyond.next().await.is_none());
}

#[tokio::test]
async fn one_request_id_is_one_job() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let client = server.client();
    let spec = nf4(&server.write_llama("tiny", 1), server.path("out"));
    let id = "4be1ab64-0f5c-4a6c-8d3a-6f5f5f0f7a11";
    let request = QuantizeRequest::from(spec).with_request_id(id);
    let mut first = client.quantize(request.clone()).await.unwrap();
    let events = read(&mut first).await.unwrap();
    let mut second = client.quantize(request.clone()).await.unwrap();
    assert_eq!(first.name(), second.name());
    assert_eq!(read(&mut second).await.unwrap(), events);
    let error = client
        .quantize(request.with_label("a", "b"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.reason()),
        (Code::AlreadyExists, "REQUEST_ID_REUSED")
    );
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let Some(server) = Server::start(&["--max-queued-jobs", "1"]) else {
        return;
    };
    let client = server.client();
    let source = server.write_llama("tiny", 1);
    let running = client.quantize(slow(&server)).await.unwrap();
    wait_for(&client, running.name(), JobState::Running).await;
    let spec = |output: &str| nf4(&source, server.path(output));
    let _waiting = client.quantize(spec("one")).await.unwrap();
    let error = client.quantize(spec("two")).await.unwrap_err();
    assert_eq!(
        (error.code(), error.reason()),
        (Code::ResourceExhausted, "QUEUE_FULL")
    );
    assert!(error.is_retryable());
    assert!(error.retry_after().unwrap() > Duration::ZERO);
}

#[test]
fn job_streams_are_streams_for_any_runtime_of_tasks() {
    fn is_stream<T: Stream<Item = Result<JobEvent, Error>> + Send + Unpin + 'static>() {}
    is_stream::<JobStream>();
}
