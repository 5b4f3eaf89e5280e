//! Settings of a client.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tonic::Code;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::Endpoint;
#[cfg(feature = "tls")]
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::client::Client;
use crate::connection::Connection;
use crate::error::Error;
use crate::follower::Reconnect;

const USER_AGENT: &str = concat!("quantd-rust/", env!("CARGO_PKG_VERSION"));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// A connection that died silently is noticed in 80 s. The server's heartbeats are more frequent
/// than these pings, so that it never takes them for a flood.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(60);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Prepares a [`Client`]; see [`Client::builder`].
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use quantd_client::Client;
///
/// let client = Client::builder("quantd.example.com:50051")
///     .root_certificates(std::fs::read("ca.pem")?)
///     .token(std::env::var("QUANTD_TOKEN")?)
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct ClientBuilder {
    address: String,
    token: Option<String>,
    token_in_clear: bool,
    metadata: Vec<(String, String)>,
    timeout: Option<Duration>,
    reconnect: Reconnect,
    #[cfg(feature = "tls")]
    tls: Option<ClientTlsConfig>,
    #[cfg(feature = "tls")]
    own_roots: bool,
}

impl ClientBuilder {
    pub(crate) fn new(address: String) -> Self {
        Self {
            address,
            token: None,
            token_in_clear: false,
            metadata: Vec::new(),
            timeout: Some(Duration::from_secs(30)),
            reconnect: Reconnect::default(),
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "tls")]
            own_roots: false,
        }
    }

    /// Sent as `authorization: Bearer`. Needs TLS, a local address, or
    /// [`allow_token_in_clear`](Self::allow_token_in_clear).
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Lets the token cross a network without TLS, where something else encrypts it.
    pub fn allow_token_in_clear(mut self) -> Self {
        self.token_in_clear = true;
        self
    }

    /// Metadata to send with every call.
    pub fn metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.push((name.into(), value.into()));
        self
    }

    /// Time a call may take, streams excepted; `None` means no limit. Default: 30 seconds.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// What job streams do when they lose the connection.
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// Use TLS and trust the authorities of the system.
    #[cfg(feature = "tls")]
    pub fn tls(self) -> Self {
        self.change_tls(|tls| tls)
    }

    /// PEM of the authorities to trust instead of the system's. Implies TLS.
    #[cfg(feature = "tls")]
    pub fn root_certificates(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.own_roots = true;
        self.change_tls(|tls| tls.ca_certificate(Certificate::from_pem(pem)))
    }

    /// PEM of the certificate chain and of the private key that tell the server who calls. Implies
    /// TLS.
    #[cfg(feature = "tls")]
    pub fn client_certificate(self, chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        self.change_tls(|tls| tls.identity(Identity::from_pem(chain, key)))
    }

    /// Name that the server's certificate has to be for. Default: the host in the address. Implies
    /// TLS.
    #[cfg(feature = "tls")]
    pub fn server_name(self, name: impl Into<String>) -> Self {
        self.change_tls(|tls| tls.domain_name(name))
    }

    #[cfg(feature = "tls")]
    fn change_tls(mut self, change: impl FnOnce(ClientTlsConfig) -> ClientTlsConfig) -> Self {
        self.tls = Some(change(self.tls.unwrap_or_default()));
        self
    }

    /// The client. The first call opens the connection. To be called where a tokio runtime runs.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT: the settings contradict each other, are malformed, or would send the token
    /// in clear.
    pub fn build(self) -> Result<Client, Error> {
        let connection = Connection {
            metadata: Arc::new(self.metadata_of_calls()?),
            channel: self.endpoint()?.connect_lazy(),
            address: self.address.into(),
            timeout: self.timeout,
            reconnect: self.reconnect,
        };
        Ok(Client::new(connection))
    }

    /// The client, once it has a connection.
    ///
    /// # Errors
    ///
    /// Those of [`build`](Self::build), and UNAVAILABLE: the server cannot be reached.
    pub async fn connect(self) -> Result<Client, Error> {
        let client = self.build()?;
        client.check_health().await?;
        Ok(client)
    }

    fn endpoint(&self) -> Result<Endpoint, Error> {
        let uri = self.uri()?;
        let endpoint = Endpoint::from_shared(uri)
            .and_then(|endpoint| endpoint.user_agent(USER_AGENT))
            .map_err(|error| invalid(format!("address: {:?}: {error}", self.address)))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        self.with_tls(endpoint)
    }

    #[cfg(feature = "tls")]
    fn with_tls(&self, endpoint: Endpoint) -> Result<Endpoint, Error> {
        let Some(tls) = self.tls.clone() else {
            return Ok(endpoint);
        };
        let tls = if self.own_roots {
            tls
        } else {
            tls.with_native_roots()
        };
        endpoint.tls_config(tls).map_err(|error| {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            invalid(format!("TLS: {}", source.unwrap_or(error.to_string())))
        })
    }

    #[cfg(not(feature = "tls"))]
    fn with_tls(&self, endpoint: Endpoint) -> Result<Endpoint, Error> {
        Ok(endpoint)
    }

    fn uses_tls(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        return false;
    }

    fn uri(&self) -> Result<String, Error> {
        let address = &self.address;
        if address.starts_with("unix:") {
            return Ok(address.clone());
        }
        let is_host_and_port = address.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok()
        });
        if !is_host_and_port {
            return Err(invalid(format!(
                "address: {address:?} is neither \"host:port\" nor \"unix:/path.sock\""
            )));
        }
        let scheme = if self.uses_tls() { "https" } else { "http" };
        Ok(format!("{scheme}://{address}"))
    }

    fn is_local(&self) -> bool {
        let host = self.address.rsplit_once(':').map_or("", |(host, _)| host);
        self.address.starts_with("unix:") || ["localhost", "127.0.0.1", "[::1]"].contains(&host)
    }

    fn metadata_of_calls(&self) -> Result<MetadataMap, Error> {
        let mut map = MetadataMap::new();
        for (name, value) in &self.metadata {
            let key: AsciiMetadataKey = name
                .parse()
                .map_err(|_| invalid(format!("metadata: {name:?} is no name of metadata")))?;
            let value = value
                .parse()
                .map_err(|_| invalid(format!("metadata: the value of {name:?} is not ASCII")))?;
            map.append(key, value);
        }
        if let Some(token) = &self.token {
            if !self.uses_tls() && !self.token_in_clear && !self.is_local() {
                return Err(invalid(format!(
                    "the token would cross the network to {} in clear; use TLS, or allow it with \
                     allow_token_in_clear",
                    self.address
                )));
            }
            let mut value: AsciiMetadataValue = format!("Bearer {token}")
                .parse()
                .map_err(|_| invalid("token: it has characters that no header may have"))?;
            value.set_sensitive(true);
            map.insert("authorization", value);
        }
        Ok(map)
    }
}

/// Without the token.
impl fmt::Debug for ClientBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ClientBuilder")
            .field("address", &self.address)
            .field("tls", &self.uses_tls())
            .field("timeout", &self.timeout)
            .field("reconnect", &self.reconnect)
            .finish_non_exhaustive()
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::local(Code::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(builder: ClientBuilder) -> String {
        let error = builder.build().unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        error.message().to_owned()
    }

    #[tokio::test]
    async fn a_token_is_not_sent_in_clear_unless_told_to() {
        let with_token = |address: &str| Client::builder(address).token("secret");
        for local in ["localhost:1", "127.0.0.1:1", "[::1]:1", "unix:/path/socket"] {
            with_token(local).build().unwrap();
        }
        for remote in ["example.com:1", "10.0.0.1:1", "localhost.example.com:1"] {
            assert!(refusal(with_token(remote)).contains("in clear"));
            with_token(remote).allow_token_in_clear().build().unwrap();
        }
        assert!(!format!("{:?}", with_token("localhost:1")).contains("secret"));
    }

    #[tokio::test]
    async fn addresses_that_are_none_are_refused() {
        for address in [
            "",
            "host",
            "http://host:1",
            "host:port",
            "host:1/path",
            "host:70000",
            ":1",
        ] {
            let message = refusal(Client::builder(address));
            assert!(message.starts_with("address: "), "{address}: {message}");
        }
    }

    #[tokio::test]
    async fn what_no_header_may_have_is_refused() {
        let builder = || Client::builder("localhost:1");
        assert!(refusal(builder().token("a\nb")).starts_with("token: "));
        assert!(refusal(builder().metadata("no name", "")).starts_with("metadata: "));
        assert!(refusal(builder().metadata("name", "\n")).starts_with("metadata: "));
    }

    #[cfg(feature = "tls")]
    #[tokio::test]
    async fn tls_needs_a_host_and_certificates_that_are_some() {
        assert!(refusal(Client::builder("unix:/path/socket").tls()).starts_with("TLS: "));
        let wrong = Client::builder("host:1").client_certificate("nothing", "nothing");
        assert!(refusal(wrong).starts_with("TLS: "));
        let secret = Client::builder("example.com:1")
            .token("secret")
            .root_certificates("");
        secret.build().unwrap();
    }
}
