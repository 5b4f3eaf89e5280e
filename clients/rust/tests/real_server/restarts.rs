//! Servers that are killed, and connections that break.

use std::time::Duration;

use quantd_client::v1::job_event::Event;
use quantd_client::v1::{JobState, ListJobsRequest, QuantizationSpec};
use quantd_client::{Client, method};
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

    // The second job waits, so that the server can be killed often before it runs; the first one is
    // begun again, which a server does three times at most.
    let mut events = (Vec::new(), Vec::new());
    for kill in 0..3 {
        let event = first.next().await.unwrap().unwrap();
        events.0.push(event);
        server.kill();
        // The client notices, and tries while nothing is there.
        let waited = tokio::time::timeout(Duration::from_millis(300), first.next()).await;
        events
            .0
            .extend(waited.into_iter().flatten().map(Result::unwrap));
        server.start_again();
        if kill == 1 {
            let after = second.last_sequence();
            let name = second.name().to_owned();
            while let Ok(Some(event)) =
                tokio::time::timeout(Duration::from_millis(50), second.next()).await
            {
                events.1.push(event.unwrap());
            }
            assert!(second.last_sequence() >= after);
            assert_eq!(second.name(), name);
        }
    }
    while let Some(event) = first.next().await {
        events.0.push(event.unwrap());
    }
    while let Some(event) = second.next().await {
        events.1.push(event.unwrap());
    }
    assert_whole(&events.0);
    assert_whole(&events.1);
    assert_eq!(second.job().state(), JobState::Succeeded);
    let tensors = events
        .1
        .iter()
        .filter(|event| matches!(event.event, Some(Event::Tensor(_))));
    assert_eq!(tensors.count(), 2 + 9 * 40);
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
