//! A listing of jobs, page after page.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use crate::error::Error;
use crate::jobs::Jobs;
use crate::v1::{Job, ListJobsRequest, ListJobsResponse};

/// The jobs of a listing, the newest first; see [`Jobs::list`]. Ends after an error.
#[must_use = "a listing does nothing until it is read"]
pub struct JobList {
    jobs: Jobs,
    request: ListJobsRequest,
    read: VecDeque<Job>,
    state: State,
}

enum State {
    Page(Pin<Box<dyn Future<Output = Result<ListJobsResponse, Error>> + Send>>),
    More,
    Ended,
}

impl JobList {
    pub(crate) fn new(jobs: Jobs, request: ListJobsRequest) -> Self {
        Self {
            jobs,
            request,
            read: VecDeque::new(),
            state: State::More,
        }
    }

    /// The next job; `None` after the last one.
    pub async fn next(&mut self) -> Option<Result<Job, Error>> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for JobList {
    type Item = Result<Job, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(job) = self.read.pop_front() {
                return Poll::Ready(Some(Ok(job)));
            }
            match &mut self.state {
                State::More => {
                    let (jobs, request) = (self.jobs.clone(), self.request.clone());
                    let page = async move { jobs.list_page(request).await };
                    self.state = State::Page(Box::pin(page));
                }
                State::Page(page) => match ready!(page.as_mut().poll(context)) {
                    Ok(page) => {
                        self.state = match page.next_page_token.is_empty() {
                            true => State::Ended,
                            false => State::More,
                        };
                        self.request.page_token = page.next_page_token;
                        self.read = page.jobs.into();
                    }
                    Err(error) => {
                        self.state = State::Ended;
                        return Poll::Ready(Some(Err(error)));
                    }
                },
                State::Ended => return Poll::Ready(None),
            }
        }
    }
}

impl fmt::Debug for JobList {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("JobList")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}
