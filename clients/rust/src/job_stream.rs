//! The events of a job, over as many connections as it takes.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures_core::Stream;
use tokio::time::Sleep;
use tonic::{Status, Streaming};

use crate::connection::Connection;
use crate::error::Error;
use crate::follower::{Follower, ended_early};
use crate::jobs::Jobs;
use crate::v1::{
    Job, JobEvent, QuantizationResult, QuantizeRequest, QuantizeResponse, WatchJobRequest,
    WatchJobResponse,
};

/// The events of a job, from the first not yet seen to its last one.
///
/// A lost connection is made anew without losing or repeating an event; see
/// [`Reconnect`](crate::Reconnect). Dropping the stream does not touch the job: only
/// [`cancel`](Self::cancel) does. A future of [`next`](Self::next) that is dropped loses no event.
///
/// It ends after the job's last event, and after an error: the server does not know the job any
/// more, or was not reached for longer than `Reconnect::timeout`. Then
/// [`Jobs::watch_after`] goes on after [`last_sequence`](Self::last_sequence).
///
/// Returned by [`Client::quantize`](crate::Client::quantize) and [`Jobs::watch`].
#[must_use = "events are read by polling; dropping it leaves the job running"]
pub struct JobStream {
    connection: Connection,
    follower: Follower,
    /// Sent again until the job has a name.
    request: Option<QuantizeRequest>,
    first: Option<JobEvent>,
    state: State,
}

type Answer<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

enum State {
    Detached,
    Attaching(Answer<Box<Events>, Status>),
    Reading(Box<Events>),
    /// The stream ended; is the job over?
    Asking(Answer<Job, Error>),
    Pausing(Pin<Box<Sleep>>),
    Ended,
}

enum Events {
    Quantize(Streaming<QuantizeResponse>),
    Watch(Streaming<WatchJobResponse>),
}

impl Events {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<JobEvent, Status>>> {
        let response = match self {
            Self::Quantize(stream) => ready!(Pin::new(stream).poll_next(context))
                .map(|response| response.map(|response| response.event)),
            Self::Watch(stream) => ready!(Pin::new(stream).poll_next(context))
                .map(|response| response.map(|response| response.event)),
        };
        Poll::Ready(response.map(|event| event.map(Option::unwrap_or_default)))
    }
}

impl JobStream {
    pub(crate) fn new(
        connection: Connection,
        follower: Follower,
        request: Option<QuantizeRequest>,
    ) -> Self {
        let state = match follower.is_over() {
            true => State::Ended,
            false => State::Detached,
        };
        Self {
            connection,
            follower,
            request,
            first: None,
            state,
        }
    }

    /// Waits for the first event and keeps it.
    pub(crate) async fn start(&mut self) -> Result<(), Error> {
        self.first = self.next().await.transpose()?;
        Ok(())
    }

    /// Name of the job, "jobs/{id}".
    pub fn name(&self) -> &str {
        &self.job().name
    }

    /// The job as far as its events tell; `progress` is that of the last event.
    pub fn job(&self) -> &Job {
        self.follower.job()
    }

    /// Sequence of the last event seen.
    pub fn last_sequence(&self) -> u64 {
        self.follower.last_sequence()
    }

    /// Waits for the next event; `None` when the job is over.
    pub async fn next(&mut self) -> Option<Result<JobEvent, Error>> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// Reads the remaining events and returns what the job made.
    ///
    /// # Errors
    ///
    /// The job failed or was cancelled, and [`Error::job`] is set; or one of those of the stream.
    pub async fn result(&mut self) -> Result<QuantizationResult, Error> {
        while let Some(event) = self.next().await {
            event?;
        }
        self.follower.result()
    }

    /// Asks the server to stop the job, and returns it; it may still be CANCELLING. Its events go
    /// on until the last one. `reason` is for the record and may be empty.
    pub fn cancel(
        &self,
        reason: impl Into<String>,
    ) -> impl Future<Output = Result<Job, Error>> + Send + 'static {
        let jobs = Jobs::new(self.connection.clone());
        let (name, reason) = (self.name().to_owned(), reason.into());
        async move { jobs.cancel(name, reason).await }
    }

    fn attach(&self) -> Answer<Box<Events>, Status> {
        let connection = self.connection.clone();
        let watch = WatchJobRequest {
            name: self.name().to_owned(),
            after_sequence: self.last_sequence(),
        };
        match &self.request {
            Some(request) if watch.name.is_empty() => {
                let request = connection.stream_request(request.clone());
                Box::pin(async move {
                    let response = connection.quantization().quantize(request).await?;
                    Ok(Box::new(Events::Quantize(response.into_inner())))
                })
            }
            _ => Box::pin(async move {
                let request = connection.stream_request(watch);
                let response = connection.jobs().watch_job(request).await?;
                Ok(Box::new(Events::Watch(response.into_inner())))
            }),
        }
    }

    fn ask(&self) -> Answer<Job, Error> {
        let jobs = Jobs::new(self.connection.clone());
        let name = self.name().to_owned();
        Box::pin(async move {
            match name.as_str() {
                "" => Err(ended_early()),
                name => jobs.get(name).await,
            }
        })
    }

    /// Makes a pause before the next attempt, if there is to be one.
    fn pause(&mut self, error: Error) -> Result<(), Error> {
        self.state = State::Ended;
        let pause = self
            .follower
            .pause_after(error, Instant::now(), fastrand::f64())?;
        self.state = State::Pausing(Box::pin(tokio::time::sleep(pause)));
        Ok(())
    }

    /// One step: an event that is new, or `None` when something else happened.
    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<JobEvent>, Error>> {
        match &mut self.state {
            State::Detached => self.state = State::Attaching(self.attach()),
            State::Attaching(events) => match ready!(events.as_mut().poll(context)) {
                Ok(events) => self.state = State::Reading(events),
                Err(status) => self.pause(status.into())?,
            },
            State::Reading(events) => match ready!(events.poll(context)) {
                Some(Ok(event)) => {
                    if self.follower.accept(&event) {
                        if self.follower.is_over() {
                            self.state = State::Ended;
                        }
                        return Poll::Ready(Ok(Some(event)));
                    }
                }
                Some(Err(status)) => self.pause(status.into())?,
                None => self.state = State::Asking(self.ask()),
            },
            State::Asking(job) => match ready!(job.as_mut().poll(context)) {
                Ok(job) => {
                    self.follower.see(job);
                    match self.follower.is_over() {
                        true => self.state = State::Ended,
                        false => self.pause(ended_early())?,
                    }
                }
                Err(error) => self.pause(error)?,
            },
            State::Pausing(sleep) => {
                ready!(sleep.as_mut().poll(context));
                self.state = State::Detached;
            }
            State::Ended => {}
        }
        Poll::Ready(Ok(None))
    }
}

impl Stream for JobStream {
    type Item = Result<JobEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(event) = self.first.take() {
            return Poll::Ready(Some(Ok(event)));
        }
        while !matches!(self.state, State::Ended) {
            match ready!(self.poll_step(context)) {
                Ok(Some(event)) => return Poll::Ready(Some(Ok(event))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
        Poll::Ready(None)
    }
}

impl fmt::Debug for JobStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("JobStream")
            .field("name", &self.name())
            .field("last_sequence", &self.last_sequence())
            .finish_non_exhaustive()
    }
}
