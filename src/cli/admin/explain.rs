//! `explain` by the running proxy: what would happen to a session now, and why.

use std::net::IpAddr;

use http::Method;
use serde_json::{Value, json};

use super::args::Format;
use super::client::{Client, ClientError};
use super::failure::Failure;
use super::servers::read_pools;
use super::table::{facts, printable};
use crate::cli::output::{read_input, try_print};

/// What to ask, as the command line says it.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Question<'a> {
    /// A client's address; anything else is a secret, and comes from standard input.
    pub(in crate::cli) argument: Option<&'a str>,
    /// The input is an application's id.
    pub(in crate::cli) is_id: bool,
    /// The pool.
    pub(in crate::cli) pool: Option<&'a str>,
    /// The client's certificate and user.
    pub(in crate::cli) client: (Option<&'a str>, Option<&'a str>),
}

/// Asks the running proxy.
pub(super) fn ask(client: &Client, question: Question<'_>, format: Format) -> Result<(), Failure> {
    let text = match question.argument.filter(|argument| *argument != "-") {
        Some(argument) if argument.parse::<IpAddr>().is_ok() => argument.to_owned(),
        Some(_) => {
            return Err(Failure::Usage(
                "the running proxy is asked for a secret on standard input only: `homing explain < FILE`; `--config FILE` \
                 opens a token without it"
                    .to_owned(),
            ));
        }
        None => read_input()?,
    };
    let credential = credential(text.trim(), question.is_id)?;
    let pool = match question.pool {
        Some(pool) => pool.to_owned(),
        None => only_pool(client)?,
    };
    let explained = explain_in(client, &pool, &credential, question.client)?;
    Ok(try_print(&match format {
        Format::Json => format!("{explained:#}\n"),
        Format::Table => render(&explained),
    })?)
}

/// A field of the request: the name and the value.
pub(super) fn credential(text: &str, is_id: bool) -> Result<(&'static str, String), Failure> {
    let name = match text {
        "" => return Err(Failure::Usage("standard input names no session".to_owned())),
        _ if is_id => "id",
        text if text.parse::<IpAddr>().is_ok() => "address",
        _ => "cookie",
    };
    Ok((name, text.to_owned()))
}

/// What would happen to the session in this pool.
pub(super) fn explain_in(
    client: &Client,
    pool: &str,
    (name, value): &(&'static str, String),
    (certificate, user): (Option<&str>, Option<&str>),
) -> Result<Value, ClientError> {
    let mut asked = json!({ "pool": pool, *name: value });
    for (name, value) in [("certificate", certificate), ("user", user)] {
        if let (Some(value), Value::Object(fields)) = (value, &mut asked) {
            fields.insert(name.to_owned(), value.into());
        }
    }
    client.send(&Method::POST, "/api/v1/explain", Some(&asked))
}

fn only_pool(client: &Client) -> Result<String, Failure> {
    let pools = read_pools(client)?;
    let names: Vec<&str> = pools.iter().filter_map(|pool| pool.get("name").and_then(Value::as_str)).collect();
    match names.as_slice() {
        [name] => Ok((*name).to_owned()),
        names => Err(Failure::Usage(format!("name the pool with --pool: {}", names.join(", ")))),
    }
}

/// The facts, then the steps in their order.
fn render(explained: &Value) -> String {
    let mut rest = explained.clone();
    let steps = rest.as_object_mut().and_then(|fields| fields.remove("steps"));
    let mut text = facts(&rest);
    for (number, step) in (1..).zip(steps.as_ref().and_then(Value::as_array).into_iter().flatten()) {
        text.push_str(&format!("{number:>2}. {}\n", printable(&step_text(step))));
    }
    text
}

fn step_text(step: &Value) -> String {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if let (Some(subject), Some(said)) = (step.get("subject"), step.get("said")) {
        return format!("{}: {}", word(subject), word(said));
    }
    let Value::Object(fields) = step else { return word(step) };
    let shown = fields.iter().filter(|(_, value)| !value.is_null());
    shown.map(|(name, value)| format!("{}: {}", name.replace('_', " "), word(value))).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_is_its_facts_and_its_numbered_steps() {
        let explained = json!({
            "pool": "web", "server": "b",
            "steps": ["a word", { "said": "restored", "subject": "cookie" }, { "result": "hit", "detail": null }],
        });
        let text = render(&explained);
        assert!(text.contains("pool    web\n") && text.contains("server  b\n"), "{text}");
        assert!(text.contains(" 1. a word\n 2. cookie: restored\n 3. result: hit\n"), "{text}");
        assert!(!text.contains("null"), "{text}");
    }

    #[test]
    fn the_input_is_an_address_a_cookie_or_an_id() {
        let name = |text, is_id| credential(text, is_id).map(|(name, _)| name).ok();
        assert_eq!(name("192.0.2.1", false), Some("address"));
        assert_eq!(name("2001:db8::1", false), Some("address"));
        assert_eq!(name("homing=AAAA", false), Some("cookie"));
        assert_eq!(name("192.0.2.1", true), Some("id"));
        assert_eq!(name("", true), None);
    }
}
