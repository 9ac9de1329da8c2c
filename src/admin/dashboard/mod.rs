//! The dashboard: static files in the binary. What they show they read from the API, with the token of the person who looks.

/// A file of the dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asset {
    /// Its media type.
    pub(super) content_type: &'static str,
    /// Its text.
    pub(super) text: &'static str,
}

/// What the page may do: run its own scripts and talk to its own proxy, nothing else, in no other page's frame.
pub(super) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                                                  img-src 'self' data:; base-uri 'none'; form-action 'none'; \
                                                  frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Each file with its path.
const ASSETS: &[(&str, Asset)] = &[
    ("/", Asset { content_type: HTML, text: include_str!("index.html") }),
    ("/dashboard/style.css", Asset { content_type: CSS, text: include_str!("style.css") }),
    ("/dashboard/main.js", Asset { content_type: SCRIPT, text: include_str!("main.js") }),
    ("/dashboard/api.js", Asset { content_type: SCRIPT, text: include_str!("api.js") }),
    ("/dashboard/dom.js", Asset { content_type: SCRIPT, text: include_str!("dom.js") }),
    ("/dashboard/metrics.js", Asset { content_type: SCRIPT, text: include_str!("metrics.js") }),
    ("/dashboard/readings.js", Asset { content_type: SCRIPT, text: include_str!("readings.js") }),
    ("/dashboard/overview.js", Asset { content_type: SCRIPT, text: include_str!("overview.js") }),
    ("/dashboard/server.js", Asset { content_type: SCRIPT, text: include_str!("server.js") }),
    ("/dashboard/sessions.js", Asset { content_type: SCRIPT, text: include_str!("sessions.js") }),
    ("/dashboard/events.js", Asset { content_type: SCRIPT, text: include_str!("events.js") }),
    ("/dashboard/configuration.js", Asset { content_type: SCRIPT, text: include_str!("configuration.js") }),
];

/// The file at a path.
pub(super) fn asset(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|(own, _)| *own == path).map(|(_, asset)| asset)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts between quotes behind a word.
    fn quoted<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
        text.split(before).skip(1).filter_map(|rest| rest.split('"').next())
    }

    #[test]
    fn every_file_that_the_page_loads_is_there() {
        let page = asset("/").unwrap().text;
        for path in quoted(page, "href=\"/dashboard").chain(quoted(page, "src=\"/dashboard")) {
            assert!(asset(&format!("/dashboard{path}")).is_some(), "{path}");
        }
        for (from, script) in ASSETS.iter().filter(|(_, asset)| asset.content_type == SCRIPT) {
            for path in quoted(script.text, "from \"./") {
                assert!(asset(&format!("/dashboard/{path}")).is_some(), "{from} imports {path}");
            }
        }
    }

    #[test]
    fn no_file_asks_another_host_or_carries_code_in_its_markup() {
        for (path, asset) in ASSETS {
            let outside = ["https://", "http://", "//cdn"].iter().filter(|mark| asset.text.contains(**mark));
            let allowed = "http://www.w3.org/2000/svg";
            assert!(outside.filter(|_| !asset.text.contains(allowed)).count() == 0, "{path}");
            for mark in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "document.write", " style=\"", "onclick=\""]
            {
                assert!(!asset.text.contains(mark), "{path}: {mark}");
            }
        }
    }
}
