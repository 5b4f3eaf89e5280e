//! The calls of `QuantizationService`.

use std::fmt;
use std::time::{Duration, Instant};

use tonic::Code;

use crate::builder::ClientBuilder;
use crate::connection::Connection;
use crate::error::Error;
use crate::follower::Follower;
use crate::job_stream::JobStream;
use crate::jobs::Jobs;
use crate::v1::{
    GetCapabilitiesRequest, GetCapabilitiesResponse, InspectCheckpointRequest,
    InspectCheckpointResponse, ParseConfigRequest, ParseConfigResponse, PlanQuantizationRequest,
    PlanQuantizationResponse, QuantizeRequest,
};

/// Calls a quantd server. Cheap to clone; clones share the connection, which is made anew whenever
/// a call needs it.
///
/// Calls take the messages of the spec, or what converts into them: a path, or a
/// [`QuantizationSpec`](crate::v1::QuantizationSpec).
#[derive(Clone)]
pub struct Client {
    connection: Connection,
}

impl Client {
    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// Connects to "host:port" or "unix:/path.sock", with the defaults of
    /// [`builder`](Self::builder).
    ///
    /// # Errors
    ///
    /// UNAVAILABLE: the server cannot be reached.
    pub async fn connect(address: impl Into<String>) -> Result<Self, Error> {
        Self::builder(address).connect().await
    }

    /// Settings of a client for "host:port" or "unix:/path.sock".
    pub fn builder(address: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(address.into())
    }

    /// The same client with another time limit of calls.
    #[must_use]
    pub fn with_timeout(&self, timeout: impl Into<Option<Duration>>) -> Self {
        let mut connection = self.connection.clone();
        connection.timeout = timeout.into();
        Self { connection }
    }

    /// Says what the server and its host can do.
    pub async fn capabilities(&self) -> Result<GetCapabilitiesResponse, Error> {
        self.get_capabilities(false).await
    }

    /// The same, after the server has looked for packages and asked torch again: for use after an
    /// installation.
    pub async fn refreshed_capabilities(&self) -> Result<GetCapabilitiesResponse, Error> {
        self.get_capabilities(true).await
    }

    async fn get_capabilities(&self, refresh: bool) -> Result<GetCapabilitiesResponse, Error> {
        let request = self.connection.request(GetCapabilitiesRequest { refresh });
        let mut stub = self.connection.quantization();
        self.connection.answer(stub.get_capabilities(request)).await
    }

    /// Describes a checkpoint from its headers, whether this host can load it, and its tensors if
    /// asked for: all of them.
    ///
    /// ```no_run
    /// # use quantd_client::v1::InspectCheckpointRequest;
    /// # async fn example(client: quantd_client::Client) -> Result<(), quantd_client::Error> {
    /// let found = client.inspect("/models/smollm2").await?;
    /// let request = InspectCheckpointRequest::new("/models/smollm2").with_tensors();
    /// let tensors = client.inspect(request).await?.tensors;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn inspect(
        &self,
        request: impl Into<InspectCheckpointRequest>,
    ) -> Result<InspectCheckpointResponse, Error> {
        let mut request = request.into();
        let mut answer = self.inspect_page(request.clone()).await?;
        while !answer.next_page_token.is_empty() {
            request.page_token = answer.next_page_token;
            let page = self.inspect_page(request.clone()).await?;
            answer.tensors.extend(page.tensors);
            answer.next_page_token = page.next_page_token;
        }
        Ok(answer)
    }

    /// One page of [`inspect`](Self::inspect), exactly as it is asked for.
    pub async fn inspect_page(
        &self,
        request: InspectCheckpointRequest,
    ) -> Result<InspectCheckpointResponse, Error> {
        let request = self.connection.request(request);
        let mut stub = self.connection.quantization();
        self.connection
            .answer(stub.inspect_checkpoint(request))
            .await
    }

    /// Says what a Hugging Face `quantization_config`, or a whole config.json, means.
    pub async fn parse_config(
        &self,
        config_json: impl Into<String>,
    ) -> Result<ParseConfigResponse, Error> {
        let request = self.connection.request(ParseConfigRequest {
            config_json: config_json.into(),
        });
        let mut stub = self.connection.quantization();
        self.connection.answer(stub.parse_config(request)).await
    }

    /// Says what [`quantize`](Self::quantize) would do, and everything that stands against it.
    ///
    /// `executable` says whether `quantize` would accept it, `findings` why not. The tensors are
    /// listed if asked for: all of them.
    pub async fn plan(
        &self,
        request: impl Into<PlanQuantizationRequest>,
    ) -> Result<PlanQuantizationResponse, Error> {
        let mut request = request.into();
        let mut answer = self.plan_page(request.clone()).await?;
        while !answer.next_page_token.is_empty() {
            request.page_token = answer.next_page_token;
            let page = self.plan_page(request.clone()).await?;
            answer.tensors.extend(page.tensors);
            answer.next_page_token = page.next_page_token;
        }
        Ok(answer)
    }

    /// One page of [`plan`](Self::plan), exactly as it is asked for.
    pub async fn plan_page(
        &self,
        request: PlanQuantizationRequest,
    ) -> Result<PlanQuantizationResponse, Error> {
        let request = self.connection.request(request);
        let mut stub = self.connection.quantization();
        self.connection
            .answer(stub.plan_quantization(request))
            .await
    }

    /// Starts a job, and returns when the server has accepted it.
    ///
    /// A request without a `request_id` gets one, so that it can be repeated when the connection
    /// breaks before the answer is there: there is one job, however often it was sent.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT: the request is wrong; see [`Error::violations`]. FAILED_PRECONDITION: the
    /// checkpoint, the host or the disk does not allow it; see [`Error::preconditions`]. NOT_FOUND:
    /// the source is not there. ALREADY_EXISTS: the `request_id` was used for another request.
    /// RESOURCE_EXHAUSTED: the queue is full; see [`Error::retry_after`].
    pub async fn quantize(&self, request: impl Into<QuantizeRequest>) -> Result<JobStream, Error> {
        let mut request = request.into();
        if request.request_id.is_empty() {
            request.request_id = uuid::Uuid::new_v4().to_string();
        }
        let follower = Follower::new(self.connection.reconnect.clone(), 0);
        let mut stream = JobStream::new(self.connection.clone(), follower, Some(request));
        stream.start().await?;
        Ok(stream)
    }

    /// The calls about jobs.
    pub fn jobs(&self) -> Jobs {
        Jobs::new(self.connection.clone())
    }

    /// Waits until the server answers that it is serving.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE: it does not serve by then.
    pub async fn wait_until_serving(&self, timeout: Duration) -> Result<(), Error> {
        const PAUSE: Duration = Duration::from_millis(50);
        let end = Instant::now() + timeout;
        let check = self.with_timeout(timeout);
        while let Err(error) = check.check_health().await {
            if !error.is_connection_lost() {
                return Err(error);
            }
            if Instant::now() + PAUSE >= end {
                let address = &self.connection.address;
                let message = format!("{address} was not serving within {timeout:?}");
                return Err(Error::local(Code::Unavailable, message));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    pub(crate) async fn check_health(&self) -> Result<(), Error> {
        self.connection.check_health().await
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Client")
            .field("address", &self.connection.address)
            .finish_non_exhaustive()
    }
}
