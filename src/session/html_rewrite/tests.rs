use proptest::prelude::*;

use super::*;

fn charset(content_type: &str) -> Charset {
    rewritable(http::StatusCode::OK, Some(content_type), false).unwrap()
}

fn rewriter(token: &str) -> PageRewriter {
    let base = Base::new(true, "h.example", "/shop/cart?a=1").unwrap();
    PageRewriter::new(base, charset("text/html; charset=utf-8"), "sid", token).unwrap()
}

fn run(mut rewriter: PageRewriter, page: &[u8], part: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for part in page.chunks(part) {
        out.extend(rewriter.write(part).unwrap());
    }
    out.extend(rewriter.end().unwrap());
    out
}

fn page(page: &str) -> String {
    String::from_utf8(run(rewriter("T"), page.as_bytes(), 1 << 20)).unwrap()
}

/// Each page comes out as it should, and then stays so.
fn becomes(pages: &[(&str, &str)]) {
    for (before, after) in pages {
        assert_eq!(page(before), *after, "{before}");
        assert_eq!(page(after), *after, "not idempotent: {before}");
    }
}

fn stays(pages: &[&str]) {
    for text in pages {
        assert_eq!(page(text), **text);
    }
}

#[test]
fn links_and_frames_of_ours_get_the_token() {
    becomes(&[
        ("<a href=/x>x</a>", r#"<a href="/x?sid=T">x</a>"#),
        ("<A CLASS=b HREF='x#y'>", r#"<A CLASS=b HREF="x?sid=T#y">"#),
        (r#"<a href="">"#, r#"<a href="/shop/cart?a=1&amp;sid=T">"#),
        (r#"<a href="https://h.example/?b=2&c=3">"#, r#"<a href="https://h.example/?b=2&amp;c=3&amp;sid=T">"#),
        ("<map><area href=x></map>", r#"<map><area href="x?sid=T"></map>"#),
        ("<iframe src=x></iframe>", r#"<iframe src="x?sid=T"></iframe>"#),
        ("<frameset><frame src=x></frameset>", r#"<frameset><frame src="x?sid=T"></frameset>"#),
        ("<svg><a href=x></a></svg>", r#"<svg><a href="x?sid=T"></a></svg>"#),
        ("<a href=x href=y>", r#"<a href="x?sid=T" href=y>"#),
        ("<a href=/x?sid=old&amp;b>", r#"<a href="/x?b&amp;sid=T">"#),
    ]);
}

#[test]
fn everything_else_stays_byte_for_byte() {
    stays(&[
        "<a href='https://other.example/?a&b'>",
        "<a href=//other.example>",
        r#"<a href="/&#92;other.example">"#,
        r#"<a href="/&Tab;/other.example">"#,
        r#"<a href="&sol;&sol;other.example">"#,
        r#"<a href="javascript&colon;go()">"#,
        "<a href=#x>",
        "<a name=x>",
        "<img src=x><script src=x></script><link href=x rel=stylesheet><video src=x></video>",
        "<script>'<a href=x>'</script><style><a href=x></style><!-- <a href=x> --><textarea><a href=x></textarea>",
        "<a href=\"x",
        "<p title='<a href=x>'>text &amp; <",
    ]);
}

#[test]
fn character_references_are_read_and_written() {
    becomes(&[
        ("<a href='x?a=1&amp;b=2'>", r#"<a href="x?a=1&amp;b=2&amp;sid=T">"#),
        ("<a href='x?a=1&copy=2'>", r#"<a href="x?a=1&amp;copy=2&amp;sid=T">"#),
        ("<a href='&#47;x&quest;a&num;b'>", r#"<a href="/x?a&amp;sid=T#b">"#),
        (r#"<a href='x?"&lt;&apos;'>"#, r#"<a href="x?&quot;<'&amp;sid=T">"#),
        ("<a href='x?&amp;amp;'>", r#"<a href="x?&amp;amp;&amp;sid=T">"#),
    ]);
    // What cannot be read is not written.
    stays(&["<a href='x&#0;'>", "<a href='x\u{fffd}'>"]);
}

#[test]
fn a_form_that_gets_takes_the_token_along_as_a_field() {
    let field = r#"<input type="hidden" name="sid" value="T"/>"#;
    for form in ["<form>", "<form action=/x>", "<form method=GET action='x?sid=old'>", "<form method=nonsense>"] {
        becomes(&[(&format!("{form}<input name=q></form>"), &format!("{form}{field}<input name=q></form>"))]);
        let old = format!("{form}<input type=HIDDEN name=sid value=old><input name=sid></form>");
        becomes(&[(&old, &format!("{form}{field}<input name=sid></form>"))]);
    }
    stays(&[
        "<form action=https://other.example/><input type=hidden name=sid value=x></form>",
        "<form method=dialog><input type=hidden name=sid value=x></form>",
        "<input type=hidden name=sid value=x>",
    ]);
}

#[test]
fn no_field_goes_into_a_form_inside_a_form_that_leads_elsewhere() {
    stays(&[
        "<form action=https://other.example/><form action=/x></form>",
        "<form action=https://other.example/><div><form action=/x>",
    ]);
    let field = r#"<input type="hidden" name="sid" value="T"/>"#;
    let away = "<form action=https://other.example/><form action=/x></form>";
    becomes(&[(&format!("{away}<form action=/x>"), &format!("{away}<form action=/x>{field}"))]);
}

#[test]
fn no_field_goes_into_a_form_that_browsers_have_not_closed() {
    stays(&[
        "<div><form action=https://other.example/></div><form action=/x>",
        "<table><form action=https://other.example/><tr><td></table><form action=/x>",
        "<table><tr><td><form action=https://other.example/></td></tr></table><form action=/x>",
        "<form action=https://other.example/><table></form></table><form action=/x>",
        "<form action=https://other.example/><select></form><form action=/x>",
        "<form action=https://other.example/><template></form></template><form action=/x>",
        "<form action=https://other.example/><template><form action=//b.example></form></template><form action=/x>",
    ]);
    let field = r#"<input type="hidden" name="sid" value="T"/>"#;
    for away in [
        "<div><form action=https://other.example/></div><form action=/x></form>",
        "<form action=https://other.example/><div></form></div>",
        "<template><form action=https://other.example/></form></template>",
        "<table><form action=https://other.example/><table><select></select></table></form></table>",
        "<form action=https://other.example/><template></template></FORM>",
    ] {
        becomes(&[(&format!("{away}<form action=/x>"), &format!("{away}<form action=/x>{field}"))]);
    }
}

#[test]
fn a_form_in_a_picture_is_no_form() {
    stays(&[
        "<svg><form></svg>",
        "<math><form action=/x><input type=hidden name=sid value=old></math>",
        "<form action=https://other.example/><svg><form></form></svg><form action=/x>",
        "<form action=https://other.example/><math></form></math><form action=/x>",
    ]);
    let field = r#"<input type="hidden" name="sid" value="T"/>"#;
    let old = "<input type=hidden name=sid value=old>";
    let post = r#"<form method=post action="/shop/cart?a=1&amp;sid=T">"#;
    becomes(&[
        // An `<input>` of a picture has content: all up to the end of the picture.
        (&format!("<svg><form>{old}<form method=post></svg>{old}"), &format!("<svg><form>{old}{post}</svg>{old}")),
        (&format!("<form><svg><form>{old}</svg>{old}</form>"), &format!("<form>{field}<svg><form>{old}</svg></form>")),
        (
            "<form action=https://other.example/><button><svg></svg></button></form><form>",
            &format!("<form action=https://other.example/><button><svg></svg></button></form><form>{field}"),
        ),
        (&format!("<svg/><form>{old}</form>"), &format!("<svg/><form>{field}{old}</form>")),
        ("<div><svg><g></div><form>", &format!("<div><svg><g></div><form>{field}")),
        ("<svg><foreignObject><form>", &format!("<svg><foreignObject><form>{field}")),
    ]);
}

#[test]
fn a_base_in_a_template_or_a_picture_does_not_hide_the_one_that_counts() {
    for kind in ["template", "svg", "math"] {
        stays(&[
            &format!("<{kind}><base href=/a/></{kind}><base href=//other.example/><a href=x>"),
            &format!("<{kind}><base href=//other.example/></{kind}><a href=x>"),
        ]);
        let base = format!("<{kind}><base href=//other.example/></{kind}><base href=/a/>");
        becomes(&[(&format!("{base}<a href=x>"), &format!("{base}<a href=\"x?sid=T\">"))]);
    }
}

#[test]
fn a_form_that_posts_has_the_token_in_its_action() {
    becomes(&[
        ("<form method=post action=/x>", r#"<form method=post action="/x?sid=T">"#),
        ("<form method=POST>", r#"<form method=POST action="/shop/cart?a=1&amp;sid=T">"#),
        ("<form method=post action>", r#"<form method=post action="/shop/cart?a=1&amp;sid=T">"#),
        ("<form method=post action='#x'>", r#"<form method=post action="/shop/cart?a=1&amp;sid=T#x">"#),
        (
            "<base href=/dir/><form method=post>",
            r#"<base href=/dir/><form method=post action="https://h.example/shop/cart?a=1&amp;sid=T">"#,
        ),
    ]);
    stays(&["<form method=post action=https://other.example/><input type=hidden name=sid></form>"]);
}

#[test]
fn a_button_with_its_own_action_has_the_token_in_it() {
    becomes(&[
        ("<button formaction=/x>", r#"<button formaction="/x?sid=T">"#),
        ("<input type=submit formaction=/x>", r#"<input type=submit formaction="/x?sid=T">"#),
        ("<input type=image src=x formaction=x>", r#"<input type=image src=x formaction="x?sid=T">"#),
    ]);
    stays(&["<button>", "<input type=submit>", "<button formaction=https://other.example/>"]);
}

#[test]
fn a_page_that_leads_on_by_itself_takes_the_token_along() {
    becomes(&[(
        "<meta http-equiv=Refresh content='5; url=\"/x\"'>",
        r#"<meta http-equiv=Refresh content="5; url=&quot;/x?sid=T&quot;">"#,
    )]);
    stays(&[
        "<meta http-equiv=refresh content='5; url=https://other.example/'>",
        "<meta http-equiv=refresh content=5>",
        "<meta http-equiv=x content='5; url=/x'>",
        "<meta name=refresh content='5; url=/x'>",
    ]);
}

#[test]
fn links_start_from_the_first_base() {
    becomes(&[(
        "<base href=/dir/><base href=https://other.example/><a href=x>",
        r#"<base href=/dir/><base href=https://other.example/><a href="x?sid=T">"#,
    )]);
    stays(&["<base href=https://other.example/><base href=/><a href=x><a href=/x><form action=x></form>"]);
    becomes(&[(
        "<base href=//other.example/><a href=https://h.example/x>",
        r#"<base href=//other.example/><a href="https://h.example/x?sid=T">"#,
    )]);
}

#[test]
fn a_newer_token_takes_the_place_of_an_older_one() {
    let text = "<a href=/x><form></form><form method=post></form><iframe src=x?b>";
    let old = run(rewriter("old"), text.as_bytes(), 100);
    assert_eq!(String::from_utf8(run(rewriter("T"), &old, 100)).unwrap(), page(text));
}

#[test]
fn a_value_that_begins_like_utf16_or_with_a_byte_order_mark_stays() {
    for content_type in ["text/html", "text/html; charset=iso-8859-2", "text/html; charset=gbk"] {
        for mark in [&b"\xfe\xff"[..], b"\xff\xfe", b"\xef\xbb\xbf"] {
            let page = [b"<a href=\"", mark, b"ab\xe1\xe1cdef\">x</a>"].concat();
            let base = Base::new(true, "shop.example", "/").unwrap();
            let rewriter = PageRewriter::new(base, charset(content_type), "sid", "T").unwrap();
            assert_eq!(run(rewriter, &page, page.len()).escape_ascii().to_string(), page.escape_ascii().to_string());
        }
    }
}

#[test]
fn a_page_keeps_its_encoding() {
    let base = || Base::new(true, "h.example", "/").unwrap();
    let latin = b"<meta charset=iso-8859-1>caf\xe9 <a href='/caf\xe9?x=&rarr;'>".as_slice();
    let expected = b"<meta charset=iso-8859-1>caf\xe9 <a href=\"/caf\xe9?x=&#8594;&amp;sid=T\">".as_slice();
    // By the page itself.
    let rewriter = PageRewriter::new(base(), charset("text/html"), "sid", "T").unwrap();
    assert_eq!(run(rewriter, latin, 10), expected);
    // By the header, whatever the page says.
    let rewriter = PageRewriter::new(base(), charset("text/html; charset=utf-8"), "sid", "T").unwrap();
    assert_eq!(run(rewriter, latin, 10), latin);
}

#[test]
fn a_page_that_does_not_fit_goes_on_untouched() {
    let huge = format!("<a href=/x><a title=\"{}\" href=/y><a href=/z>", "é".repeat(5 * 1024 * 1024));
    let expected = huge.replacen("href=/x", r#"href="/x?sid=T""#, 1);
    for part in [1 << 10, 1 << 16, 1 << 25] {
        let mut rewriter = rewriter("T");
        let mut out = Vec::new();
        for part in huge.as_bytes().chunks(part) {
            out.extend(rewriter.write(part).unwrap());
        }
        assert!(rewriter.has_bailed_out());
        out.extend(rewriter.end().unwrap());
        assert!(out == expected.as_bytes(), "in parts of {part}: {} bytes of {}", out.len(), expected.len());
    }
}

#[test]
fn a_page_with_too_many_open_elements_goes_on_untouched() {
    let deep = format!("{}<a href=/x>", "<div>".repeat(100_000));
    let mut rewriter = rewriter("T");
    let mut out = rewriter.write(deep.as_bytes()).unwrap();
    assert!(rewriter.has_bailed_out());
    out.extend(rewriter.end().unwrap());
    assert!(out == deep.as_bytes(), "{} bytes of {}", out.len(), deep.len());
}

#[test]
fn what_is_complete_is_not_held_back() {
    let mut rewriter = rewriter("T");
    assert_eq!(rewriter.write(b"<p>one <a href=/x>two <a hr").unwrap(), br#"<p>one <a href="/x?sid=T">two "#);
    assert_eq!(rewriter.write(b"ef=/y>").unwrap(), br#"<a href="/y?sid=T">"#);
}

#[test]
fn a_rewriter_can_move_between_threads() {
    fn send<T: Send>(_: T) {}
    send(rewriter("T"));
}

/// Pages that are made of what matters here.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "<a href=/x>",
        "<a href='x?a&b=1#c'>",
        "<a href=\"",
        "\">",
        "'>",
        ">",
        "<",
        "</a>",
        "<a ",
        "href=",
        "x",
        "é",
        "&amp;",
        "&",
        "<a href='https://other.example/x?a&b'>",
        "<a href='/\\other.example'>",
        "<form>",
        "</form>",
        "<form method=post>",
        "<form action=//other.example>",
        "<div>",
        "</div>",
        "<input type=hidden name=sid value=old>",
        "<input name=q>",
        "<button formaction=x>",
        "<base href=/dir/>",
        "<base href=//other.example>",
        "<script>",
        "</script>",
        "<!--",
        "-->",
        "<meta http-equiv=refresh content='1;url=x'>",
        "<iframe src=x></iframe>",
        "<svg>",
        "</svg>",
        "<svg/>",
        "<math>",
        "</math>",
        "<foreignObject>",
        "</foreignObject>",
        "<template>",
        "</template>",
        "<table>",
        "</table>",
        "<select>",
        "</select>",
        "<![CDATA[",
        "]]>",
        "<textarea>",
        "</textarea>",
        "<a href='x?sid=old'>",
        " ",
        "\n",
        "/",
        "=",
    ]);
    prop::collection::vec(piece, 0..25).prop_map(|pieces| pieces.concat())
}

/// The addresses of a page's links as a browser reads them, by another tokenizer.
fn links(page: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for token in html5gum::Tokenizer::new(page) {
        let Ok(html5gum::Token::StartTag(tag)) = token else { continue };
        if let (b"a", Some(href)) = (tag.name.as_slice(), tag.attributes.get(b"href".as_slice())) {
            found.push(String::from_utf8_lossy(href).into_owned());
        }
    }
    found
}

proptest! {
    #[test]
    fn however_a_page_is_cut_it_comes_out_the_same(text in pieces(), part in 1usize..20) {
        prop_assert_eq!(run(rewriter("T"), text.as_bytes(), part), run(rewriter("T"), text.as_bytes(), 1 << 20));
    }

    #[test]
    fn a_page_rewritten_twice_is_rewritten_once(text in pieces()) {
        let once = page(&text);
        prop_assert_eq!(page(&once), once);
    }

    #[test]
    fn every_link_leads_to_where_it_led(
        hrefs in prop::collection::vec("(https?:|/|//h\\.example|//other\\.example|\\\\|&amp;|&|&#47;|&copy|\\?|#|a=1|é|;sid=x| |<)*", 0..8)
    ) {
        let text = hrefs.iter().fold(String::new(), |text, href| text + "<p><a href=\"" + href + "\">");
        let (before, after) = (links(text.as_bytes()), links(page(&text).as_bytes()));
        let base = Base::new(true, "h.example", "/shop/cart?a=1").unwrap();
        let expected: Vec<_> = before.into_iter().map(|href| base.rewrite(&href, "sid", "T").unwrap_or(href)).collect();
        prop_assert_eq!(after, expected);
    }

    #[test]
    fn any_bytes_pass(bytes in prop::collection::vec(any::<u8>(), 0..400), part in 1usize..50) {
        run(rewriter("T"), &bytes, part);
    }
}
