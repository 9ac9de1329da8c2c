//! The configuration as a whole: files of `conf/` and of `tests/data/config/`, and hostile input.

use std::path::Path;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

mod references;
mod suggestions;

/// An environment of given variables.
pub(in crate::config) struct Fake(pub(in crate::config) Vec<(&'static str, &'static str)>);

impl Environment for Fake {
    fn variable(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    fn file(&self, path: &Path) -> Result<FileText, String> {
        if path.parent().is_some_and(|folder| folder.ends_with("tls")) {
            let name = path.file_name().unwrap().to_str().unwrap();
            let text = std::fs::read_to_string(path_of("tests/data/config/tls").join(name));
            let text = text.map_err(|_missing| "no such file".to_owned())?;
            return Ok(FileText { text, readable_by_others: name == "open.key" });
        }
        match path.to_str() {
            Some("/run/secrets/k1") => {
                Ok(FileText { text: "file-secret-of-k1\n".to_owned(), readable_by_others: true })
            }
            _ => Err("no such file".to_owned()),
        }
    }

    fn others_may_write(&self, directory: &Path) -> bool {
        directory == Path::new("/tmp")
    }

    fn takes_files(&self, directory: &Path) -> Result<(), String> {
        if directory == Path::new("/var/lib/homing") { Ok(()) } else { Err("no such directory".to_owned()) }
    }

    /// In the middle of 2030.
    fn now(&self) -> std::time::SystemTime {
        std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_908_057_600)
    }
}

/// The repository, wherever this source is built from.
fn root() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(Path::new(file!()));
    source
        .ancestors()
        .find(|folder| folder.join("conf/minimal.yaml").is_file())
        .expect("conf/minimal.yaml")
        .to_path_buf()
}

/// The YAML files of a folder; there must be some.
pub(in crate::config) fn yaml_files(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no file was found in {folder}");
    files
}

pub(in crate::config) fn path_of(file: &str) -> PathBuf {
    root().join(file)
}

pub(in crate::config) fn parse(text: &str) -> Result<LoadedConfig, Problems> {
    Config::parse("homing.yaml", text, &Fake(Vec::new()))
}

fn read(file: &str) -> String {
    std::fs::read_to_string(path_of(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn every_file_of_conf_loads_without_variables() {
    for folder in ["conf", "conf/examples", "tests/data/config/valid"] {
        for file in yaml_files(folder) {
            let text = std::fs::read_to_string(&file).unwrap();
            let loaded = Config::parse(&file.display().to_string(), &text, &Fake(Vec::new()));
            let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}"));
            // Relative paths begin where they did.
            let beside = file.with_file_name("shown.yaml").display().to_string();
            let keys = ["HOMING_KEY_K1", "HOMING_KEY_K2", "HOMING_KEY_2026_11", "HOMING_KEY_2026_10"];
            let mut environment = keys.map(|key| (key, "0123456789abcdef")).to_vec();
            let password = if text.contains("hunter2") { "hunter2" } else { "only-for-trying-it-out" };
            environment.extend([("HOMING_REDIS_PASSWORD", password), ("HOMING_IGNITE_PASSWORD", password)]);
            let again = Config::parse(&beside, loaded.effective(), &Fake(environment));
            let mut again = again.unwrap_or_else(|problems| panic!("{problems}")).config;
            again.keys.clone_from(&loaded.config.keys);
            again.hash.clone_from(&loaded.config.hash);
            assert_eq!(again, loaded.config, "{}: what is shown loads to the same", file.display());
        }
    }
}

#[test]
fn every_invalid_file_gets_the_message_next_to_it() {
    let update = std::env::var_os("UPDATE_ERR").is_some();
    for file in yaml_files("tests/data/config/invalid") {
        let name = file.file_name().unwrap().to_str().unwrap();
        let environment = Fake(vec![("NUMBER", "12"), ("WORD", "many"), ("SHORT", "tiny-secret")]);
        let problems = match Config::parse(name, std::fs::read(&file).unwrap(), &environment) {
            Err(problems) => problems.to_string() + "\n",
            Ok(_) => panic!("{name} was taken"),
        };
        assert!(!problems.contains("hunter2"), "{name} shows a secret:\n{problems}");
        let expected = file.with_extension("err");
        if update {
            std::fs::write(&expected, &problems).unwrap();
        }
        let expected =
            std::fs::read_to_string(&expected).unwrap_or_else(|error| panic!("{}: {error}", expected.display()));
        assert_eq!(problems, expected, "{name} (UPDATE_ERR=1 rewrites what is expected)");
    }
}

#[test]
fn the_reference_file_holds_nothing_but_defaults() {
    let reference = parse(example()).unwrap_or_else(|problems| panic!("{problems}")).config;
    let minimal = parse(&read("conf/minimal.yaml")).unwrap().config;
    assert_eq!(reference, minimal, "conf/reference.yaml says the same as conf/minimal.yaml");
}

#[test]
fn the_reference_file_names_every_key() {
    fn names(rule: schema::Rule, found: &mut Vec<&'static str>) {
        for (name, property) in rule.properties().filter(|(_, property)| !property.flag("x-hidden")) {
            found.push(name);
            names(property, found);
        }
        rule.items().into_iter().chain(rule.values()).chain(rule.alternatives()).for_each(|inner| names(inner, found));
    }
    let mut found = Vec::new();
    names(schema::Rule::root(), &mut found);
    assert!(found.len() > 80, "{}", found.len());
    let missing: Vec<_> = found.into_iter().filter(|name| !example().contains(&format!("{name}:"))).collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn defaults_are_those_of_the_contract() {
    let config = parse(&read("conf/minimal.yaml")).unwrap().config;
    let pool = &config.pools[0];
    let persistence = pool.persistence.as_ref().unwrap();
    assert_eq!(config.proxy.node, "edge");
    assert_eq!(config.proxy.threads, None);
    assert_eq!(config.listeners[0].max_header_size, 65_536);
    assert!(config.listeners[0].http1 && config.listeners[0].http2);
    assert_eq!((pool.retries.attempts, pool.retries.budget_percent), (2, 20));
    assert_eq!(persistence.sources, [SourceSettings::Cookie(crate::session::source::cookie::CookieSettings {})]);
    assert_eq!(persistence.absolute_timeout.as_secs(), 86_400);
    assert_eq!(persistence.cookie.cache_control.as_deref(), Some("private"));
    assert_eq!(config.admin.unwrap().address.to_string(), "127.0.0.1:9900");
    assert_eq!(config.metrics, None);
}

#[test]
fn null_admin_is_none_and_the_node_is_the_host_name() {
    let text = read("conf/minimal.yaml") + "admin: null\n";
    let config = Config::parse("f", &text, &Fake(vec![("HOSTNAME", "edge-7")])).unwrap().config;
    assert_eq!(config.admin, None);
    assert_eq!(config.proxy.node, "edge-7");
}

#[test]
fn an_expanded_value_gets_the_type_that_it_looks_like_unless_it_is_quoted() {
    let text = |weight: &str| {
        format!(
            "version: 1\nlisteners: [{{ address: '127.0.0.1:80' }}]\npools:\n  p:\n    servers:\n      - name: ${{NUMBER}}\n        address: a:1\n        weight: {weight}\n"
        )
    };
    let environment = Fake(vec![("NUMBER", "12")]);
    let server = Config::parse("f", text("${NUMBER}"), &environment).unwrap().config.pools[0].servers[0].clone();
    assert_eq!((server.name.as_str(), server.weight), ("12", 12));
    let problems = Config::parse("f", text("\"${NUMBER}\""), &environment).unwrap_err().to_string();
    assert!(problems.contains("write it without quotes"), "{problems}");
}

#[test]
fn same_site_none_makes_an_automatic_cookie_secure() {
    let text = read("conf/minimal.yaml").replace("persistence: {}", "persistence: { cookie: { same_site: none } }");
    let loaded = parse(&text).unwrap();
    assert_eq!(loaded.config.pools[0].persistence.as_ref().unwrap().cookie.secure, Secure::Always);
}

#[test]
fn a_default_yields_to_what_is_written() {
    let file = "version: 1\nlisteners: [{ address: '127.0.0.1:8080' }]\npools:\n  web:\n    servers: [{ name: a, address: '10.0.0.1:80' }]\n    \
         persistence: { absolute_timeout: 10m }\n    circuit_breaker: { ejection_time: 1h }\n    health_check: { interval: 200ms }\n";
    let loaded = parse(file).unwrap();
    let (config, effective, warnings) = (&loaded.config, loaded.effective(), &loaded.warnings);
    let pool = &config.pools[0];
    assert_eq!(pool.persistence.as_ref().unwrap().idle_timeout, std::time::Duration::from_secs(600));
    assert_eq!(pool.circuit_breaker.as_ref().unwrap().max_ejection_time, std::time::Duration::from_secs(3600));
    assert_eq!(warnings.len(), 1, "of the keys alone");
    let again = parse(&effective).unwrap_or_else(|problems| panic!("{problems}\n{effective}"));
    assert_eq!(again.config, *config);
}

#[test]
fn a_version_of_tls_needs_no_quotes() {
    let file = |version: &str| {
        format!(
            "version: 1\nlisteners: [{{ address: '127.0.0.1:8443', tls: {{ min_version: {version}, certificates: [] }} }}]\n\
             pools: {{ web: {{ servers: [{{ name: a, address: '10.0.0.1:80' }}] }} }}\n"
        )
    };
    let complains = |version: &str| parse(&file(version)).unwrap_err().to_string().contains("min_version\" cannot be");
    assert!(!complains("1.3") && !complains("'1.3'"));
    assert!(complains("1.1") && complains("1.20"));
}

#[test]
fn what_should_be_looked_at_is_a_warning() {
    for name in
        ["warnings", "tls", "tls-to-servers", "snapshot", "store", "store-hazelcast", "store-ignite", "store-unused"]
    {
        let text = read(&format!("tests/data/config/valid/{name}.yaml"));
        let loaded = parse(&text).unwrap_or_else(|problems| panic!("{problems}"));
        let shown: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
        let shown = shown.join("\n\n") + "\n";
        assert!(!shown.contains("hunter2"), "{shown}");
        let expected = path_of(&format!("tests/data/config/valid/{name}.txt"));
        if std::env::var_os("UPDATE_ERR").is_some() {
            std::fs::write(&expected, &shown).unwrap();
        }
        assert_eq!(shown, std::fs::read_to_string(expected).unwrap(), "{name}");
    }
}

#[test]
fn files_that_are_no_configuration_are_refused_with_a_reason() {
    let message =
        |bytes: &[u8]| Config::parse("f", bytes, &Fake(Vec::new())).unwrap_err().iter().next().unwrap().message.clone();
    assert_eq!(message(b""), "the file is empty");
    assert_eq!(message(b"\xef\xbb\xbfversion: 1\n"), "the file begins with a byte order mark");
    assert_eq!(message(b"version: 1\na: \0\n"), "the file holds a NUL byte, on line 2");
    assert_eq!(message(b"version: \xff\n"), "the file is not UTF-8, on line 1");
    assert_eq!(message(&vec![b'a'; 8 * 1024 * 1024 + 1]), "the file is larger than 8 MiB");
    assert_eq!(message(b"just text"), "the file needs a mapping, not text");
    let folder = tempfile::tempdir().unwrap();
    let missing = Config::load(&folder.path().join("none.yaml")).unwrap_err().to_string();
    assert!(missing.starts_with("error: cannot read the configuration: No such file"), "{missing}");
    let directory = Config::load(folder.path()).unwrap_err().to_string();
    assert!(directory.contains("name the file in it"), "{directory}");
    let huge = folder.path().join("huge.yaml");
    File::create(&huge).unwrap().set_len(100 << 20).unwrap();
    assert!(Config::load(&huge).unwrap_err().to_string().contains("larger than 8 MiB"));
}

#[test]
fn a_file_with_a_thousand_problems_shows_a_hundred_and_says_so() {
    let text = (0..1000).map(|n| format!("unknown{n}: 1")).collect::<Vec<_>>().join("\n");
    let problems = parse(&text).unwrap_err();
    assert_eq!(problems.iter().count(), 100);
    assert!(problems.to_string().ends_with("1003 problems; the first 100 are shown"), "{}", problems.count());
}

#[test]
fn hostile_files_of_a_megabyte_are_answered() {
    let million = 1024 * 1024 - 10;
    for text in ["[", "{", "- ", "a: ", "*", "&a ", "\"", "? ", "|\n", "!!", "%", "${", "a:\n", "{a: [", "#", "\n", "'"]
    {
        let text = text.repeat(million / text.len());
        assert!(parse(&text).is_err());
    }
}

/// Pieces that YAML and our grammar are made of: more of the interesting cases than random bytes reach.
fn piece() -> impl Strategy<Value = String> {
    let words: Vec<&'static str> = vec![
        "version: 1\n",
        "listeners:",
        "pools:",
        "servers:",
        "keys:",
        "secret:",
        "\n",
        "\n  ",
        "\n    ",
        "- ",
        "{ ",
        " }",
        "[",
        "]",
        ", ",
        "a: ",
        "&a ",
        "*a",
        "<<: ",
        "\"",
        "'",
        "|\n",
        "> ",
        "#",
        "${",
        "}",
        "$${",
        ":-",
        "file:",
        "30s",
        "64KiB",
        "-1",
        "null",
        "~",
        "true",
        "\t",
        "---\n",
        "!!str ",
        "%",
        "? ",
        ": ",
        "é",
        "\u{1f600}",
        "\u{85}",
        "\u{2028}",
        "\r\n",
        "127.0.0.1:1",
        "cookie:",
        "persistence:",
        "tls:",
    ];
    prop_oneof![8 => proptest::sample::select(words).prop_map(str::to_owned), 1 => any::<char>().prop_map(|c| c.to_string())]
}

fn is_inside(problems: &Problems, text: &str) {
    let lines: Vec<&str> = text.lines().collect();
    for problem in problems.iter() {
        let (Some(line), Some(column)) = (problem.line, problem.column) else { continue };
        let length = lines.get(line - 1).map_or(0, |line| line.chars().count());
        assert!(line <= lines.len().max(1) && column <= length + 1, "{line}:{column} in {text:?}");
        assert!(!problem.to_string().is_empty());
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        drop(Config::parse("f", bytes, &Fake(Vec::new())));
    }

    #[test]
    fn no_text_makes_it_panic_and_every_place_is_inside_the_file(pieces in proptest::collection::vec(piece(), 0..60)) {
        let text = pieces.concat();
        if let Err(problems) = parse(&text) {
            is_inside(&problems, &text);
        }
    }

    #[test]
    fn a_reference_file_with_one_line_broken_never_panics(line in 0usize..250, piece in piece()) {
        let mut lines: Vec<&str> = example().lines().collect();
        let at = line % lines.len();
        let broken = format!("{}{piece}", lines[at]);
        lines[at] = &broken;
        let text = lines.join("\n");
        if let Err(problems) = parse(&text) {
            is_inside(&problems, &text);
        }
    }
}
