//! `grpc.health.v1.Health/Check`, of which two fields are needed.

use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use crate::connection::Connection;
use crate::error::Error;

const CHECK: &str = "/grpc.health.v1.Health/Check";
const SERVING: i32 = 1;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

impl Connection {
    /// Asks whether the server as a whole is serving.
    pub async fn check_health(&self) -> Result<(), Error> {
        let response: HealthCheckResponse = self
            .answer(async {
                let mut stub = Grpc::new(self.channel.clone());
                stub.ready()
                    .await
                    .map_err(|error| Status::from_error(error.into()))?;
                let path = PathAndQuery::from_static(CHECK);
                stub.unary(self.request(()), path, ProstCodec::default())
                    .await
            })
            .await?;
        if response.status == SERVING {
            return Ok(());
        }
        let message = format!("{} is not serving", self.address);
        Err(Error::local(Code::Unavailable, message))
    }
}
