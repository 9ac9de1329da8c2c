//! What the token in a page's links costs: a page of 100 KiB with some 300 links.

#![allow(clippy::expect_used, reason = "a bench that cannot be set up should stop")]
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use homing::session::html_rewrite::{PageRewriter, rewritable};
use homing::session::link::Base;
use http::StatusCode;

const SIZE: usize = 100 * 1024;
const LINKS: usize = 300;
/// As a body arrives from a server.
const PART: usize = 16 * 1024;
const TOKEN: &str =
    "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789AbCdEfGhIjKlMnOpQrStUvWxYz0123456789AbCdEfGhIjKlMnOpQrStUvWxYz";

/// Links of every kind that a shop has, and text between them.
fn page() -> Vec<u8> {
    let mut page = String::from("<!DOCTYPE html><html><head><title>Shop</title></head><body>");
    for n in 0..LINKS {
        page.push_str(&match n % 10 {
            0 => format!("<p><a href=\"https://other.example/{n}\">elsewhere</a>"),
            1 => format!("<p><a href=\"#part-{n}\">here</a>"),
            2 => format!("<p><a class=\"item\" href=\"https://shop.example/item/{n}?size=l&amp;page=2\">item</a>"),
            3 => format!("<form action=\"/search/{n}\"><input name=\"q\"></form>"),
            _ => format!("<p><a class=\"item\" href=\"/item/{n}\">item</a>"),
        });
        let text = "It keeps what it promises, and <em>nothing</em> else. ";
        while page.len() < SIZE * (n + 1) / LINKS {
            page.push_str(text);
        }
    }
    page.push_str("</body></html>");
    page.into_bytes()
}

fn links(c: &mut Criterion) {
    let charset = rewritable(StatusCode::OK, Some("text/html; charset=utf-8"), false).expect("a page");
    let page = page();
    let mut group = c.benchmark_group("links");
    group.throughput(Throughput::Bytes(page.len() as u64));
    group.bench_function("rewrite a page of 100 KiB", |b| {
        b.iter(|| {
            let base = Base::new(true, "shop.example", "/cart?a=1").expect("an address");
            let mut rewriter = PageRewriter::new(base, charset, "sessionId", TOKEN).expect("a rewriter");
            for part in black_box(&page).chunks(PART) {
                black_box(rewriter.write(part).expect("a page"));
            }
            rewriter.end().expect("a page")
        });
    });
    group.finish();
    let base = Base::new(true, "shop.example", "/cart?a=1").expect("an address");
    c.bench_function("links/one link", |b| b.iter(|| base.rewrite(black_box("/item/1?size=l"), "sessionId", TOKEN)));
}

criterion_group!(benches, links);
criterion_main!(benches);
