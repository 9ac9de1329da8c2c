//! A small application of pages under `/desk` with links to a desk in this server's memory: every kind of link, form and
//! redirect within the site, and some to other sites, which must not change.

use std::fmt::Write as _;
use std::io;
use std::sync::atomic::Ordering;

use super::super::http1::Reader;
use super::answers::{Asked, Next, plain};
use super::{Shared, lock};

/// The links of a desk's page that must arrive as they were written.
pub(crate) const LEFT_ALONE: [(&str, &str); 4] = [
    ("elsewhere", "https://elsewhere.test/desk?x=1&y=2#z"),
    ("no-scheme", "//elsewhere.test/desk"),
    ("mail", "mailto:desk@example.test"),
    ("here", "#top"),
];

const LOGIN: &str = "<!DOCTYPE html><title>Desks</title>
<form id=login method=post action=\"/desk/login\"><input name=name><input type=hidden name=from value=door></form>
";

impl Shared {
    /// The pages under `/desk`. `name=` and `from=` in a request's body are not checked: every log-in succeeds.
    pub(super) fn desk(&self, reader: &mut Reader, asked: &Asked<'_>, path: &str) -> io::Result<Next> {
        let mut steps = path.trim_start_matches("/desk").split('/').skip(1);
        match (steps.next(), steps.next()) {
            (None, _) => html(reader, 200, LOGIN, &[]),
            (Some("login"), _) => {
                let desk = self.new_desk();
                html(reader, 303, "", &[&format!("Location: /desk/{desk}")])
            }
            (Some(desk), step) => match self.visit_desk(desk) {
                None => html(
                    reader,
                    410,
                    &format!("<p>No desk {desk} on {}\n<a id=door href=/desk>the door</a>", self.name),
                    &[],
                ),
                Some(_) if step == Some("take") => {
                    html(reader, 302, "", &[&format!("Location: http://example.test/desk/{desk}?taken#list")])
                }
                Some(visits) => html(reader, 200, &page(desk, &self.name, visits, step, asked.parameter("q")), &[]),
            },
        }
    }

    fn new_desk(&self) -> String {
        let mut sessions = lock(&self.sessions);
        let desk = format!("{}-{}-{}", self.name, self.life.load(Ordering::SeqCst), sessions.len());
        sessions.insert(desk.clone(), 0);
        desk
    }

    /// How often the desk was visited, when it is one of this server's.
    fn visit_desk(&self, desk: &str) -> Option<u64> {
        let mut sessions = lock(&self.sessions);
        let visits = sessions.get_mut(desk)?;
        *visits += 1;
        Some(*visits)
    }
}

fn page(desk: &str, server: &str, visits: u64, step: Option<&str>, asked: Option<&str>) -> String {
    let step = step.unwrap_or("desk");
    let asked = asked.unwrap_or("nothing");
    let mut others = String::new();
    for (id, address) in LEFT_ALONE {
        let _ = writeln!(others, "<a id={id} href=\"{}\">elsewhere</a>", address.replace('&', "&amp;"));
    }
    format!(
        "<!DOCTYPE html><title>Desk</title>
<p>server={server} visits={visits} step={step} asked={asked}
<a id=look href=\"/desk/{desk}/look?a=1&amp;b=2#end\">a path with a query</a>
<A ID=near HREF='../desk/{desk}/near'>a relative path</A>
<a id=whole href=http://example.test/desk/{desk}>the whole address</a>
<a id=take href=\"/desk/{desk}/take\">a redirect</a>
<iframe id=side src=\"/desk/{desk}/side\"></iframe>
{others}<form id=find action=\"/desk/{desk}/find\"><input name=q></form>
<form id=note method=POST action=\"/desk/{desk}/note?draft=1\"><input name=text></form>
"
    )
}

fn html(reader: &mut Reader, status: u16, body: &str, lines: &[&str]) -> io::Result<Next> {
    plain(reader, status, "text/html; charset=utf-8", body, lines)
}
