//! The `OpenAPI` document, made from the types that handlers read and write.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::admin::problem::Problem;

use super::explain::ExplainRequest;
use super::pools::ServerPatch;
use super::sessions::MoveRequest;
use super::view::{
    EventView, ExplanationView, Page, PoolView, ReloadView, SampleView, ServerView, SessionView, StatusView,
    UpgradeView,
};

/// A parameter of the query: its name, its type, and what it means.
type Parameter = (&'static str, &'static str, &'static str);

/// An operation, in the words of `OpenAPI`.
struct Operation {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    query: Vec<Parameter>,
    body: Option<Value>,
    /// `None`: 204.
    response: Option<Value>,
    /// The statuses of problems, beside those of every operation.
    problems: &'static [u16],
}

/// Statuses that any operation may have: no token, wrong role or another site, another host.
const OF_ALL: &[u16] = &[401, 403, 421];
const PAGING: [Parameter; 2] = [
    ("limit", "integer", "Items of a page, 1 to 1000; 100 by default."),
    ("cursor", "string", "`next` of the page before."),
];

/// The document.
pub(super) fn document() -> Value {
    let mut generator = SchemaSettings::openapi3().into_generator();
    let mut paths = Map::new();
    for operation in operations(&mut generator) {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(operation.method.to_owned(), describe(&operation));
        }
    }
    let problem = reference::<Problem>(&mut generator);
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.0.3",
        "info": {
            "title": "Homing admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Pools, servers, sessions and events of one proxy. Times are RFC 3339 in UTC.",
        },
        "paths": paths,
        "security": [{ "token": [] }, {}],
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "responses": {
                "Problem": {
                    "description": "Why the request was not carried out.",
                    "content": { "application/problem+json": { "schema": problem } },
                },
            },
        },
    })
}

fn reference<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().into()
}

/// One that reads, or the base of another.
fn read(path: &'static str, summary: &'static str, response: Value) -> Operation {
    Operation {
        method: "get",
        path,
        summary,
        query: Vec::new(),
        body: None,
        response: Some(response),
        problems: &[400],
    }
}

fn operations(generator: &mut SchemaGenerator) -> Vec<Operation> {
    let mut operations = reads(generator);
    operations.extend(changes(generator));
    operations
}

fn reads(generator: &mut SchemaGenerator) -> Vec<Operation> {
    let pools = reference::<Page<PoolView, Option<String>>>(generator);
    let sessions = reference::<Page<SessionView, Option<String>>>(generator);
    let events = reference::<Page<EventView, u64>>(generator);
    let history = reference::<Page<SampleView, Option<String>>>(generator);
    let of_server = ("server", "string", "Only of this server of the pool.");
    let [limit, cursor] = PAGING;
    vec![
        read("/api/v1/status", "The process at a glance.", reference::<StatusView>(generator)),
        Operation { query: vec![limit, cursor], ..read("/api/v1/pools", "Pools with their servers.", pools) },
        Operation {
            query: vec![("pool", "string", "Only of this pool."), of_server, limit, cursor],
            problems: &[400, 404],
            ..read("/api/v1/sessions", "Sessions of the table.", sessions)
        },
        Operation {
            problems: &[404],
            ..read("/api/v1/sessions/{pool}/{key}", "One session.", reference::<SessionView>(generator))
        },
        Operation {
            query: vec![
                ("after", "integer", "Only events after the one with this id."),
                ("wait", "string", "Without such events, until the next one: a duration, at most 60s."),
            ],
            ..read("/api/v1/events", "The last events; with `Accept: text/event-stream` as they come.", events)
        },
        read("/api/v1/history", "The last hour in samples of 30 seconds, oldest first.", history),
    ]
}

fn changes(generator: &mut SchemaGenerator) -> Vec<Operation> {
    let server = reference::<ServerView>(generator);
    let session = reference::<SessionView>(generator);
    let explanation = reference::<ExplanationView>(generator);
    let reload = reference::<ReloadView>(generator);
    let upgrade = reference::<UpgradeView>(generator);
    vec![
        Operation {
            method: "patch",
            body: Some(reference::<ServerPatch>(generator)),
            problems: &[400, 404, 415, 422, 500],
            ..read(
                "/api/v1/pools/{pool}/servers/{server}",
                "Sets a server's state or weight at run time.",
                server.clone(),
            )
        },
        Operation {
            method: "delete",
            problems: &[404, 500],
            ..read("/api/v1/pools/{pool}/servers/{server}/override", "Back to what the file says.", server)
        },
        Operation {
            method: "delete",
            response: None,
            problems: &[404],
            ..read("/api/v1/sessions/{pool}/{key}", "Ends a session.", Value::Null)
        },
        Operation {
            method: "post",
            body: Some(reference::<MoveRequest>(generator)),
            problems: &[400, 404, 409, 415, 422],
            ..read("/api/v1/sessions/{pool}/{key}/move", "Moves a session.", session)
        },
        Operation {
            method: "post",
            body: Some(reference::<ExplainRequest>(generator)),
            problems: &[400, 404, 415, 422],
            ..read("/api/v1/explain", "What would happen to a session now.", explanation)
        },
        Operation {
            method: "post",
            problems: &[422, 503],
            ..read("/api/v1/reload", "Reads the configuration again.", reload)
        },
        Operation {
            method: "post",
            problems: &[409, 422, 503],
            ..read(
                "/api/v1/upgrade",
                "Starts the program that lies at the path of the running one, and hands over to it.",
                upgrade,
            )
        },
    ]
}

fn describe(operation: &Operation) -> Value {
    let in_path = operation.path.split(['{', '}']).skip(1).step_by(2);
    let in_path =
        in_path.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    let in_query = operation.query.iter().map(
        |(name, kind, text)| json!({ "name": name, "in": "query", "description": text, "schema": { "type": kind } }),
    );
    let mut responses = Map::new();
    match &operation.response {
        Some(schema) => responses.insert(
            "200".to_owned(),
            json!({ "description": operation.summary, "content": { "application/json": { "schema": schema } } }),
        ),
        None => responses.insert("204".to_owned(), json!({ "description": operation.summary })),
    };
    for status in OF_ALL.iter().chain(operation.problems) {
        responses.insert(status.to_string(), json!({ "$ref": "#/components/responses/Problem" }));
    }
    let mut described = json!({
        "summary": operation.summary,
        "parameters": in_path.chain(in_query).collect::<Vec<_>>(),
        "responses": responses,
    });
    if let (Some(schema), Some(described)) = (&operation.body, described.as_object_mut()) {
        let body = json!({ "required": true, "content": { "application/json": { "schema": schema } } });
        described.insert("requestBody".to_owned(), body);
    }
    described
}
