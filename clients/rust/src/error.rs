//! What a call that did not succeed says.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use prost::{DecodeError, Message as _};
use tonic::{Code, Status};

use crate::rpc;
use crate::v1::Job;

const DOMAIN: &str = "quantd";

/// One thing that is wrong with the request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// Path of the field, such as "spec.method.gptq.group_size".
    pub field: String,
    /// Stable identifier.
    pub reason: String,
    /// What was got, what is allowed and how to fix it.
    pub message: String,
}

/// One thing about the checkpoint, the host or the disk that stands against the request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Precondition {
    /// Stable identifier.
    pub reason: String,
    /// What it is about: a field of the request, or empty.
    pub subject: String,
    /// What is the case and how to change it.
    pub message: String,
}

/// A call that did not succeed, or a job that ended without output.
///
/// Branch on [`reason`](Self::reason), which never changes its meaning, or on
/// [`code`](Self::code). Its `Display` says everything that a person needs, over several lines where
/// there are several problems.
///
/// ```no_run
/// # async fn example(client: quantd_client::Client) -> Result<(), quantd_client::Error> {
/// match client.inspect("/models/absent").await {
///     Err(error) if error.reason() == "SOURCE_NOT_FOUND" => println!("nothing there"),
///     Err(error) if error.is_retryable() => println!("later: {error}"),
///     other => println!("{:?}", other?.checkpoint),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Error(Box<Details>);

#[derive(Clone)]
struct Details {
    code: Code,
    message: String,
    reason: String,
    domain: String,
    violations: Vec<Violation>,
    preconditions: Vec<Precondition>,
    retry_after: Option<Duration>,
    metadata: BTreeMap<String, String>,
    request_id: String,
    job: Option<Job>,
}

impl Error {
    /// The gRPC status code. What a builder refuses is INVALID_ARGUMENT.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// Stable identifier to branch on; empty when the error is not the server's own.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// What is wrong, in a sentence.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// How to mend it, which the message says, too; empty when the server does not know.
    pub fn remedy(&self) -> &str {
        self.0.metadata.get("remedy").map_or("", String::as_str)
    }

    /// What is wrong with the request, field by field.
    pub fn violations(&self) -> &[Violation] {
        &self.0.violations
    }

    /// What stands against the request.
    pub fn preconditions(&self) -> &[Precondition] {
        &self.0.preconditions
    }

    /// The pause after which a repetition may succeed.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether the same call may succeed later: the server was not reached, is starting or
    /// stopping, or asks for a pause.
    pub fn is_retryable(&self) -> bool {
        self.is_connection_lost() || self.0.retry_after.is_some()
    }

    /// The variable parts of the message, by name.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.0.metadata
    }

    /// Identifier of the call in the server's log; empty when not known.
    pub fn request_id(&self) -> &str {
        &self.0.request_id
    }

    /// The job, if this is about one that failed or was cancelled.
    pub fn job(&self) -> Option<&Job> {
        self.0.job.as_ref()
    }

    /// Whether this says something about the way to the server and not about the request.
    ///
    /// A connection that breaks in the middle of a stream has many names; an answer of the server
    /// always carries its `ErrorInfo`.
    pub(crate) fn is_connection_lost(&self) -> bool {
        match self.0.code {
            Code::Unavailable => true,
            Code::Internal | Code::Unknown | Code::Cancelled => {
                self.0.domain != DOMAIN && self.0.job.is_none()
            }
            _ => false,
        }
    }

    /// An error that this side noticed.
    pub(crate) fn local(code: Code, message: impl Into<String>) -> Self {
        Self::new(code, message.into())
    }

    /// The error of a job that ended without output.
    pub(crate) fn of_job(job: Job) -> Self {
        let mut error = Self::of_status(&job.error.clone().unwrap_or_default());
        error.0.job = Some(job);
        error
    }

    fn new(code: Code, message: String) -> Self {
        Self(Box::new(Details {
            code,
            message,
            reason: String::new(),
            domain: String::new(),
            violations: Vec::new(),
            preconditions: Vec::new(),
            retry_after: None,
            metadata: BTreeMap::new(),
            request_id: String::new(),
            job: None,
        }))
    }

    /// Takes a status apart; details of a type that is not known are left out.
    fn of_status(status: &rpc::Status) -> Self {
        let mut error = Self::new(Code::from_i32(status.code), status.message.clone());
        for detail in &status.details {
            // What cannot be read says no less than what is not known.
            let _ = error.0.add(detail);
        }
        error
    }
}

impl Details {
    /// Takes in one detail, by the name of its type.
    fn add(&mut self, detail: &prost_types::Any) -> Result<(), DecodeError> {
        let value = detail.value.as_slice();
        match detail.type_url.rsplit('/').next() {
            Some("google.rpc.ErrorInfo") => {
                let info = rpc::ErrorInfo::decode(value)?;
                self.reason = info.reason;
                self.domain = info.domain;
                self.metadata = info.metadata.into_iter().collect();
            }
            Some("google.rpc.BadRequest") => {
                let violations = rpc::BadRequest::decode(value)?.field_violations.into_iter();
                self.violations.extend(violations.map(|item| Violation {
                    field: item.field,
                    reason: item.reason,
                    message: item.description,
                }));
            }
            Some("google.rpc.PreconditionFailure") => {
                let violations = rpc::PreconditionFailure::decode(value)?.violations;
                let preconditions = violations.into_iter().map(|item| Precondition {
                    reason: item.r#type,
                    subject: item.subject,
                    message: item.description,
                });
                self.preconditions.extend(preconditions);
            }
            Some("google.rpc.RetryInfo") => {
                let delay = rpc::RetryInfo::decode(value)?.retry_delay;
                self.retry_after = delay.and_then(|delay| Duration::try_from(delay).ok());
            }
            Some("google.rpc.RequestInfo") => {
                self.request_id = rpc::RequestInfo::decode(value)?.request_id;
            }
            _ => {}
        }
        Ok(())
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let described = rpc::Status::decode(status.details())
            .ok()
            // Some proxies change the status and leave its details: then these are of no use.
            .filter(|described| described.code == status.code() as i32)
            .filter(|described| !described.details.is_empty());
        let mut error = match described {
            Some(described) => Self::of_status(&described),
            None => Self::new(status.code(), with_sources(&status)),
        };
        if error.0.request_id.is_empty()
            && let Some(id) = status.metadata().get("x-request-id")
        {
            error.0.request_id = id.to_str().unwrap_or_default().to_owned();
        }
        error
    }
}

/// The message and what tonic leaves to the chain of sources, such as "Connection refused".
fn with_sources(status: &Status) -> String {
    let mut parts = vec![status.message().to_owned()];
    let mut source = status.source();
    while let Some(error) = source {
        let text = error.to_string();
        // tonic's name of an error that says what happened further down.
        if text != "transport error" && !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        source = error.source();
    }
    parts.retain(|part| !part.is_empty());
    parts.join(": ")
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let details = &self.0;
        let code = rpc::Code::try_from(details.code as i32).unwrap_or(rpc::Code::Unknown);
        let name = match details.reason.as_str() {
            "" => code.as_str_name(),
            reason => reason,
        };
        let violations = details.violations.iter();
        let preconditions = details.preconditions.iter();
        let problems: Vec<(&str, &str)> = violations
            .map(|item| (item.field.as_str(), item.message.as_str()))
            .chain(preconditions.map(|item| (item.subject.as_str(), item.message.as_str())))
            .collect();
        match problems.as_slice() {
            [(field, message)] if *message == details.message => {
                write!(formatter, "{name}: {}", with_field(field, message))?;
            }
            _ => {
                formatter.write_str(name)?;
                if !details.message.is_empty() {
                    write!(formatter, ": {}", details.message)?;
                }
                for (field, message) in &problems {
                    write!(formatter, "\n  {}", with_field(field, message))?;
                }
            }
        }
        let total = details.metadata.get("violation_count");
        let total: usize = total.and_then(|text| text.parse().ok()).unwrap_or(0);
        if !problems.is_empty() && total > problems.len() {
            write!(formatter, "\n  ... and {} more", total - problems.len())?;
        }
        if let Some(pause) = details.retry_after {
            write!(formatter, "\n  try again after {pause:?}")?;
        }
        Ok(())
    }
}

/// A message behind the field it is about, unless it starts with it already.
fn with_field(field: &str, message: &str) -> String {
    if field.is_empty() || message.starts_with(&format!("{field}:")) {
        message.to_owned()
    } else {
        format!("{field}: {message}")
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let details = &self.0;
        formatter
            .debug_struct("Error")
            .field("code", &details.code)
            .field("reason", &details.reason)
            .field("message", &details.message)
            .field("violations", &details.violations)
            .field("preconditions", &details.preconditions)
            .field("retry_after", &details.retry_after)
            .field("metadata", &details.metadata)
            .field("request_id", &details.request_id)
            .field("job", &details.job.as_ref().map(|job| &job.name))
            .finish()
    }
}

impl StdError for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(name: &str, message: &impl prost::Message) -> prost_types::Any {
        prost_types::Any {
            type_url: format!("type.googleapis.com/google.rpc.{name}"),
            value: message.encode_to_vec(),
        }
    }

    fn info(reason: &str, violations: usize) -> prost_types::Any {
        let count = ("violation_count".to_owned(), violations.to_string());
        let info = rpc::ErrorInfo {
            reason: reason.to_owned(),
            domain: DOMAIN.to_owned(),
            metadata: [count].into(),
        };
        any("ErrorInfo", &info)
    }

    fn violation(field: &str, description: &str) -> rpc::bad_request::FieldViolation {
        rpc::bad_request::FieldViolation {
            field: field.to_owned(),
            description: description.to_owned(),
            ..Default::default()
        }
    }

    fn error_with(code: Code, message: &str, details: Vec<prost_types::Any>) -> Error {
        let described = rpc::Status {
            code: code as i32,
            message: message.to_owned(),
            details,
        };
        Status::with_details(code, message, described.encode_to_vec().into()).into()
    }

    #[test]
    fn one_problem_is_one_line() {
        let field_violations = vec![violation("spec.source_uri", "is empty")];
        let request = rpc::BadRequest { field_violations };
        let details = vec![info("STRING_MIN_LEN", 1), any("BadRequest", &request)];
        let error = error_with(Code::InvalidArgument, "is empty", details);
        assert_eq!(
            error.to_string(),
            "STRING_MIN_LEN: spec.source_uri: is empty"
        );
        assert!(!error.is_retryable());
    }

    #[test]
    fn several_problems_are_a_list_that_says_what_was_left_out() {
        let field_violations = vec![violation("a", "a: is wrong"), violation("", "too much")];
        let request = rpc::BadRequest { field_violations };
        let details = vec![info("FIRST", 5), any("BadRequest", &request)];
        let error = error_with(Code::InvalidArgument, "5 problems", details);
        let expected = "FIRST: 5 problems\n  a: is wrong\n  too much\n  ... and 3 more";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_pause_that_the_server_asks_for_makes_a_call_retryable() {
        let retry_delay = Some(prost_types::Duration {
            seconds: 5,
            nanos: 500_000_000,
        });
        let details = vec![
            info("QUEUE_FULL", 1),
            any("RetryInfo", &rpc::RetryInfo { retry_delay }),
        ];
        let error = error_with(Code::ResourceExhausted, "", details);
        assert_eq!(error.retry_after(), Some(Duration::from_millis(5500)));
        assert!(error.is_retryable() && !error.is_connection_lost());
        assert_eq!(error.to_string(), "QUEUE_FULL\n  try again after 5.5s");
        let too_large = error_with(Code::ResourceExhausted, "message too large", Vec::new());
        assert!(!too_large.is_retryable());
    }

    #[test]
    fn a_broken_stream_is_told_from_an_answer_of_the_server() {
        for code in [Code::Internal, Code::Unknown, Code::Cancelled] {
            assert!(Error::from(Status::new(code, "broken")).is_connection_lost());
            let answer = error_with(code, "incident", vec![info("INTERNAL", 1)]);
            assert!(!answer.is_connection_lost());
        }
        let answer = error_with(Code::Unavailable, "stopping", vec![info("STOPPING", 1)]);
        assert!(answer.is_connection_lost());
    }

    #[test]
    fn details_that_do_not_belong_to_the_status_are_left_out() {
        let described = rpc::Status {
            code: Code::NotFound as i32,
            details: vec![info("SOURCE_NOT_FOUND", 1)],
            ..Default::default()
        };
        let details = described.encode_to_vec();
        let changed = Status::with_details(Code::Unavailable, "proxy", details.into());
        let error = Error::from(changed);
        assert_eq!((error.reason(), error.message()), ("", "proxy"));
        let broken = Status::with_details(Code::NotFound, "gone", vec![0xff; 3].into());
        assert_eq!(Error::from(broken).message(), "gone");
    }
}
