//! The admin API, as its contract and its `OpenAPI` document have it.

use serde_json::{Value, json};

use crate::world::client::request_text;
use crate::world::{Browser, Conf, Response, Wire, World};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const TOKENS: &str = "admin: { address: \"{{admin}}\", tokens: [\
                      { name: ops, role: operator, secret: operator-secret-1 }, \
                      { name: eyes, role: viewer, secret: viewer-secret-01 }] }";
const OPERATOR: (&str, &str) = ("Authorization", "Bearer operator-secret-1");
const VIEWER: (&str, &str) = ("Authorization", "Bearer viewer-secret-01");

/// A request to the admin listener, on a connection of its own.
#[track_caller]
pub(crate) fn ask(world: &World, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
    let host = ("Host", "localhost");
    let host = if headers.iter().any(|(name, _)| *name == "Host") { None } else { Some(host) };
    let length = body.len().to_string();
    let more = [("Connection", "close"), ("Content-Length", length.as_str())];
    let headers: Vec<_> =
        host.iter().chain(headers).chain(&more).map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let mut wire = Wire::connect(&world.admin);
    wire.send(request_text(method, path, &headers, body.as_bytes()));
    wire.receive(method)
}

#[track_caller]
fn get(world: &World, path: &str) -> Value {
    ask(world, "GET", path, &[], "").expect(200).json()
}

#[track_caller]
pub(crate) fn change(world: &World, method: &str, path: &str, body: &Value) -> Response {
    ask(world, method, path, &[JSON], &body.to_string())
}

/// So many clients that have come back once.
fn returning_clients(world: &World, many: usize) -> Vec<Browser> {
    let clients: Vec<_> = (0..many).map(|_| world.browser()).collect();
    clients.into_iter().inspect(|client| assert_eq!(client.server(), client.server())).collect()
}

fn server<'a>(pools: &'a Value, name: &str) -> &'a Value {
    let servers = pools["items"][0]["servers"].as_array().expect("servers");
    servers.iter().find(|server| server["name"] == name).expect("the server")
}

#[test]
fn an_operator_sees_pools_servers_and_sessions() {
    let world = World::start(Conf::servers("a b"));
    let _clients = returning_clients(&world, 6);
    let pools = get(&world, "/api/v1/pools");
    let a = server(&pools, "a");
    assert_eq!((&a["state"], &a["file_state"], &a["override"]), (&json!("ready"), &json!("ready"), &Value::Null));
    assert_eq!(a["sessions"].as_u64().unwrap() + server(&pools, "b")["sessions"].as_u64().unwrap(), 6);
    let status = get(&world, "/api/v1/status");
    assert_eq!((&status["state"], &status["table"]["entries"]), (&json!("ready"), &json!(6)));
    assert_eq!(pools["next"], Value::Null);
}

#[test]
fn pages_of_sessions_have_each_once_while_others_come_and_go() {
    let world = World::start(Conf::servers("a b c"));
    let clients = returning_clients(&world, 30);
    let all = |path: &str| -> Vec<String> {
        let items = get(&world, path)["items"].as_array().expect("items").clone();
        items.iter().map(|item| item["key"].as_str().expect("a key").to_owned()).collect()
    };
    let before = all("/api/v1/sessions?limit=1000");
    assert_eq!(before.len(), 30);
    let (mut seen, mut path) = (Vec::new(), "/api/v1/sessions?pool=web&limit=7".to_owned());
    loop {
        let page = get(&world, &path);
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["key"].as_str().unwrap().to_owned()));
        let _newcomers = returning_clients(&world, 3);
        match page["next"].as_str() {
            Some(next) => path = format!("/api/v1/sessions?pool=web&limit=7&cursor={next}"),
            None => break,
        }
    }
    let mut once = seen.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), seen.len(), "none twice");
    assert!(before.iter().all(|key| seen.contains(key)), "none left out");
    let of_a = get(&world, "/api/v1/sessions?pool=web&server=a&limit=1000");
    assert!(of_a["items"].as_array().unwrap().iter().all(|item| item["server"] == "a"));
    drop(clients);
}

fn token(client: &Browser) -> String {
    client.token().expect("a token")
}

/// The key of a client's session, by what its request would find.
fn key_of(world: &World, cookie: &str) -> String {
    let asked = json!({ "pool": "web", "cookie": cookie });
    change(world, "POST", "/api/v1/explain", &asked).expect(200).json()["key"].as_str().expect("a key").to_owned()
}

fn with_snapshot(conf: Conf) -> Conf {
    conf.store("snapshot: { path: \"{{dir}}/sessions\", interval: 1h }")
}

#[test]
fn a_session_that_an_operator_moves_goes_to_its_new_server_and_stays_there_over_a_restart() {
    let mut world = World::start(with_snapshot(Conf::servers("a b")).persistence("handoff: { enabled: true }"));
    let client = world.browser();
    let home = client.server();
    assert_eq!(client.server(), home);
    let next = if home == "a" { "b" } else { "a" };
    let key = key_of(&world, &token(&client));
    let moved = change(&world, "POST", &format!("/api/v1/sessions/web/{key}/move"), &json!({ "server": next }));
    let moved = moved.expect(200).json();
    assert_eq!((&moved["server"], &moved["epoch"]), (&json!(next), &json!(1)));
    assert_eq!(moved["moves"][0]["reason"], "admin");
    let again = change(&world, "POST", &format!("/api/v1/sessions/web/{key}/move"), &json!({ "server": next }));
    assert_eq!(again.expect(200).json()["epoch"], 1, "it is there already");
    let told = client.get("/echo").received("homing-session-moved");
    assert_eq!(told, [format!("from={home}; reason=admin; epoch=1")]);
    assert_eq!(client.server(), next);
    assert_eq!(world.metric("homing_session_moves_total", &[("reason", "admin")]), 1.0);
    world.restart_proxy();
    assert_eq!(client.server(), next);
}

#[test]
fn a_session_that_an_operator_ends_is_over_and_its_token_brings_it_back_neither_now_nor_after_a_restart() {
    let mut world = World::start(with_snapshot(Conf::servers("a b")));
    let client = world.browser();
    assert_eq!(client.server(), client.server());
    let cookie = token(&client);
    let key = key_of(&world, &cookie);
    ask(&world, "DELETE", &format!("/api/v1/sessions/web/{key}"), &[], "").expect(204);
    ask(&world, "DELETE", &format!("/api/v1/sessions/web/{key}"), &[], "").expect(404);
    assert_eq!(world.metric("homing_sessions_ended_total", &[("reason", "admin")]), 1.0);
    for restarted in [false, true] {
        if restarted {
            world.restart_proxy();
        }
        let asked = json!({ "pool": "web", "cookie": cookie });
        let explained = change(&world, "POST", "/api/v1/explain", &asked).expect(200).json();
        assert_eq!(explained["lookup"], "ended", "restarted: {restarted}");
    }
    client.server();
    assert_ne!(token(&client), cookie, "its client has begun a new one");
}

#[test]
fn explain_says_what_would_happen_and_changes_nothing() {
    let world = World::start(Conf::servers("a b"));
    let client = world.browser();
    let home = client.server();
    let asked = json!({ "pool": "web", "cookie": token(&client) });
    let explain = || change(&world, "POST", "/api/v1/explain", &asked).expect(200).json();
    let first = explain();
    assert_eq!((&first["server"], &first["chosen"], &first["outcome"]), (&json!(home), &json!(home), &json!("kept")));
    assert_eq!(first["lookup"], "restored", "its token opens, and the table does not know it");
    assert_eq!(explain(), first, "it was not brought into the table");
    assert_eq!(get(&world, "/api/v1/status")["table"]["entries"], 0);
    change(&world, "PATCH", &format!("/api/v1/pools/web/servers/{home}"), &json!({ "state": "maint" })).expect(200);
    let then = explain();
    assert_eq!((&then["outcome"], &then["reason"]), (&json!("moved"), &json!("maint")));
    assert_ne!(then["chosen"], json!(home));
    let subjects: Vec<_> = then["steps"].as_array().unwrap().iter().map(|step| step["subject"].clone()).collect();
    assert_eq!(subjects, ["cookie", "table", "server", "choice"]);
    let none = json!({ "pool": "web", "cookie": "SESSIONID=forged" });
    assert_eq!(change(&world, "POST", "/api/v1/explain", &none).expect(200).json()["lookup"], "forged");
}

#[test]
fn a_session_that_only_its_token_knows_is_moved_and_ended_too() {
    let world = World::start(Conf::servers("a b"));
    let (moves, leaves) = (world.browser(), world.browser());
    let home = moves.server();
    let other = if home == "a" { "b" } else { "a" };
    leaves.server();
    assert_eq!(get(&world, "/api/v1/status")["table"]["entries"], 0);
    let path = format!("/api/v1/sessions/web/{}/move", key_of(&world, &token(&moves)));
    assert_eq!(change(&world, "POST", &path, &json!({ "server": other })).expect(200).json()["server"], other);
    assert_eq!(moves.server(), other);
    let ended = token(&leaves);
    ask(&world, "DELETE", &format!("/api/v1/sessions/web/{}", key_of(&world, &ended)), &[], "").expect(204);
    let asked = json!({ "pool": "web", "cookie": ended });
    assert_eq!(change(&world, "POST", "/api/v1/explain", &asked).expect(200).json()["lookup"], "ended");
}

#[test]
fn a_server_is_set_to_drain_and_back() {
    let world = World::start(Conf::servers("a b"));
    let path = "/api/v1/pools/web/servers/a";
    let set = change(&world, "PATCH", path, &json!({ "state": "drain" })).expect(200).json();
    assert_eq!(
        (&set["state"], &set["file_state"], &set["effective_weight"]),
        (&json!("drain"), &json!("ready"), &json!(0))
    );
    assert_eq!((&set["override"]["state"], &set["override"]["by"]), (&json!("drain"), &json!("local")));
    assert!((0..6).all(|_| world.browser().server() == "b"));
    let more = change(&world, "PATCH", path, &json!({ "weight": 3 })).expect(200).json();
    assert_eq!((&more["override"]["state"], &more["override"]["weight"]), (&json!("drain"), &json!(3)));
    let back = change(&world, "PATCH", path, &json!({ "state": null })).expect(200).json();
    assert_eq!((&back["state"], &back["weight"]), (&json!("ready"), &json!(3)));
    let file = ask(&world, "DELETE", &format!("{path}/override"), &[], "").expect(200).json();
    assert_eq!((&file["override"], &file["weight"]), (&Value::Null, &json!(1)));
}

/// Method, path, headers, body, and the status of the response.
type WrongRequest = (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static str, u16);

#[test]
fn every_wrong_request_is_answered_with_what_is_wrong() {
    let world = World::start(Conf::servers("a b"));
    let cases: [WrongRequest; 19] = [
        ("PATCH", "/api/v1/pools/web/servers/a", &[JSON], "{\"state\":\"dra", 400),
        ("PATCH", "/api/v1/pools/web/servers/a", &[JSON], "[1]", 422),
        ("PATCH", "/api/v1/pools/web/servers/a", &[JSON], "{\"stat\":\"drain\"}", 422),
        ("PATCH", "/api/v1/pools/web/servers/a", &[JSON], "{\"state\":\"gone\"}", 422),
        ("PATCH", "/api/v1/pools/web/servers/a", &[JSON], "{\"weight\":-1}", 422),
        ("PATCH", "/api/v1/pools/web/servers/z", &[JSON], "{\"state\":\"drain\"}", 404),
        ("PATCH", "/api/v1/pools/x/servers/a", &[JSON], "{\"state\":\"drain\"}", 404),
        ("PATCH", "/api/v1/pools/web/servers/a", &[("Content-Type", "text/plain")], "{\"state\":\"drain\"}", 415),
        ("POST", "/api/v1/status", &[], "", 405),
        ("GET", "/api/v1/reload", &[], "", 405),
        ("GET", "/api/v1/nothing", &[], "", 404),
        ("GET", "/api/v1/sessions?limit=1001", &[], "", 400),
        ("GET", "/api/v1/sessions?limit=0", &[], "", 400),
        ("GET", "/api/v1/sessions?cursor=x", &[], "", 400),
        ("GET", "/api/v1/sessions?pool=x", &[], "", 404),
        ("GET", "/api/v1/sessions/web/00000000000000000000000000000000", &[], "", 404),
        ("GET", "/api/v1/events?wait=61s", &[], "", 400),
        ("GET", "/api/v1/status", &[("Host", "evil.example")], "", 421),
        ("POST", "/api/v1/reload", &[("Origin", "http://evil.example")], "", 403),
    ];
    for (method, path, headers, body, status) in cases {
        let answer = ask(&world, method, path, headers, body);
        assert_eq!(answer.status, status, "{method} {path} {body}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{method} {path}");
        let problem = answer.json();
        assert!(
            problem["status"] == status && problem["detail"].as_str().is_some_and(|text| !text.is_empty()),
            "{problem}"
        );
        assert_eq!(answer.header("allow").is_some(), status == 405, "{method} {path}");
    }
    assert_eq!(server(&get(&world, "/api/v1/pools"), "a")["override"], Value::Null, "nothing was changed");
}

#[test]
fn a_token_is_asked_for_and_a_viewer_changes_nothing() {
    let world = World::start(Conf::servers("a b").top(TOKENS));
    let path = "/api/v1/pools/web/servers/a";
    let drain = |headers: &[(&str, &str)]| ask(&world, "PATCH", path, headers, "{\"state\":\"drain\"}");
    let refused = ask(&world, "GET", "/api/v1/status", &[], "").expect(401);
    assert!(refused.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")));
    for wrong in ["Bearer operator-secret-2", "Bearer ", "Basic b3BzOm9wZXJhdG9yLXNlY3JldC0x", "operator-secret-1"] {
        drain(&[JSON, ("Authorization", wrong)]).expect(401);
    }
    drain(&[JSON, VIEWER]).expect(403);
    assert_eq!(ask(&world, "GET", "/api/v1/status", &[VIEWER], "").expect(200).json()["role"], "viewer");
    let set = drain(&[JSON, OPERATOR]).expect(200).json();
    assert_eq!(set["override"]["by"], "ops");
    let events = ask(&world, "GET", "/api/v1/events", &[VIEWER], "").expect(200).json();
    let event = &events["items"][0];
    assert_eq!((&event["kind"], &event["to"], &event["who"]), (&json!("state"), &json!("drain"), &json!("ops")));
    for free in ["/healthz", "/readyz", "/metrics", "/"] {
        ask(&world, "GET", free, &[], "").expect(200);
    }
    assert!(!world.log().contains("operator-secret"), "no secret in the log");
}

#[test]
fn a_reload_says_what_changed_or_why_it_was_refused() {
    let mut world = World::start(Conf::servers("a b"));
    world.try_reload(Conf::servers("a b").server("a", "weight: 7"));
    let done = ask(&world, "POST", "/api/v1/reload", &[], "").expect(200).json();
    assert_eq!(done["result"], "done");
    assert_eq!(server(&get(&world, "/api/v1/pools"), "a")["weight"], 7);
    world.try_reload("version: 1\nlisteners: [{ adress: x }]\npools: 5\n");
    let refused = ask(&world, "POST", "/api/v1/reload", &[], "").expect(422).json();
    let problems = refused["problems"].as_array().expect("problems");
    assert!(problems.len() >= 2 && problems[0].as_str().is_some_and(|text| text.contains("-->")), "{refused}");
    assert_eq!(get(&world, "/api/v1/status")["last_reload"]["result"], "refused");
}

#[test]
fn events_are_waited_for_and_streamed() {
    let world = World::start(Conf::servers("a b"));
    let last = get(&world, "/api/v1/events")["next"].as_u64().expect("an id");
    let path = format!("/api/v1/events?after={last}&wait=30s");
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| get(&world, &path));
        let mut stream = Wire::connect(&world.admin);
        stream.send(format!(
            "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nLast-Event-ID: {last}\r\n\r\n"
        ));
        assert_eq!(stream.receive_head().expect(200).header("content-type"), Some("text/event-stream"));
        change(&world, "PATCH", "/api/v1/pools/web/servers/b", &json!({ "state": "maint" })).expect(200);
        let waited = waits.join().expect("an answer");
        assert_eq!(waited["items"][0]["to"], "maint");
        let text = |stream: &Wire| String::from_utf8_lossy(stream.reader.pending()).into_owned();
        while !text(&stream).contains("data: ") {
            assert!(stream.reader.fill().expect("more of the stream") > 0, "the stream goes on");
        }
        let (text, id) = (text(&stream), last + 1);
        assert!(text.contains(&format!("id: {id}\nevent: state\ndata: {{\"id\":{id},")), "{text:?}");
    });
}

/// Whether a value is what a schema of the document says, as far as the document's words go.
fn conforms(value: &Value, schema: &Value, document: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or_default();
        return conforms(value, &document["components"]["schemas"][name], document);
    }
    if value.is_null() && (schema["nullable"] == true || schema["type"].is_null()) {
        return Ok(());
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(choices) = schema[key].as_array() {
            let fits = choices.iter().any(|choice| conforms(value, choice, document).is_ok());
            return if fits { Ok(()) } else { Err(format!("{value} is none of {choices:?}")) };
        }
    }
    if let Some(parts) = schema["allOf"].as_array() {
        return parts.iter().try_for_each(|part| conforms(value, part, document));
    }
    let fits = match schema["type"].as_str() {
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("array") => {
            let items = value.as_array().ok_or_else(|| format!("{value} is no array"))?;
            return items.iter().try_for_each(|item| conforms(item, &schema["items"], document));
        }
        Some("object") => return object_conforms(value, schema, document),
        _ => true,
    };
    if fits { Ok(()) } else { Err(format!("{value} is not {}", schema["type"])) }
}

fn object_conforms(value: &Value, schema: &Value, document: &Value) -> Result<(), String> {
    let object = value.as_object().ok_or_else(|| format!("{value} is no object"))?;
    for required in schema["required"].as_array().into_iter().flatten() {
        let name = required.as_str().unwrap_or_default();
        object.get(name).ok_or_else(|| format!("{name} is missing in {value}"))?;
    }
    for (name, value) in object {
        let property = schema["properties"].get(name).ok_or_else(|| format!("{name} is not in the document"))?;
        conforms(value, property, document).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

#[test]
fn every_response_is_what_the_openapi_document_says() {
    let world = World::start(Conf::servers("a b"));
    let client = world.browser();
    assert_eq!(client.server(), client.server());
    let document = get(&world, "/api/v1/openapi.json");
    let key = key_of(&world, &token(&client));
    let home = client.server();
    let other = if home == "a" { "b" } else { "a" };
    let operations = [
        ("GET", "/api/v1/status", "/api/v1/status".to_owned(), Value::Null),
        ("GET", "/api/v1/pools", "/api/v1/pools".to_owned(), Value::Null),
        ("GET", "/api/v1/sessions", "/api/v1/sessions?limit=1".to_owned(), Value::Null),
        ("GET", "/api/v1/sessions/{pool}/{key}", format!("/api/v1/sessions/web/{key}"), Value::Null),
        ("POST", "/api/v1/explain", "/api/v1/explain".to_owned(), json!({ "pool": "web", "cookie": token(&client) })),
        (
            "PATCH",
            "/api/v1/pools/{pool}/servers/{server}",
            "/api/v1/pools/web/servers/a".to_owned(),
            json!({ "state": "drain" }),
        ),
        (
            "DELETE",
            "/api/v1/pools/{pool}/servers/{server}/override",
            "/api/v1/pools/web/servers/a/override".to_owned(),
            Value::Null,
        ),
        (
            "POST",
            "/api/v1/sessions/{pool}/{key}/move",
            format!("/api/v1/sessions/web/{key}/move"),
            json!({ "server": other }),
        ),
        ("POST", "/api/v1/reload", "/api/v1/reload".to_owned(), Value::Null),
        ("GET", "/api/v1/events", "/api/v1/events".to_owned(), Value::Null),
        ("GET", "/api/v1/history", "/api/v1/history".to_owned(), Value::Null),
        ("DELETE", "/api/v1/sessions/{pool}/{key}", format!("/api/v1/sessions/web/{key}"), Value::Null),
    ];
    for (method, template, path, body) in &operations {
        let described = &document["paths"][*template][method.to_lowercase()];
        assert!(described.is_object(), "{method} {template} is in the document");
        let answer =
            if body.is_null() { ask(&world, method, path, &[], "") } else { change(&world, method, path, body) };
        let response = &described["responses"][answer.status.to_string()];
        assert!(answer.status < 300 && response.is_object(), "{method} {path}: {} {}", answer.status, answer.text());
        if answer.status == 200 {
            let schema = &response["content"]["application/json"]["schema"];
            conforms(&answer.json(), schema, &document).unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        }
        let failed = ask(&world, method, path, &[("Host", "evil.example")], "").expect(421);
        let problem = &document["components"]["responses"]["Problem"]["content"]["application/problem+json"]["schema"];
        conforms(&failed.json(), problem, &document).unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    }
    let paths = document["paths"].as_object().unwrap();
    let documented: usize = paths.values().map(|path| path.as_object().unwrap().len()).sum();
    assert_eq!(operations.len() + 1, documented, "every operation was tried, but the upgrade, which upgrade.rs tries");
}

#[test]
fn bodies_that_are_huge_or_never_come_are_bounded() {
    let world = World::start(Conf::servers("a b"));
    let huge = "x".repeat(100_000);
    ask(&world, "POST", "/api/v1/explain", &[JSON], &huge).expect(413);
    let slow: Vec<Wire> = (0..20)
        .map(|_| {
            let mut wire = Wire::connect(&world.admin);
            wire.send("POST /api/v1/explain HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{");
            wire
        })
        .collect();
    get(&world, "/api/v1/status");
    for mut wire in slow {
        assert_eq!(wire.receive("POST").status, 408);
    }
}

#[test]
fn a_thousand_connections_keep_nobody_from_the_probes() {
    let world = World::start(Conf::servers("a b"));
    let waiting: Vec<Wire> = (0..1000)
        .map(|_| {
            let mut wire = Wire::connect(&world.admin);
            wire.send("GET /api/v1/events?after=0&wait=60s HTTP/1.1\r\nHost: localhost\r\n\r\n");
            wire
        })
        .collect();
    ask(&world, "GET", "/healthz", &[], "").expect(200);
    assert_eq!(world.browser().get("/echo").status, 200);
    drop(waiting);
    crate::world::eventually(std::time::Duration::from_secs(20), "the API answers again", || {
        ask(&world, "GET", "/api/v1/status", &[], "").status == 200
    });
}
