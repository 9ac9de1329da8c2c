//! `status`, `reload` and `upgrade`.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::Value;

use super::args::Format;
use super::client::{Client, ClientError};
use super::failure::Failure;
use super::table::facts;
use crate::cli::output::try_print;

/// `status`.
pub(super) fn status(client: &Client, format: Format) -> Result<(), Failure> {
    print_object(&client.get("/api/v1/status")?, format)
}

/// `reload`.
pub(super) fn reload(client: &Client, format: Format) -> Result<(), Failure> {
    let response = client.send(&Method::POST, "/api/v1/reload", None).map_err(refused_reload)?;
    print_object(&response, format)
}

/// Longer than a proxy waits for the new process.
const UPGRADE_PATIENCE: Duration = Duration::from_secs(200);

/// `upgrade`.
pub(super) fn upgrade(client: &Client, format: Format) -> Result<(), Failure> {
    print_object(&client.send_waiting(&Method::POST, "/api/v1/upgrade", UPGRADE_PATIENCE)?, format)
}

fn refused_reload(error: ClientError) -> Failure {
    match error {
        ClientError::Refused(problem) if problem.status == StatusCode::UNPROCESSABLE_ENTITY => {
            let shown = if problem.problems.is_empty() {
                format!("error: {}", problem.message)
            } else {
                format!("{}\n\nerror: {}", problem.problems.join("\n\n"), problem.message)
            };
            Failure::InvalidConfig(shown)
        }
        other => Failure::Client(other),
    }
}

/// Prints an object of the API.
pub(super) fn print_object(object: &Value, format: Format) -> Result<(), Failure> {
    let text = match format {
        Format::Json => format!("{object:#}\n"),
        Format::Table => facts(object),
    };
    Ok(try_print(&text)?)
}
