//! Servers that are killed, and connections that break.

use std::time::Duration;

use quantd_client::v1::job_event::Event;
use quantd_client::v1::{JobEvent, JobState, ListJobsRequest, QuantizationSpec};
use quantd_client::{Client, JobStream, method};
use tokio::io::copy;
use tokio::net::{UnixListener, UnixStream};

use crate::jobs::{assert_whole, slow};
use crate::server::{Server, quick};

#[tokio::test]
async fn a_job_stream_survives_servers_that_are_killed() {
    let Some(mut server) = Server::start(&[]) else {
        return;
    };
    let client = server.client();
    let mut first = client.quantize(slow(&server)).await.unwrap();
    let source = server.write_llama("deep", 40);
    let spec = QuantizationSpec::new(
        source,
        server.path("deep-int8"),
        method::bitsandbytes_8bit(),
    );
    let mut second = client.quantize(spec).await.unwrap();

    // A server begins a job again twice at most. The second job waits meanwhile.
    let (mut of_first, mut of_second) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        read_until(&mut first, &mut of_first, |event| {
            matches!(event, Event::Tensor(_))
        })
        .await;
        server.kill();
        // Both notice, and try while nothing is there.
        read_for(&mut first, &mut of_first, Duration::from_millis(200)).await;
        read_for(&mut second, &mut of_second, Duration::from_millis(200)).await;
        server.start_again();
    }
    read_until(&mut first, &mut of_first, |_| false).await;
    read_until(&mut second, &mut of_second, |_| false).await;
    assert_whole(&of_first);
    assert_whole(&of_second);
    assert_eq!(first.job().state(), JobState::Succeeded);
    assert_eq!(second.job().state(), JobState::Succeeded);
    let begun_again = |event: &&JobEvent| match &event.event {
        Some(Event::Warning(finding)) => finding.reason == "JOB_RETRIED",
        _ => false,
    };
    assert_eq!(of_first.iter().filter(begun_again).count(), 2);
    let is_tensor = |event: &&JobEvent| matches!(event.event, Some(Event::Tensor(_)));
    assert_eq!(of_second.iter().filter(is_tensor).count(), 2 + 9 * 40);
}

async fn read_until(
    stream: &mut JobStream,
    events: &mut Vec<JobEvent>,
    is_enough: impl Fn(&Event) -> bool,
) {
    while let Some(event) = stream.next().await {
        let event = event.unwrap();
        let enough = event.event.as_ref().is_some_and(&is_enough);
        events.push(event);
        if enough {
            return;
        }
    }
}

/// Futures of events are given up here, too: that must not lose one.
async fn read_for(stream: &mut JobStream, events: &mut Vec<JobEvent>, time: Duration) {
    let _ = tokio::time::timeout(time, read_until(stream, events, |_| false)).await;
}

/// Forwards a socket to another one. Of the first connection nothing comes back, and after a while
/// it breaks: the server gets the request, and the client gets no answer.
async fn swallow_first_answer(listener: UnixListener, target: String) {
    for number in 0.. {
        let (inner, _) = listener.accept().await.unwrap();
        let outer = UnixStream::connect(&target).await.unwrap();
        let (mut from_client, mut to_client) = inner.into_split();
        let (mut from_server, mut to_server) = outer.into_split();
        tokio::spawn(async move {
            let asked = tokio::spawn(async move {
                let _ = copy(&mut from_client, &mut to_server).await;
            });
            if number == 0 {
                tokio::time::sleep(Duration::from_secs(1)).await;
            } else {
                let _ = copy(&mut from_server, &mut to_client).await;
            }
            asked.abort();
        });
    }
}

#[tokio::test]
async fn a_submission_whose_answer_is_lost_is_one_job() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let socket = server.path("proxy");
    let listener = UnixListener::bind(&socket).unwrap();
    let target = server.address().trim_start_matches("unix:").to_owned();
    let proxy = tokio::spawn(swallow_first_answer(listener, target));
    let client = Client::builder(format!("unix:{socket}"))
        .reconnect(quick())
        .build()
        .unwrap();
    let source = server.write_llama("tiny", 1);
    let spec = QuantizationSpec::new(source, server.path("out"), method::bitsandbytes_8bit());
    let mut job = client.quantize(spec).await.unwrap();
    job.result().await.unwrap();
    let listed = server
        .client()
        .jobs()
        .list_page(ListJobsRequest::default())
        .await
        .unwrap();
    let names: Vec<_> = listed.jobs.iter().map(|job| job.name.as_str()).collect();
    assert_eq!(names, [job.name()]);
    proxy.abort();
}

#[tokio::test]
async fn without_a_server_a_stream_gives_up_in_the_end() {
    let Some(mut server) = Server::start(&[]) else {
        return;
    };
    let reconnect = quantd_client::Reconnect {
        timeout: Duration::from_millis(500),
        ..quick()
    };
    let client = Client::builder(server.address())
        .reconnect(reconnect)
        .build()
        .unwrap();
    let mut job = client.quantize(slow(&server)).await.unwrap();
    server.kill();
    let error = job.result().await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert!(error.job().is_none());
    assert!(job.next().await.is_none());
    server.start_again();
    let seen = job.last_sequence();
    let mut again = client.jobs().watch_after(job.name(), seen).await.unwrap();
    assert_eq!(again.next().await.unwrap().unwrap().sequence, seen + 1);
}
