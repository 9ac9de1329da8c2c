//! Chromium, as somebody who looks at a page uses it.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{CHROMIUM, Driver};

/// One page in one browser.
#[derive(Debug)]
pub(crate) struct Chromium(Driver);

impl Chromium {
    /// Starts the browser; it may ask this origin only.
    pub(crate) fn start(origin: &str) -> Self {
        let names = ["chromium", "chromium-browser", "google-chrome"];
        let directories: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
        let found =
            names.iter().flat_map(|name| directories.iter().map(move |at| at.join(name))).find(|at| at.exists());
        let program = found.expect("chromium on the PATH: run `scripts/test-apps` or `make test`");
        let mut driver = Driver::start(CHROMIUM, &[&program.to_string_lossy(), origin]);
        driver.wait_for("started");
        Self(driver)
    }

    #[track_caller]
    fn run(&mut self, command: &Value) -> Value {
        self.0.ask(command, "done")
    }

    /// Opens a view by its address.
    #[track_caller]
    pub(crate) fn open(&mut self, view: &str) {
        self.run(&json!({"do": "open", "view": view}));
    }

    #[track_caller]
    pub(crate) fn click(&mut self, role: &str, name: &str) {
        self.run(&json!({"do": "click", "role": role, "name": name}));
    }

    #[track_caller]
    pub(crate) fn fill(&mut self, label: &str, value: &str) {
        self.run(&json!({"do": "fill", "label": label, "value": value}));
    }

    #[track_caller]
    pub(crate) fn choose(&mut self, label: &str, value: &str) {
        self.run(&json!({"do": "choose", "label": label, "value": value}));
    }

    #[track_caller]
    pub(crate) fn press(&mut self, key: &str) {
        self.run(&json!({"do": "press", "key": key}));
    }

    /// Waits until the text can be seen.
    #[track_caller]
    pub(crate) fn see(&mut self, text: &str) {
        self.run(&json!({"do": "see", "text": text}));
    }

    /// How many elements of that role and name there are.
    #[track_caller]
    pub(crate) fn count(&mut self, role: &str, name: &str) -> u64 {
        self.run(&json!({"do": "count", "role": role, "name": name}))["count"].as_u64().expect("a number")
    }

    #[track_caller]
    pub(crate) fn text(&mut self, selector: &str) -> String {
        self.run(&json!({"do": "text", "selector": selector}))["text"].as_str().unwrap_or_default().to_owned()
    }

    /// The cell of a table: in the row with that heading, below that title.
    #[track_caller]
    pub(crate) fn cell(&mut self, heading: &str, title: &str) -> String {
        let cells = &self.run(&json!({"do": "row", "heading": heading}))["cells"];
        cells[title].as_str().unwrap_or_default().to_owned()
    }

    /// What has the keyboard's focus.
    #[track_caller]
    pub(crate) fn focused(&mut self) -> String {
        self.run(&json!({"do": "focused"}))["text"].as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    pub(crate) fn view(&mut self, width: u32, scheme: &str) {
        self.run(&json!({"do": "view", "width": width, "height": 900, "scheme": scheme}));
    }

    /// Nothing reaches beyond the window, axe-core finds nothing at all. Where everything can be seen at once, it can judge all.
    #[track_caller]
    pub(crate) fn assert_accessible(&mut self, what: &str, all_visible: bool) {
        let found = self.run(&json!({"do": "inspect"}));
        assert_eq!(found["violations"], json!([]), "{what}");
        assert!(!all_visible || found["incomplete"] == json!([]), "{what} is not judged: {}", found["incomplete"]);
        assert_eq!(found["overflow"], 0, "{what}: pixels beyond the window");
    }

    /// The page wrote no error and asked no other host.
    #[track_caller]
    pub(crate) fn assert_no_problems(&mut self) {
        assert_eq!(self.run(&json!({"do": "problems"}))["problems"], json!([]));
    }

    #[track_caller]
    pub(crate) fn screenshot(&mut self, path: &str) {
        self.run(&json!({"do": "screenshot", "path": path}));
    }
}
