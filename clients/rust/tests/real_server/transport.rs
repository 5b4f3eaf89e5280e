//! TLS, certificates and tokens.

use std::fs;

use quantd_client::{Client, Code};

use crate::server::{Folder, Server, python, run_python};

/// An authority with certificates of a server and of a client, and a file with one token.
struct Keys(Folder);

const TOKEN: &str = "token-of-reader-";

impl Keys {
    fn new() -> Option<Self> {
        let python = python()?;
        let folder = Folder::new();
        run_python(
            &python,
            "from tests.api.certificates import Authority; folder = pathlib.Path(sys.argv[1]); \
             authority = Authority(folder); authority.issue('server'); authority.issue('client')",
            &[&folder.path().display().to_string()],
        );
        run_python(
            &python,
            "from tests.api.tokens_on_disk import entry, write, token_of; \
             folder = pathlib.Path(sys.argv[1]); write(folder / 'tokens.toml', entry('reader')); \
             (folder / 'token').write_text(token_of('reader'))",
            &[&folder.path().display().to_string()],
        );
        Some(Self(folder))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn server(&self, more: &[&str]) -> Server {
        let (certificate, key) = (self.path("server.pem"), self.path("server.key"));
        let mut options = vec!["--tls-certificate", &certificate, "--tls-key", &key];
        options.extend(more);
        Server::start_at(Some("127.0.0.1:0"), &options).unwrap()
    }
}

#[tokio::test]
async fn a_token_goes_through_tls() {
    let Some(keys) = Keys::new() else { return };
    let server = keys.server(&["--tokens", &keys.path("tokens.toml")]);
    let token = keys.read("token");
    assert!(token.starts_with(TOKEN));
    let trusting = Client::builder(server.address()).root_certificates(keys.read("authority.pem"));

    let client = trusting.clone().token(token).connect().await.unwrap();
    client.capabilities().await.unwrap();
    let anonymous = trusting.clone().build().unwrap();
    let error = anonymous.capabilities().await.unwrap_err();
    assert_eq!(
        (error.code(), error.reason()),
        (Code::Unauthenticated, "CREDENTIALS_MISSING")
    );
    let wrong = trusting.token("wrong").build().unwrap();
    let error = wrong.capabilities().await.unwrap_err();
    assert_eq!(
        (error.code(), error.reason()),
        (Code::Unauthenticated, "TOKEN_INVALID")
    );
    let error = client.jobs().delete("jobs/any").await.unwrap_err();
    assert_eq!(
        (error.code(), error.reason()),
        (Code::PermissionDenied, "ROLE_TOO_SMALL")
    );
}

#[tokio::test]
async fn a_server_whose_certificate_is_not_trusted_is_not_called() {
    let Some(keys) = Keys::new() else { return };
    let server = keys.server(&[]);
    let error = Client::builder(server.address())
        .tls()
        .connect()
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("certificate"), "{error}");
    let named = Client::builder(server.address())
        .root_certificates(keys.read("authority.pem"))
        .server_name("another.example");
    let error = named.clone().connect().await.unwrap_err();
    assert!(error.message().contains("certificate"), "{error}");
    named.server_name("localhost").connect().await.unwrap();
}

#[tokio::test]
async fn a_client_shows_its_certificate() {
    let Some(keys) = Keys::new() else { return };
    let server = keys.server(&["--client-ca", &keys.path("authority.pem")]);
    let trusting = Client::builder(server.address()).root_certificates(keys.read("authority.pem"));
    let error = trusting.clone().connect().await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    let client = trusting
        .client_certificate(keys.read("client.pem"), keys.read("client.key"))
        .connect()
        .await
        .unwrap();
    client.capabilities().await.unwrap();
}
