//! The calls of `JobService`.

use std::fmt;
use std::time::Instant;

use tonic::Code;

use crate::connection::Connection;
use crate::error::Error;
use crate::follower::Follower;
use crate::job_list::JobList;
use crate::job_stream::JobStream;
use crate::v1::{
    CancelJobRequest, DeleteJobRequest, GetJobRequest, Job, ListJobsRequest, ListJobsResponse,
};

/// Looks after jobs; see [`Client::jobs`](crate::Client::jobs). Names are "jobs/{id}".
///
/// Every call but a list answers NOT_FOUND, reason JOB_NOT_FOUND, for a name that does not exist or
/// no longer does.
#[derive(Clone)]
pub struct Jobs {
    connection: Connection,
}

impl Jobs {
    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// Returns a job as it is now.
    pub async fn get(&self, name: impl Into<String>) -> Result<Job, Error> {
        let request = self.connection.request(GetJobRequest { name: name.into() });
        let mut stub = self.connection.jobs();
        let answer = self.connection.answer(stub.get_job(request)).await?;
        answer.job.ok_or_else(incomplete)
    }

    /// Lists jobs, the newest first, getting more pages while it is read.
    ///
    /// ```no_run
    /// # use quantd_client::v1::{JobState, ListJobsRequest};
    /// # async fn example(client: quantd_client::Client) -> Result<(), quantd_client::Error> {
    /// let running = ListJobsRequest::default()
    ///     .with_state(JobState::Running)
    ///     .with_label("team", "search");
    /// let mut jobs = client.jobs().list(running);
    /// while let Some(job) = jobs.next().await {
    ///     println!("{}", job?.name);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn list(&self, request: ListJobsRequest) -> JobList {
        JobList::new(self.clone(), request)
    }

    /// One page of [`list`](Self::list), exactly as it is asked for.
    pub async fn list_page(&self, request: ListJobsRequest) -> Result<ListJobsResponse, Error> {
        let request = self.connection.request(request);
        let mut stub = self.connection.jobs();
        self.connection.answer(stub.list_jobs(request)).await
    }

    /// Attaches to a job: its events from the first one kept.
    pub async fn watch(&self, name: impl Into<String>) -> Result<JobStream, Error> {
        self.watch_after(name, 0).await
    }

    /// Attaches to a job: its events after the last one already seen.
    pub async fn watch_after(
        &self,
        name: impl Into<String>,
        sequence: u64,
    ) -> Result<JobStream, Error> {
        let name = name.into();
        let mut follower = Follower::new(self.connection.reconnect.clone(), sequence);
        loop {
            match self.get(name.as_str()).await {
                Ok(job) => follower.see(job),
                Err(error) => {
                    let pause = follower.pause_after(error, Instant::now(), fastrand::f64())?;
                    tokio::time::sleep(pause).await;
                    continue;
                }
            }
            return Ok(JobStream::new(self.connection.clone(), follower, None));
        }
    }

    /// Asks a job to stop, and returns it; it may still be CANCELLING. A finished job is returned
    /// as it is. `reason` is for the record and may be empty.
    pub async fn cancel(
        &self,
        name: impl Into<String>,
        reason: impl Into<String>,
    ) -> Result<Job, Error> {
        let request = self.connection.request(CancelJobRequest {
            name: name.into(),
            reason: reason.into(),
        });
        let mut stub = self.connection.jobs();
        let answer = self.connection.answer(stub.cancel_job(request)).await?;
        answer.job.ok_or_else(incomplete)
    }

    /// Forgets a finished job and keeps what it wrote.
    ///
    /// # Errors
    ///
    /// FAILED_PRECONDITION, reason JOB_NOT_FINISHED: cancel it first.
    pub async fn delete(&self, name: impl Into<String>) -> Result<(), Error> {
        self.delete_job(name.into(), false).await
    }

    /// Forgets a finished job and deletes what it wrote.
    ///
    /// # Errors
    ///
    /// FAILED_PRECONDITION, reason JOB_NOT_FINISHED: cancel it first; reason OUTPUT_NOT_WRITABLE:
    /// its output cannot be removed, and the job is kept.
    pub async fn delete_with_output(&self, name: impl Into<String>) -> Result<(), Error> {
        self.delete_job(name.into(), true).await
    }

    async fn delete_job(&self, name: String, delete_output: bool) -> Result<(), Error> {
        let request = self.connection.request(DeleteJobRequest {
            name,
            delete_output,
        });
        let mut stub = self.connection.jobs();
        self.connection.answer(stub.delete_job(request)).await?;
        Ok(())
    }
}

impl fmt::Debug for Jobs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Jobs")
            .field("address", &self.connection.address)
            .finish_non_exhaustive()
    }
}

fn incomplete() -> Error {
    Error::local(Code::Internal, "the answer has no job")
}
