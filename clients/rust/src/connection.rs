//! The way to the server: a channel, and what every call carries.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::error::Error;
use crate::follower::Reconnect;
use crate::v1::job_service_client::JobServiceClient;
use crate::v1::quantization_service_client::QuantizationServiceClient;

/// Largest answer that is taken. A page of a listing is far smaller.
const MAX_RECEIVED_BYTES: usize = 64 * 1024 * 1024;

/// Cheap to clone: the channel and the metadata are shared.
#[derive(Clone)]
pub(crate) struct Connection {
    pub address: Arc<str>,
    pub channel: Channel,
    pub metadata: Arc<MetadataMap>,
    pub timeout: Option<Duration>,
    pub reconnect: Reconnect,
}

impl Connection {
    pub fn quantization(&self) -> QuantizationServiceClient<Channel> {
        QuantizationServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_RECEIVED_BYTES)
    }

    pub fn jobs(&self) -> JobServiceClient<Channel> {
        JobServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_RECEIVED_BYTES)
    }

    /// A request of a stream: without a time limit.
    pub fn stream_request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        *request.metadata_mut() = MetadataMap::clone(&self.metadata);
        request
    }

    /// A request that tells the server the time limit, too.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = self.stream_request(message);
        if let Some(timeout) = self.timeout {
            request.set_timeout(timeout);
        }
        request
    }

    /// Waits for the answer, at most until the time limit.
    pub async fn answer<R>(
        &self,
        call: impl Future<Output = Result<Response<R>, Status>>,
    ) -> Result<R, Error> {
        let Some(timeout) = self.timeout else {
            return Ok(call.await?.into_inner());
        };
        let start = Instant::now();
        match tokio::time::timeout(timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            // tonic watches the limit, too, and may be the first to end the call.
            Ok(Err(status)) if status.code() != Code::Cancelled || start.elapsed() < timeout => {
                Err(status.into())
            }
            _ => Err(Error::local(
                Code::DeadlineExceeded,
                format!("no answer within {timeout:?}"),
            )),
        }
    }
}
