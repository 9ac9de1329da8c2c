//! Every file of conf/ is more than an example: the proxy starts with it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::world::proxy::command;
use crate::world::tls::Authority;
use crate::world::{Conf, Launch, Proxy, World};

fn conf_directory() -> PathBuf {
    let root =
        std::env::var_os("HOMING_SOURCE").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    root.join("conf")
}

fn yaml_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display())) {
        let path = entry.expect("an entry").path();
        // What is there is for Prometheus: the tests of alerts read it.
        if path.ends_with("observability") {
            continue;
        }
        if path.is_dir() {
            yaml_files(&path, found);
        } else if path.extension().is_some_and(|end| end == "yaml" || end == "yml") {
            found.push(path);
        }
    }
}

/// The text with everything that this machine may not have replaced: addresses by free ones of the loopback interface,
/// places on the disk by the test's directory, secrets by one of the right length.
fn at_home(text: &str, environment: &mut crate::world::Environment) -> (String, Vec<(String, String)>) {
    let directory = environment.directory().display().to_string();
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut lines = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let mut done = String::new();
        let mut rest = line.split_once(" #").map_or(line, |(code, _)| code);
        while let Some((before, after)) = rest.split_once("address: ") {
            let end = after.find([',', '}', ' ']).unwrap_or(after.len());
            let value = after[..end].trim_matches('"').to_owned();
            let count = known.len();
            let replaced = known.entry(value.clone()).or_insert_with(|| match value.strip_prefix("unix:") {
                Some(_) => format!("unix:{directory}/socket-{count}"),
                None => environment.address(&format!("proxy-{value}")).to_string(),
            });
            done.push_str(&format!("{before}address: \"{replaced}\""));
            rest = &after[end..];
        }
        lines.push(format!("{done}{rest}"));
    }
    let mut text = lines.join("\n") + "\n";
    text = text.replace("https://acme-v02.api.letsencrypt.org/", "https://127.0.0.1:9/");
    for place in ["/run/", "/var/", "/etc/"] {
        for before in [" ", "\"", ":"] {
            text = text.replace(&format!("{before}{place}"), &format!("{before}{directory}/"));
        }
    }
    for (at, _) in text.match_indices("${file:") {
        let path = &text[at + 7..at + text[at..].find('}').expect("a closing brace")];
        assert!(path.starts_with(&directory), "{path} is not in the test's directory");
        fs::create_dir_all(Path::new(path).parent().expect("a directory")).expect("a directory");
        fs::write(path, "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").expect("a secret");
    }
    let names = text
        .match_indices("${")
        .map(|(at, _)| text[at + 2..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect());
    let secrets = names.filter(|name: &String| name != "file" && name != "HOSTNAME" && !name.is_empty()).enumerate();
    let variables =
        secrets.map(|(n, name)| (name, format!("{n}ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA="))).collect();
    (text, variables)
}

#[test]
fn the_proxy_starts_with_every_file_of_conf() {
    let mut files = Vec::new();
    yaml_files(&conf_directory(), &mut files);
    files.sort();
    assert!(files.len() >= 2, "conf/ has a minimal file, a reference and examples: {files:?}");
    for path in &files {
        let mut environment = World::builder(Conf::servers("")).without_proxy();
        let (mut text, variables) = at_home(&fs::read_to_string(path).expect("a readable file"), &mut environment);
        if !text.lines().any(|line| line.starts_with("admin:")) {
            text.push_str(&format!("admin: {{ address: \"{}\" }}\n", environment.address("admin")));
        }
        let admin = admin_address(&text)
            .unwrap_or_else(|| panic!("{}: no address of the admin listener in:\n{text}", path.display()));
        let launch = environment.launch("");
        fs::write(&launch.config, &text).expect("the file");
        if text.contains("tls/ca.pem") {
            let (authority, directory) = (Authority::new(), environment.directory().join("tls"));
            fs::create_dir_all(&directory).expect("a directory");
            authority.write(&directory, "ca");
            authority.issue(&directory, "edge", &["edge"]);
        }
        if ["type: redis", "type: memcached", "type: ignite"].iter().any(|shared| text.contains(shared)) {
            let check = command().arg("check").arg("--config").arg(&launch.config).envs(variables).output();
            let check = check.expect("the program runs");
            assert!(check.status.success() && check.stderr.is_empty(), "{}: {check:?}", path.display());
            continue;
        }
        let launch = Launch { admin: admin.as_str().into(), environment: variables, ..launch };
        let proxy = Proxy::start(&launch, environment.directory());
        assert!(proxy.metrics().has("homing_build_info", &[]), "{}", path.display());
        proxy.stop();
    }
}

/// The address in the file's `admin:` section.
fn admin_address(text: &str) -> Option<String> {
    let at = text.lines().position(|line| line.starts_with("admin:"))?;
    let section = text.lines().skip(at).take_while({
        let mut first = true;
        move |line| std::mem::take(&mut first) || line.starts_with([' ', '#']) || line.is_empty()
    });
    let line = section.into_iter().find(|line| line.contains("address: "))?;
    let value = line.split_once("address: ")?.1;
    Some(value.trim_start_matches('"').split('"').next()?.to_owned())
}
