//! The client against a real server, which `QUANTD_PYTHON -m quantd_server` starts. Without that
//! variable every test says that it was skipped.

mod calls;
mod examples;
mod jobs;
mod restarts;
mod server;
mod transport;
