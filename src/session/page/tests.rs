use std::io::Write;

use proptest::prelude::*;

use super::*;

fn rewriter() -> PageRewriter {
    let base = Base::new(false, "shop.example", "/cart?page=2").unwrap();
    let encoding = encoding_of(StatusCode::OK, Some("text/html"), false).unwrap();
    PageRewriter::new(base, encoding, "sid", "T")
}

fn in_chunks<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut rewriter = rewriter();
    let mut out = Vec::new();
    for chunk in chunks {
        out.extend(rewriter.write(chunk));
    }
    out.extend(rewriter.end());
    out
}

fn rewritten(page: &str) -> String {
    String::from_utf8(in_chunks([page.as_bytes()].into_iter())).unwrap()
}

#[test]
fn links_frames_and_refreshes_get_the_token() {
    for (page, with_token) in [
        (r#"<a href="/x">x</a>"#, r#"<a href="/x?sid=T">x</a>"#),
        (r"<a class=y href=/x>x</a>", r#"<a class=y href="/x?sid=T">x</a>"#),
        (r"<A HREF='/x?a=1&amp;b=2'>x</A>", r#"<A HREF="/x?a=1&amp;b=2&amp;sid=T">x</A>"#),
        (r#"<a href="/x?a=1&b=2">x</a>"#, r#"<a href="/x?a=1&amp;b=2&amp;sid=T">x</a>"#),
        (r#"<a href="&#x2F;x">x</a>"#, r#"<a href="/x?sid=T">x</a>"#),
        (r#"<a href="/x?q=&quot;y&quot;">x</a>"#, r#"<a href="/x?q=&quot;y&quot;&amp;sid=T">x</a>"#),
        (r#"<map><area href="x"></map>"#, r#"<map><area href="x?sid=T"></map>"#),
        (r#"<iframe src="/in"></iframe>"#, r#"<iframe src="/in?sid=T"></iframe>"#),
        (r#"<frameset><frame src="/in"></frameset>"#, r#"<frameset><frame src="/in?sid=T"></frameset>"#),
        (
            r#"<meta http-equiv="Refresh" content="5; URL='/next'">"#,
            r#"<meta http-equiv="Refresh" content="5; URL='/next?sid=T'">"#,
        ),
        (r#"<meta http-equiv=refresh content="0;/next">"#, r#"<meta http-equiv=refresh content="0;/next?sid=T">"#),
    ] {
        assert_eq!(rewritten(page), with_token);
    }
}

#[test]
fn what_needs_no_session_or_leads_elsewhere_is_not_touched() {
    for page in [
        r##"<a href="#top">x</a><a>x</a><a href="mailto:a@b">x</a>"##,
        r#"<a href="//evil.example/x">x</a><a href="https://shop.example/x">x</a>"#,
        r#"<a href="&#47;&#92;evil.example">x</a>"#,
        r#"<img src="/x.png"><script src="/x.js"></script><link href="/x.css">"#,
        r#"<meta http-equiv="refresh" content="5"><meta name="url" content="0; url=/x">"#,
        r#"<iframe src="https://evil.example/"></iframe>"#,
        r#"<form action="https://evil.example/"><input name="q"></form>"#,
        r#"<form method="dialog"></form>"#,
        r#"<!-- <a href="/x"> --><script>"<a href='/x'>"</script><textarea><a href="/x"></textarea>"#,
    ] {
        assert_eq!(rewritten(page), page);
    }
}

#[test]
fn a_form_that_is_got_carries_the_token_in_a_field() {
    let field = r#"<input type="hidden" name="sid" value="T">"#;
    for form in [r#"<form action="/find?x=1">"#, "<form>", r#"<form method="get" action="">"#, "<form method=odd>"] {
        let page = format!("{form}<input name=\"q\"></form>");
        assert_eq!(rewritten(&page), format!("{form}{field}<input name=\"q\"></form>"));
    }
    let earlier = r#"<form><input type="hidden" name="sid" value="old"><input type="hidden" name="other"></form>"#;
    assert_eq!(rewritten(earlier), format!("<form>{field}<input type=\"hidden\" name=\"other\"></form>"));
}

#[test]
fn a_form_that_is_posted_carries_it_in_its_action() {
    for (form, with_token) in [
        (r#"<form method="post" action="/buy?x=1">"#, r#"<form method="post" action="/buy?x=1&amp;sid=T">"#),
        (r"<form method=POST>", r#"<form method=POST action="/cart?page=2&amp;sid=T">"#),
        (r#"<form method="post" action=" ">"#, r#"<form method="post" action="/cart?page=2&amp;sid=T">"#),
        (r#"<button formaction="/x">"#, r#"<button formaction="/x?sid=T">"#),
        (r#"<input type="submit" formaction="/x">"#, r#"<input type="submit" formaction="/x?sid=T">"#),
    ] {
        assert_eq!(rewritten(form), with_token);
    }
}

#[test]
fn a_base_of_another_site_takes_the_relative_links_away() {
    let head = r#"<base href="https://cdn.example/"><base href="/">"#;
    let page = format!("{head}<a href=\"x\">x</a><form method=\"post\"></form>");
    let posts = "http://shop.example/cart?page=2&amp;sid=T";
    assert_eq!(rewritten(&page), format!("{head}<a href=\"x\">x</a><form method=\"post\" action=\"{posts}\"></form>"));
}

#[test]
fn only_whole_html_pages_are_rewritten() {
    let of = |status: u16, kind: Option<&str>, part| encoding_of(StatusCode::from_u16(status).unwrap(), kind, part);
    for (status, kind) in [
        (200, "text/html"),
        (404, "Text/HTML; charset=utf-8"),
        (302, "text/html;charset=\"ISO-8859-1\""),
        (200, "application/xhtml+xml"),
    ] {
        assert!(of(status, Some(kind), false).is_some(), "{status} {kind}");
        assert!(of(status, Some(kind), true).is_none(), "a part of {kind}");
    }
    for (status, kind) in [
        (206, "text/html"),
        (204, "text/html"),
        (304, "text/html"),
        (200, "text/plain"),
        (200, "application/json"),
        (200, "text/htmlx"),
        (200, "text/html; charset=utf-16"),
        (200, "text/html; charset=nonsense"),
    ] {
        assert!(of(status, Some(kind), false).is_none(), "{status} {kind}");
    }
    assert!(of(200, None, false).is_none());
}

#[test]
fn a_page_of_another_encoding_keeps_its_bytes() {
    let base = Base::new(false, "shop.example", "/").unwrap();
    let encoding = encoding_of(StatusCode::OK, Some("text/html; charset=iso-8859-1"), false).unwrap();
    let mut rewriter = PageRewriter::new(base, encoding, "sid", "T");
    let mut out = rewriter.write(b"\xe9<a title='\xe9' href='/x'>\xe9</a>");
    out.extend(rewriter.end());
    assert_eq!(out, b"\xe9<a title='\xe9' href=\"/x?sid=T\">\xe9</a>");
}

#[test]
fn a_tag_that_is_too_long_to_be_kept_passes_as_it_is_and_so_does_the_rest() {
    let page = format!("<a href='/x'>x</a><a title='{}' href='/y'>y</a><a href='/z'>z</a>", "t".repeat(10 << 20));
    let out = in_chunks(page.as_bytes().chunks(64 * 1024));
    let first = r#"<a href="/x?sid=T">x</a>"#;
    assert!(out.starts_with(first.as_bytes()));
    assert!(out[first.len()..] == page.as_bytes()["<a href='/x'>x</a>".len()..], "nothing is lost or doubled");
}

#[test]
fn a_page_that_breaks_off_in_a_tag_is_given_out_whole() {
    assert_eq!(rewritten("<p>x</p><a href='/x"), "<p>x</p><a href='/x");
}

fn compressed(coding: &str, page: &[u8]) -> Vec<u8> {
    use flate2::Compression;
    match coding {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(page).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(page).unwrap();
            encoder.finish().unwrap()
        }
        _ => {
            let mut out = Vec::new();
            let mut encoder = brotli::CompressorWriter::new(&mut out, 4096, 5, 20);
            encoder.write_all(page).unwrap();
            drop(encoder);
            out
        }
    }
}

#[test]
fn compressed_pages_are_read_in_any_pieces() {
    let page = "<a href='/x'>x</a>".repeat(5_000);
    for coding in ["gzip", "deflate", "br"] {
        let compressed = compressed(coding, page.as_bytes());
        for size in [1, 7, 1024, compressed.len()] {
            let mut decoder = Decoder::new(coding).unwrap();
            let mut out = Vec::new();
            for chunk in compressed.chunks(size) {
                out.extend(decoder.write(chunk).unwrap());
            }
            out.extend(decoder.end().unwrap());
            assert!(out == page.as_bytes(), "{coding} in pieces of {size}");
        }
    }
    for unknown in ["zstd", "identity", "gzip, br", ""] {
        assert!(Decoder::new(unknown).is_none(), "{unknown}");
    }
}

#[test]
fn a_compressed_page_that_breaks_off_or_is_damaged_is_an_error() {
    for coding in ["gzip", "deflate", "br"] {
        let whole = compressed(coding, "<a href='/x'>x</a>".repeat(5_000).as_bytes());
        let mut decoder = Decoder::new(coding).unwrap();
        assert!(decoder.write(&whole[..whole.len() / 2]).is_ok());
        assert!(decoder.end().is_err(), "{coding}");
        let mut decoder = Decoder::new(coding).unwrap();
        let damaged = decoder.write(b"this is nothing that was ever compressed by anyone");
        assert!(damaged.and_then(|_| decoder.end()).is_err(), "{coding}");
    }
}

fn page() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "<a href=\"/x\">",
        "<a href='//evil.example/'>",
        "<a href=x?a=1&amp;b>",
        "<form>",
        "<form method=post>",
        "<form action=/y>",
        "<input type=hidden name=sid value=old>",
        "<input name=q>",
        "</form>",
        "</a>",
        "text",
        "<base href=/deep/>",
        "<base href=https://cdn.example/>",
        "<!--",
        "-->",
        "<script>",
        "</script>",
        "<",
        ">",
        "\"",
        "&amp;",
        "<iframe src=/f>",
        "<meta http-equiv=refresh content='0;url=/n'>",
        "é",
        "<svg><a href=/s>",
    ]);
    prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn rewriting_twice_is_rewriting_once(page in page()) {
        let once = rewritten(&page);
        prop_assert_eq!(rewritten(&once), once);
    }

    #[test]
    fn the_pieces_in_which_a_page_comes_do_not_matter(page in page(), size in 1usize..9) {
        prop_assert_eq!(in_chunks(page.as_bytes().chunks(size)), rewritten(&page).into_bytes());
    }

    #[test]
    fn other_sites_never_see_the_token(page in page()) {
        let out = rewritten(&page);
        prop_assert_eq!(out.matches("evil.example/'").count(), page.matches("evil.example/'").count());
        prop_assert!(!out.contains("evil.example/?sid"));
    }
}
