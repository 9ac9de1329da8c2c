//! A client without cookies: it reads HTML by the standard's rules and follows what it finds, links, frames, forms and
//! redirects, as a browser with cookies turned off does.

use html5gum::{StartTag, Token, Tokenizer};
use url::Url;
use url::form_urlencoded::Serializer;

use super::super::{Browser, Response};

/// What the visitor calls the site; its own connections go to the proxy.
const SITE: &str = "http://example.test";

/// A browser without cookies that walks through a site.
#[derive(Debug)]
pub(crate) struct Visitor {
    browser: Browser,
}

/// A page as it was read.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) url: Url,
    pub(crate) answer: Response,
    /// The redirects on the way to it.
    pub(crate) redirects: Vec<Response>,
    links: Vec<Link>,
    forms: Vec<Form>,
}

/// An `a`, `area`, `iframe` or the like.
#[derive(Debug)]
struct Link {
    id: String,
    address: String,
}

#[derive(Debug)]
struct Form {
    id: String,
    post: bool,
    action: Option<String>,
    fields: Vec<(String, String)>,
}

impl Visitor {
    pub(crate) fn new(browser: Browser) -> Self {
        Self { browser }
    }

    /// Types an address in.
    #[track_caller]
    pub(crate) fn open(&self, path: &str) -> Page {
        self.go("GET", Url::parse(SITE).and_then(|site| site.join(path)).expect("an address"), None)
    }

    /// Clicks the link of that id, or loads the frame.
    #[track_caller]
    pub(crate) fn follow(&self, page: &Page, id: &str) -> Page {
        self.go("GET", page.resolve(page.address_of(id)), None)
    }

    /// Sends the form of that id with its own fields and these.
    #[track_caller]
    pub(crate) fn submit(&self, page: &Page, id: &str, fields: &[(&str, &str)]) -> Page {
        let form = page.forms.iter().find(|form| form.id == id);
        let form = form.unwrap_or_else(|| panic!("there is no form {id}: {}", page.answer.text()));
        let own = form.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let filled = |name: &str| fields.iter().any(|(n, _)| *n == name);
        let all: Vec<_> = own.filter(|(name, _)| !filled(name)).chain(fields.iter().copied()).collect();
        let sent = Serializer::new(String::new()).extend_pairs(all).finish();
        let mut url = form.action.as_ref().map_or_else(|| page.url.clone(), |action| page.resolve(action));
        if form.post {
            return self.go("POST", url, Some(sent));
        }
        url.set_query(Some(&sent)); // what the action's own query said is lost: the standard wants it so
        self.go("GET", url, None)
    }

    #[track_caller]
    fn go(&self, method: &str, mut url: Url, form: Option<String>) -> Page {
        let mut answer = self.ask(method, &url, form);
        let mut redirects = Vec::new();
        while let 301..=303 = answer.status {
            assert!(redirects.len() < 5, "redirects without end: {redirects:?}");
            url = url.join(answer.header("location").expect("where a redirect leads")).expect("an address");
            redirects.push(answer);
            answer = self.ask("GET", &url, None);
        }
        Page::read(url, answer, redirects)
    }

    #[track_caller]
    fn ask(&self, method: &str, url: &Url, form: Option<String>) -> Response {
        assert!(url.as_str().starts_with(SITE), "{url} leads to another site");
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let request = self.browser.request(method, target).without_cookies();
        let request = request.header("Accept", "text/html").header("Accept-Encoding", "identity");
        match form {
            Some(form) => request.header("Content-Type", "application/x-www-form-urlencoded").body(form).send(),
            None => request.send(),
        }
    }
}

impl Page {
    fn read(url: Url, answer: Response, redirects: Vec<Response>) -> Self {
        let mut page = Self { url, redirects, links: Vec::new(), forms: Vec::new(), answer: Response::default() };
        for token in Tokenizer::new(answer.body.as_slice()) {
            if let Token::StartTag(tag) = token.expect("memory is always readable") {
                page.take(&tag);
            }
        }
        page.answer = answer;
        page
    }

    fn take(&mut self, tag: &StartTag<()>) {
        let id = attribute(tag, "id").unwrap_or_default();
        match tag.name.0.as_slice() {
            b"a" | b"area" => self.links.extend(attribute(tag, "href").map(|address| Link { id, address })),
            b"iframe" | b"frame" => self.links.extend(attribute(tag, "src").map(|address| Link { id, address })),
            b"form" => self.forms.push(Form {
                id,
                post: attribute(tag, "method").is_some_and(|method| method.eq_ignore_ascii_case("post")),
                action: attribute(tag, "action"),
                fields: Vec::new(),
            }),
            b"input" => {
                let field = attribute(tag, "name").zip(Some(attribute(tag, "value").unwrap_or_default()));
                if let (Some(form), Some(field)) = (self.forms.last_mut(), field) {
                    form.fields.push(field);
                }
            }
            _ => {}
        }
    }

    /// What stands in the link of that id, references resolved.
    #[track_caller]
    pub(crate) fn address_of(&self, id: &str) -> &str {
        let link = self.links.iter().find(|link| link.id == id);
        &link.unwrap_or_else(|| panic!("there is no link {id}: {}", self.answer.text())).address
    }

    /// Asserts the status, showing the page when it is another.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.answer.status, status, "another status was expected: {:?} {:?}", self.url, self.answer.text());
        self
    }

    #[track_caller]
    fn resolve(&self, address: &str) -> Url {
        self.url.join(address).unwrap_or_else(|e| panic!("{address:?} is no address: {e}"))
    }
}

fn attribute(tag: &StartTag<()>, name: &str) -> Option<String> {
    let value = tag.attributes.get(name.as_bytes())?;
    Some(String::from_utf8_lossy(&value.value.0).into_owned())
}
