//! Measures what this client, and the server, add to gRPC itself; bench/overhead.py of the
//! repository runs it.
//!
//! Usage: overhead ADDRESS ECHO_ADDRESS JOB CALLS STREAMS.

use std::error::Error as StdError;
use std::time::Instant;

use prost::Message as _;
use quantd_client::Client;
use quantd_client::v1::job_service_client::JobServiceClient;
use quantd_client::v1::{GetJobRequest, Job, WatchJobRequest, WatchJobResponse, job_event};
use serde_json::json;
use tonic::Request;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// Calls of each kind that are not counted.
const WARM_UP: usize = 100;

type Failure = Box<dyn StdError + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, echo, name, calls, streams] = arguments.as_slice() else {
        return Err(format!("there are 5 arguments, got {}", arguments.len()).into());
    };
    let mut ways = Ways::new(address, echo, name).await?;
    let [mut client, mut stub, mut echo] = [const { Vec::new() }; 3];
    for number in 0..WARM_UP + calls.parse::<usize>()? {
        let times = [
            seconds(ways.call_client()).await?,
            seconds(ways.call_stub()).await?,
            seconds(ways.call_echo()).await?,
        ];
        if number >= WARM_UP {
            client.push(times[0]);
            stub.push(times[1]);
            echo.push(times[2]);
        }
    }
    let calls = json!({"client": client, "stub": stub, "echo": echo});
    let [mut client, mut stub, mut echo] = [const { Vec::new() }; 3];
    for _ in 0..streams.parse::<usize>()? {
        client.push(seconds(ways.follow_client()).await?);
        stub.push(seconds(ways.follow_stub()).await?);
        echo.push(seconds(ways.follow_echo()).await?);
    }
    let streams = json!({"client": client, "stub": stub, "echo": echo});
    println!(
        "{}",
        json!({"calls": calls, "streams": streams, "events": ways.events})
    );
    Ok(())
}

/// How long a call takes.
async fn seconds(call: impl Future<Output = Result<(), Failure>>) -> Result<f64, Failure> {
    let start = Instant::now();
    call.await?;
    Ok(start.elapsed().as_secs_f64())
}

/// The ways to ask for a job and for its events.
struct Ways {
    client: Client,
    jobs: JobServiceClient<Channel>,
    echo: Grpc<Channel>,
    name: String,
    job: Job,
    /// The one of median size.
    event: WatchJobResponse,
    events: usize,
}

impl Ways {
    /// Asks for what the echo sends back.
    async fn new(address: &str, echo: &str, name: &str) -> Result<Self, Failure> {
        let client = Client::connect(address).await?;
        let mut jobs = JobServiceClient::new(channel(address).await?);
        let job = client.jobs().get(name).await?;
        let mut stream = jobs.watch_job(watch(name)).await?.into_inner();
        let mut answers = Vec::new();
        while let Some(answer) = stream.message().await? {
            let event = answer.event.as_ref().and_then(|event| event.event.as_ref());
            if !matches!(event, Some(job_event::Event::Heartbeat(_))) {
                answers.push(answer);
            }
        }
        answers.sort_by_key(WatchJobResponse::encoded_len);
        let events = answers.len();
        Ok(Self {
            client,
            jobs,
            echo: Grpc::new(channel(echo).await?),
            name: name.to_owned(),
            job,
            event: answers.swap_remove(events / 2),
            events,
        })
    }

    async fn call_client(&mut self) -> Result<(), Failure> {
        self.client.jobs().get(self.name.as_str()).await?;
        Ok(())
    }

    async fn call_stub(&mut self) -> Result<(), Failure> {
        let name = self.name.clone();
        self.jobs.get_job(GetJobRequest { name }).await?;
        Ok(())
    }

    async fn call_echo(&mut self) -> Result<(), Failure> {
        self.echo.ready().await?;
        let codec = ProstCodec::<Job, Job>::default();
        let path = PathAndQuery::from_static("/bench.Echo/Call");
        let request = Request::new(self.job.clone());
        self.echo.unary(request, path, codec).await?;
        Ok(())
    }

    async fn follow_client(&mut self) -> Result<(), Failure> {
        let mut stream = self.client.jobs().watch(self.name.as_str()).await?;
        let mut seen = 0;
        while let Some(event) = stream.next().await {
            event?;
            seen += 1;
        }
        self.enough(seen)
    }

    async fn follow_stub(&mut self) -> Result<(), Failure> {
        let mut stream = self.jobs.watch_job(watch(&self.name)).await?.into_inner();
        let mut seen = 0;
        while stream.message().await?.is_some() {
            seen += 1;
        }
        self.enough(seen)
    }

    async fn follow_echo(&mut self) -> Result<(), Failure> {
        self.echo.ready().await?;
        let codec = ProstCodec::<WatchJobResponse, WatchJobResponse>::default();
        let path = PathAndQuery::from_static("/bench.Echo/Repeat");
        let mut request = Request::new(self.event.clone());
        request.metadata_mut().insert("times", self.events.into());
        let answer = self.echo.server_streaming(request, path, codec).await?;
        let mut stream = answer.into_inner();
        let mut seen = 0;
        while stream.message().await?.is_some() {
            seen += 1;
        }
        self.enough(seen)
    }

    fn enough(&self, seen: usize) -> Result<(), Failure> {
        if seen < self.events {
            return Err(format!("a stream of {} events ended after {seen}", self.events).into());
        }
        Ok(())
    }
}

fn watch(name: &str) -> WatchJobRequest {
    WatchJobRequest {
        name: name.to_owned(),
        ..Default::default()
    }
}

async fn channel(address: &str) -> Result<Channel, Failure> {
    Ok(Endpoint::from_shared(address.to_owned())?.connect().await?)
}
