//! Client of quantd, the server that quantizes language-model checkpoints.
//!
//! [`Client`] makes the calls, [`method`](mod@method) says what to do, and [`v1`] holds the messages of the spec,
//! whose comments are the manual. A [`JobStream`] gives the events of a job until its last one and
//! makes a lost connection anew. Every call that does not succeed is an [`Error`], whose
//! [`reason`](Error::reason) is what to branch on.
//!
//! ```no_run
//! use quantd_client::{Client, method, v1};
//!
//! # async fn example() -> Result<(), quantd_client::Error> {
//! let client = Client::connect("127.0.0.1:50051").await?;
//! let spec = v1::QuantizationSpec::new(
//!     "/models/smollm2",
//!     "/models/smollm2.gguf",
//!     method::gguf(v1::GgufFileType::Q4KM),
//! );
//! let planned = client.plan(spec.clone()).await?;
//! println!("{} bytes", planned.plan.unwrap_or_default().output_bytes);
//!
//! let mut job = client.quantize(spec).await?;
//! while let Some(event) = job.next().await {
//!     if let Some(v1::job_event::Event::Tensor(tensor)) = event?.event {
//!         println!("{} as {}", tensor.name, tensor.target_type);
//!     }
//! }
//! println!("error {:.4}", job.result().await?.relative_error);
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! `tls` (on by default): connections with TLS, by rustls and ring. Without it a client reaches
//! servers on its own host, or whatever a proxy of yours encrypts.

mod builder;
mod client;
mod connection;
mod error;
mod follower;
mod health;
mod job_list;
mod job_stream;
mod jobs;
pub mod method;
mod requests;

#[allow(missing_docs, clippy::all, rustdoc::all)]
mod generated {
    pub mod google {
        pub mod rpc {
            include!("generated/google.rpc.rs");
        }
    }
    pub mod quantd {
        pub mod v1 {
            include!("generated/quantd.v1.rs");
        }
    }
}

pub use prost_types;
pub use tonic::Code;

pub use builder::ClientBuilder;
pub use client::Client;
pub use error::{Error, Precondition, Violation};
pub use follower::Reconnect;
/// Messages of google.rpc, in which statuses carry their details; see its
/// [error_details.proto](https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto).
pub use generated::google::rpc;
/// Messages and stubs of the spec, quantd.v1.
pub use generated::quantd::v1;
pub use job_list::JobList;
pub use job_stream::JobStream;
pub use jobs::Jobs;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
