//! Traces: `traceparent` goes on or begins, its id stands in the access log, and a collector gets a span of each request.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::apps::{Nodes, OTLP};
use crate::world::client::{Response, get_with};
use crate::world::h2c::{H2Request, h2};
use crate::world::tls::Authority;
use crate::world::tls_server::{Manners, TlsServer};
use crate::world::{Address, Conf, PATIENCE, Proxy, World, eventually};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const SPANS: &str = "homing_trace_spans_total";

fn sampled() -> String {
    format!("00-{TRACE}-{PARENT}-01")
}

/// Trace, parent and flags of the `traceparent` that a server received.
#[track_caller]
fn received(answer: &Response) -> (String, String, String) {
    let all = answer.received("traceparent");
    let [one] = all.as_slice() else { panic!("one traceparent: {all:?}") };
    let parts: Vec<&str> = one.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    assert_eq!((parts[0], lengths), ("00", vec![2, 32, 16, 2]), "{one}");
    assert!(one.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-')), "{one}");
    (parts[1].to_owned(), parts[2].to_owned(), parts[3].to_owned())
}

#[test]
fn a_trace_goes_on_with_the_proxy_as_the_parent_and_its_id_stands_in_the_access_log() {
    let world = World::start(Conf::servers("a").listener("protocols: [http1, h2c]"));
    let headers = [("traceparent", sampled()), ("tracestate", "shop=1,other=2".to_owned())];
    let over_http1 = |path: &str| get_with(&world.address, path, &headers.each_ref().map(|(n, v)| (*n, v.as_str())));
    let over_http2 = |path: &str| {
        let request = headers.iter().fold(H2Request::get(path), |request, (name, value)| request.header(name, value));
        h2(&world.address, request)
    };
    let mut spans = Vec::new();
    for (path, answer) in [("/one", over_http1("/one")), ("/two", over_http1("/two")), ("/three", over_http2("/three"))]
    {
        let answer = answer.expect(200);
        let (trace, span, flags) = received(&answer);
        assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "01"));
        assert_eq!(answer.received("tracestate"), ["shop=1,other=2"]);
        assert_eq!(world.access_line(path)["trace_id"], TRACE);
        spans.push(span);
    }
    spans.push(PARENT.to_owned());
    spans.sort();
    spans.dedup();
    assert_eq!(spans.len(), 4, "each request has a span of its own: {spans:?}");
}

#[test]
fn a_request_without_a_valid_traceparent_begins_a_trace_and_loses_its_tracestate() {
    let world = World::start(Conf::servers("a"));
    let state = ("tracestate", "shop=1");
    let valid = sampled();
    let upper = valid.to_uppercase();
    let zeros = valid.replace(TRACE, &"0".repeat(32));
    let longer = format!("{valid}-more");
    let mut traces = Vec::new();
    let cases: [(&str, &[(&str, &str)]); 6] = [
        ("/none", &[state]),
        ("/upper", &[("traceparent", &upper), state]),
        ("/zeros", &[("traceparent", &zeros), state]),
        ("/longer", &[("traceparent", &longer), state]),
        ("/twice", &[("traceparent", &valid), ("traceparent", &valid), state]),
        ("/empty", &[("traceparent", ""), state]),
    ];
    for (path, headers) in cases {
        let answer = get_with(&world.address, path, headers).expect(200);
        let (trace, _, flags) = received(&answer);
        assert_ne!(trace, TRACE, "{path}");
        assert_eq!(flags, "00", "{path}: the proxy records nothing");
        assert_eq!(answer.received("tracestate"), [""; 0], "{path}");
        assert_eq!(world.access_line(path)["trace_id"], trace.as_str());
        traces.push(trace);
    }
    traces.sort();
    traces.dedup();
    assert_eq!(traces.len(), 6, "each is a trace of its own: {traces:?}");
}

#[test]
fn without_propagation_trace_headers_are_left_alone() {
    let mut world = World::start(Conf::servers("a").top("tracing: { propagate: none }"));
    let answer = get_with(&world.address, "/left", &[("traceparent", "mine"), ("tracestate", "shop=1")]).expect(200);
    assert_eq!(
        (answer.received("traceparent"), answer.received("tracestate")),
        (vec!["mine".into()], vec!["shop=1".into()])
    );
    assert_eq!(get_with(&world.address, "/plain-one", &[]).expect(200).status, 200);
    assert_eq!(world.access_line("/left")["trace_id"], Value::Null);
    world.reload(Conf::servers("a"));
    let (trace, ..) = received(&get_with(&world.address, "/begun", &[("traceparent", "mine")]).expect(200));
    assert_eq!(world.access_line("/begun")["trace_id"], trace.as_str(), "a reload changes it");
}

fn exporting(nodes: &Nodes, sample: &str) -> Conf {
    let endpoint = nodes.address("collector");
    Conf::servers("a").top(&format!("tracing: {{ otlp: {{ endpoint: 'http://{endpoint}', sample: {sample} }} }}"))
}

fn collected(nodes: &Nodes) -> Value {
    get_with(&nodes.address("collector"), "/spans", &[]).expect(200).json()
}

/// The spans that the collector has, once it has so many.
#[track_caller]
fn spans(nodes: &Nodes, count: usize) -> Vec<Value> {
    let all = || collected(nodes)["spans"].as_array().cloned().expect("a list");
    eventually(PATIENCE, &format!("the collector has {count} spans"), || all().len() >= count);
    let all = all();
    assert_eq!(all.len(), count, "no more than that: {all:?}");
    all
}

#[test]
fn a_collector_gets_one_span_of_each_recorded_request_as_opentelemetry_describes_them() {
    let nodes = Nodes::start(OTLP, "collector");
    let world = World::start(exporting(&nodes, "1.0").top("proxy: { node: edge-7 }"));
    let traceparent = sampled();
    let answer = get_with(&world.address, "/cart?id=secret", &[("traceparent", &traceparent)]).expect(200);
    let (_, span, _) = received(&answer);
    let [first] = <[Value; 1]>::try_from(spans(&nodes, 1)).expect("one");
    for (field, value) in [
        ("trace_id", json!(TRACE)),
        ("span_id", json!(span)),
        ("parent", json!(PARENT)),
        ("name", json!("GET")),
        ("kind", json!(2)),
        ("status", json!(0)),
    ] {
        assert_eq!(first[field], value, "{field}: {first}");
    }
    assert!(!first.to_string().contains("secret"), "no query: {first}");
    let nanos = first["nanos"].as_u64().expect("a duration");
    assert!((1000..5_000_000_000).contains(&nanos), "{nanos}");
    let resource = &first["resource"];
    assert_eq!((&resource["service.name"], &resource["service.instance.id"]), (&json!("homing"), &json!("edge-7")));
    for (name, value) in [
        ("http.request.method", json!("GET")),
        ("http.response.status_code", json!(200)),
        ("url.path", json!("/cart")),
        ("url.scheme", json!("http")),
        ("network.protocol.version", json!("1.1")),
        ("client.address", json!("127.0.0.1")),
        ("homing.pool", json!("web")),
        ("homing.server", json!("a")),
        ("homing.outcome", json!("new")),
        ("homing.attempts", json!(1)),
        ("homing.request_id", world.access_line("/cart")["request_id"].clone()),
    ] {
        assert_eq!(first["attributes"][name], value, "{name}: {first}");
    }
    // The sender's decision stands, and a trace that begins here is recorded, as the share says.
    let not_sampled = format!("00-{TRACE}-{PARENT}-00");
    get_with(&world.address, "/not-sampled", &[("traceparent", &not_sampled)]).expect(200);
    let begun = get_with(&world.address, "/status?code=503", &[]).expect(503);
    assert_eq!(begun.status, 503);
    let second = spans(&nodes, 2).remove(1);
    assert_eq!((&second["parent"], &second["status"]), (&json!(""), &json!(2)), "{second}");
    assert_eq!(second["attributes"]["error.type"], "503", "{second}");
    world.expect_metric(SPANS, &[("result", "exported")], 2.0);
}

#[test]
fn a_share_of_the_traces_that_begin_at_the_proxy_is_recorded() {
    let nodes = Nodes::start(OTLP, "collector");
    let world = World::start(exporting(&nodes, "0.3"));
    let alice = world.browser();
    let mut marked = 0;
    for _ in 0..300 {
        marked += usize::from(received(&alice.get("/echo").expect(200)).2 == "01");
    }
    assert!((45..=140).contains(&marked), "about 90 of 300: {marked}");
    spans(&nodes, marked);
}

#[test]
fn a_collector_that_is_away_slows_no_request_and_its_spans_are_counted_as_lost() {
    let nodes = Nodes::start(OTLP, "collector");
    let world = World::start(exporting(&nodes, "1.0"));
    nodes.kill("collector");
    let alice = world.browser();
    for _ in 0..20 {
        let began = std::time::Instant::now();
        alice.get("/plain").expect(200);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
    eventually(PATIENCE, "they are given up", || world.metric(SPANS, &[("result", "failed")]) > 0.5);
    assert!(world.log().contains("the collector takes no spans"), "{}", world.log());
    nodes.start_again("collector");
    let lost = || world.metric(SPANS, &[("result", "failed")]);
    eventually(PATIENCE, "it gets spans again", || {
        alice.get("/plain").expect(200);
        world.metric(SPANS, &[("result", "exported")]) > 0.5
    });
    assert!(lost() >= 1.0);
    assert_eq!(world.log().matches("the collector takes no spans").count(), 1, "{}", world.log());
    eventually(PATIENCE, "it is logged", || world.log().contains("the collector takes spans again"));
}

#[test]
fn a_collector_with_tls_gets_spans_if_the_system_trusts_its_certificate() {
    let nodes = Nodes::start(OTLP, "collector");
    let (trusted, stranger) = (Authority::new(), Authority::new());
    let front = TlsServer::open(&trusted.sign(&["localhost"]), Manners::default());
    let Address::Tcp(collector) = nodes.address("collector") else { panic!("it listens on TCP") };
    front.forward(collector);
    let otlp = format!("tracing: {{ otlp: {{ endpoint: 'https://localhost:{}' }} }}", front.address.port());
    let mut environment = World::builder(Conf::servers("a").top(&otlp)).without_proxy();
    trusted.write(environment.directory(), "ca");
    let mut launch = environment.launch("");
    let bundle = environment.directory().join("ca.pem").display().to_string();
    launch.environment.push(("SSL_CERT_FILE".to_owned(), bundle));
    let proxy = Proxy::start(&launch, environment.directory());
    proxy.browser().get("/plain").expect(200);
    spans(&nodes, 1);
    front.show(&stranger.sign(&["localhost"]), Manners::default());
    front.hang_up();
    proxy.browser().get("/plain").expect(200);
    eventually(PATIENCE, "it is given up", || proxy.metric(SPANS, &[("result", "failed")]) > 0.5);
    assert!(front.failures() > 0);
    spans(&nodes, 1);
}

#[test]
fn a_collector_that_is_overloaded_gets_the_spans_again() {
    let nodes = Nodes::start(OTLP, "collector");
    let world = World::start(exporting(&nodes, "1.0"));
    let respond = |status: u16| get_with(&nodes.address("collector"), &format!("/respond?status={status}"), &[]);
    respond(503);
    world.browser().get("/plain").expect(200);
    eventually(PATIENCE, "it refuses", || collected(&nodes)["refused"].as_u64() > Some(0));
    respond(200);
    spans(&nodes, 1);
    respond(400);
    world.browser().get("/plain").expect(200);
    world.expect_metric(SPANS, &[("result", "failed")], 1.0);
    assert_eq!(spans(&nodes, 1).len(), 1, "what it calls invalid is not sent again");
}

#[test]
fn the_last_spans_are_sent_before_the_end_and_a_reload_begins_and_ends_the_export() {
    let nodes = Nodes::start(OTLP, "collector");
    let mut world = World::start(Conf::servers("a"));
    world.browser().get("/off").expect(200);
    world.reload(exporting(&nodes, "1.0"));
    world.browser().get("/on").expect(200);
    spans(&nodes, 1);
    world.reload(Conf::servers("a"));
    world.browser().get("/off-again").expect(200);
    world.reload(exporting(&nodes, "1.0"));
    world.browser().get("/last").expect(200);
    world.stop_proxy();
    let paths: Vec<_> = spans(&nodes, 2).iter().map(|span| span["attributes"]["url.path"].clone()).collect();
    assert_eq!(paths, ["/on", "/last"]);
}
