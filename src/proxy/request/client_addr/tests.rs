//! The client of a request, whatever untrusted peers write.

use http::HeaderMap;

use super::*;
use crate::message::EditValue;

fn headers(fields: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for field in fields {
        headers.append(FORWARDED_FOR, HeaderValue::from_str(field).unwrap());
    }
    headers
}

fn client_of(peer: &str, fields: &[&str], trusted: &[&str]) -> String {
    let trusted: Vec<IpNet> = trusted.iter().map(|network| network.parse().unwrap()).collect();
    let client = client(Some(peer.parse().unwrap()), false, Fields::Map(&headers(fields)), &trusted);
    client.address.unwrap().to_string()
}

#[test]
fn an_untrusted_peer_cannot_name_a_client() {
    assert_eq!(client_of("6.6.6.6", &["1.1.1.1"], &[]), "6.6.6.6");
    assert_eq!(client_of("6.6.6.6", &["1.1.1.1"], &["10.0.0.0/8"]), "6.6.6.6");
}

#[test]
fn the_client_is_the_rightmost_hop_that_is_not_trusted() {
    let trusted = &["10.0.0.0/8", "fd00::/8"];
    for (fields, client) in [
        (&["1.1.1.1"] as &[&str], "1.1.1.1"),
        (&["9.9.9.9, 1.1.1.1"], "1.1.1.1"),
        (&["9.9.9.9, 1.1.1.1, 10.2.2.2"], "1.1.1.1"),
        (&["9.9.9.9", "1.1.1.1", "10.2.2.2"], "1.1.1.1"),
        (&["1.1.1.1:4711"], "1.1.1.1"),
        (&["[2001:db8::1]:4711"], "2001:db8::1"),
        (&["[2001:db8::1]"], "2001:db8::1"),
        (&["2001:db8::1, fd00::3"], "2001:db8::1"),
        (&["::ffff:1.1.1.1"], "1.1.1.1"),
        (&["10.7.7.7, 10.2.2.2"], "10.7.7.7"),
        (&["1.1.1.1,", " , 10.2.2.2 ,,"], "1.1.1.1"),
        (&["1.1.1.1, unknown, 10.2.2.2"], "10.2.2.2"),
        (&["unknown"], "10.1.1.1"),
        (&[""], "10.1.1.1"),
        (&[], "10.1.1.1"),
    ] {
        assert_eq!(client_of("10.1.1.1", fields, trusted), client, "{fields:?}");
    }
    assert_eq!(client_of("::ffff:10.1.1.1", &["1.1.1.1"], trusted), "1.1.1.1");
}

#[test]
fn servers_get_the_chain_of_trusted_proxies_only() {
    let told = |peer_trusted| {
        let peer = Some("10.1.1.1".parse().unwrap());
        let client = Client { peer, address: peer, peer_trusted, ..Client::default() };
        let value = forwarded_for(&client, Fields::Map(&headers(&["9.9.9.9, 1.1.1.1", "10.2.2.2"])));
        value.and_then(FieldValue::into_header_value).unwrap()
    };
    assert_eq!(told(true), "9.9.9.9, 1.1.1.1, 10.2.2.2, 10.1.1.1");
    assert_eq!(told(false), "10.1.1.1");
}

#[test]
fn a_peer_over_a_unix_socket_is_trusted_when_any_is() {
    let trusted = ["127.0.0.1/32".parse().unwrap()];
    let with = client(None, false, Fields::Map(&headers(&["1.1.1.1"])), &trusted);
    assert_eq!(with.address, Some("1.1.1.1".parse().unwrap()));
    let without = client(None, false, Fields::Map(&headers(&["1.1.1.1"])), &[]);
    assert_eq!(without.address, None);
}

/// As `client_of`, with the fields of both headers.
fn client_by(x_forwarded_for: &[&str], forwarded: &[&str]) -> String {
    let mut headers = headers(x_forwarded_for);
    for field in forwarded {
        headers.append(FORWARDED, HeaderValue::from_str(field).unwrap());
    }
    let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap()).to_vec();
    let client = client(Some("10.1.1.1".parse().unwrap()), false, Fields::Map(&headers), &trusted);
    client.address.unwrap().to_string()
}

#[test]
fn a_chain_in_forwarded_is_read_like_one_in_x_forwarded_for() {
    for (fields, client) in [
        (&["for=1.1.1.1"] as &[&str], "1.1.1.1"),
        (&["for=9.9.9.9, for=1.1.1.1"], "1.1.1.1"),
        (&["for=9.9.9.9, for=1.1.1.1, for=10.2.2.2"], "1.1.1.1"),
        (&["for=9.9.9.9, for=1.1.1.1", "for=10.2.2.2"], "1.1.1.1"),
        (&["for=1.1.1.1:4711"], "1.1.1.1"),
        (&["for=\"1.1.1.1:4711\""], "1.1.1.1"),
        (&["for=\"[2001:db8::1]:4711\";proto=https"], "2001:db8::1"),
        (&["for=\"[2001:db8::1]\", for=\"[fd00::3]\""], "2001:db8::1"),
        (&["for=\"[::ffff:1.1.1.1]\""], "1.1.1.1"),
        (&["FOR=1.1.1.1;By=x ,, , For=10.2.2.2 "], "1.1.1.1"),
        (&["for=1.1.1.1, for=unknown, for=10.2.2.2"], "10.2.2.2"),
        (&["for=1.1.1.1, for=_hidden, for=10.2.2.2"], "10.2.2.2"),
        (&["for=1.1.1.1, proto=https, for=10.2.2.2"], "10.2.2.2"),
        (&["for=1.1.1.1, \"garbage\", for=10.2.2.2"], "10.2.2.2"),
        (&["for=1.1.1.1;for=2.2.2.2, for=10.2.2.2"], "10.2.2.2"),
        (&["for=9.9.9.9;x=\"", "for=1.1.1.1"], "1.1.1.1"),
        (&["for=9.9.9.9;x=\", for=1.1.1.1"], "10.1.1.1"),
        (&["for=\"[fe80::1%eth0]\", for=10.2.2.2"], "10.2.2.2"),
        (&["for=\"[fe80::1%3]:80\", for=10.2.2.2"], "10.2.2.2"),
        (&["for=unknown"], "10.1.1.1"),
        (&[""], "10.1.1.1"),
        (&[", ,"], "10.1.1.1"),
    ] {
        assert_eq!(client_by(&[], fields), client, "{fields:?}");
    }
}

#[test]
fn x_forwarded_for_goes_before_forwarded() {
    assert_eq!(client_by(&["1.1.1.1"], &["for=6.6.6.6"]), "1.1.1.1");
    assert_eq!(client_by(&[""], &["for=6.6.6.6"]), "10.1.1.1", "even when it is empty");
    assert_eq!(client_by(&["for=6.6.6.6"], &[]), "10.1.1.1", "each in its own syntax");
}

#[test]
fn a_zone_ends_the_chain() {
    for zone in ["fe80::1%eth0", "[fe80::1%eth0]:80", "[fe80::1%3]:80", "[fe80::1%3]"] {
        assert_eq!(client_by(&[&format!("{zone}, 10.2.2.2")], &[]), "10.2.2.2", "{zone}");
    }
}

#[test]
fn the_number_of_hops_is_limited() {
    let ours = vec!["10.2.2.2"; 1000].join(", ");
    assert_eq!(client_by(&[&format!("6.6.6.6, {ours}")], &[]), "10.2.2.2");
    let ours = vec!["for=10.2.2.2"; 1000].join(", ");
    assert_eq!(client_by(&[], &[&format!("for=6.6.6.6, {ours}")]), "10.2.2.2");
    let strangers = vec!["for=6.6.6.6"; 1000].join(", ");
    assert_eq!(client_by(&[], &[&format!("{strangers}, for=1.1.1.1")]), "1.1.1.1");
}

#[test]
fn servers_get_in_x_forwarded_what_forwarded_said() {
    let mut headers = HeaderMap::new();
    let field = "for=6.6.6.6;proto=http;host=bad, for=1.1.1.1;proto=HTTPS;host=shop.example, for=10.2.2.2;proto=http";
    headers.append(FORWARDED, HeaderValue::from_static(field));
    let trusted: [IpNet; 1] = ["10.0.0.0/8".parse().unwrap()];
    let client = client(Some("10.1.1.1".parse().unwrap()), false, Fields::Map(&headers), &trusted);
    assert!(client.secure, "as the client came to the first of our proxies");
    assert_eq!(client.forwarded.as_ref().unwrap().host.as_ref().unwrap(), "shop.example");
    let value = forwarded_for(&client, Fields::Map(&headers)).and_then(FieldValue::into_header_value);
    assert_eq!(value.unwrap(), "1.1.1.1, 10.2.2.2, 10.1.1.1");
}

#[test]
fn the_scheme_of_the_peer_counts_unless_a_trusted_one_reports_another() {
    let trusted: [IpNet; 1] = ["10.0.0.0/8".parse().unwrap()];
    let secure = |peer: &str, encrypted, proto: Option<&'static str>| {
        let mut headers = HeaderMap::new();
        if let Some(proto) = proto {
            headers.append(FORWARDED_PROTO, HeaderValue::from_static(proto));
        }
        client(Some(peer.parse().unwrap()), encrypted, Fields::Map(&headers), &trusted).secure
    };
    assert!(secure("6.6.6.6", true, None) && !secure("6.6.6.6", false, None));
    assert!(secure("6.6.6.6", true, Some("http")) && !secure("6.6.6.6", false, Some("https")));
    assert!(secure("10.1.1.1", true, None) && secure("10.1.1.1", false, Some("https")));
    assert!(!secure("10.1.1.1", true, Some("http")));
    for proto in ["https", "HTTPS", "wss", "https, http", "https,https", " , wss , http", "wss, https"] {
        assert!(secure("10.1.1.1", false, Some(proto)), "{proto}");
    }
    for proto in ["http", "ws", "http, https", "ws,wss", "httpss", "quic", "https http"] {
        assert!(!secure("10.1.1.1", true, Some(proto)), "{proto}");
    }
    for nothing in ["", " ", ",", " , "] {
        assert!(secure("10.1.1.1", true, Some(nothing)) && !secure("10.1.1.1", false, Some(nothing)), "{nothing:?}");
    }
}
