//! How fast a page passes while its links are rewritten: bytes a second of a page with some three hundred links.

#![allow(clippy::unwrap_used, reason = "a bench that cannot be set up should stop")]
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::fmt::Write;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use homing::session::link::Base;
use homing::session::page::{PageRewriter, encoding_of};
use http::StatusCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As long as the longest token may be.
const TOKEN: &str =
    "AQ0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678";

fn page(links: usize) -> String {
    let mut page = "<!DOCTYPE html><html><head><title>Shop</title></head><body>".to_owned();
    for n in 0..links {
        let text = "A text that says something about this article, as pages of shops have many. ".repeat(3);
        let link = format!("<a class=\"title\" href=\"/article/{n}?from=list\">Article {n}</a>");
        let _ = writeln!(page, "<div class=\"article\">{link}<p>{text}</p></div>");
    }
    page + "</body></html>"
}

fn base() -> Base {
    Base::new(true, "shop.example.org", "/list?page=2").unwrap()
}

fn links(bench: &mut Criterion) {
    let encoding = encoding_of(StatusCode::OK, Some("text/html; charset=utf-8"), false).unwrap();
    let with_links = page(300);
    let without_links = with_links.replace("<a ", "<b ").replace("</a>", "</b>");
    let mut group = bench.benchmark_group("page");
    for (name, page) in [("300 links", &with_links), ("no links", &without_links)] {
        group.throughput(Throughput::Bytes(page.len() as u64));
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let mut rewriter = PageRewriter::new(base(), encoding, "sessionId", TOKEN);
                for chunk in page.as_bytes().chunks(16 * 1024) {
                    black_box(rewriter.write(chunk));
                }
                black_box(rewriter.end())
            });
        });
    }
    group.finish();
    let base = base();
    bench.bench_function("link, relative", |bench| {
        bench.iter(|| base.rewritten(black_box("/article/1?from=list"), "sessionId", TOKEN));
    });
}

criterion_group!(benches, links);
criterion_main!(benches);
