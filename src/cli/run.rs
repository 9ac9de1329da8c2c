//! `run` and `demo`.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use crate::app::{self, Origin, RunError};
use crate::config::{Config, LoadedConfig, LogFormat, LogLevel, ProcessEnvironment};
use crate::demo::{Example, ExampleDemo};
use crate::telemetry::log;

use super::args::{DemoApplication, RunArgs};
use super::load::{load, report};
use super::output::{FAILED, failure, print, usage};

/// `run` with a file; with `upgrade` it takes over from the process that serves.
pub(super) fn run(path: Option<&Path>, upgrade: bool) -> ExitCode {
    let Some(path) = path else {
        return usage(
            "nothing to run: name a file with --config FILE, or servers with --to NAME=ADDRESS; `homing demo` needs neither",
        );
    };
    match load(Some(path)) {
        Ok(loaded) => start(loaded, &Origin::File(path.to_owned()), upgrade),
        Err(code) => code,
    }
}

/// `run` with servers named on the command line.
pub(super) fn quick(args: &RunArgs) -> ExitCode {
    let yaml = match quick_start(args) {
        Ok(yaml) => yaml,
        Err(message) => return usage(&message),
    };
    match Config::parse("command line", &yaml, &ProcessEnvironment) {
        Ok(loaded) => start(loaded, &Origin::CommandLine, false),
        Err(problems) => report(&problems),
    }
}

/// A configuration file of one pool with the defaults.
fn quick_start(args: &RunArgs) -> Result<String, String> {
    use std::fmt::Write;
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut yaml = format!(
        "version: 1\nlisteners:\n  - address: {}\nadmin: {{ address: {} }}\npools:\n  web:\n    servers:\n",
        quoted(&args.listen),
        quoted(&args.admin)
    );
    for server in &args.to {
        let (name, address) = server
            .split_once('=')
            .ok_or_else(|| format!("--to {server}: write NAME=ADDRESS, for example --to a=127.0.0.1:9001"))?;
        // Writing to a String does not fail.
        let _ = writeln!(yaml, "      - {{ name: {}, address: {} }}", quoted(name), quoted(address));
    }
    yaml.push_str("    persistence: {}\n");
    Ok(yaml)
}

fn start(loaded: LoadedConfig, origin: &Origin, upgrade: bool) -> ExitCode {
    let settings = &loaded.config.log;
    log::start(settings.level.into(), settings.format == LogFormat::Json, Some(&loaded.config.proxy.node));
    exit_code(app::run(loaded, origin, upgrade))
}

fn exit_code(result: Result<(), RunError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(FAILED)
        }
    }
}

pub(super) fn demo(application: DemoApplication, listen: &str, admin: &str) -> ExitCode {
    log::start(LogLevel::Warn.into(), false, None);
    let run = || match application {
        DemoApplication::Shop => try_demo(listen, admin),
        DemoApplication::Bank => try_example(Example::Bank, listen, admin),
        DemoApplication::Workspace => try_example(Example::Workspace, listen, admin),
    };
    match run() {
        Ok(code) => code,
        Err(error) => failure(&format!("the demo cannot start: {error}")),
    }
}

fn try_demo(listen: &str, admin: &str) -> std::io::Result<ExitCode> {
    let demo = Arc::new(crate::demo::start(crate::demo::DEFAULT_PORTS)?);
    let listen = crate::demo::free_address(listen)?;
    let admin = crate::demo::free_address(admin)?;
    let file = demo.config_file(&listen, &admin)?.to_owned();
    let loaded = match Config::load(&file) {
        Ok(loaded) => loaded,
        Err(problems) => return Ok(report(&problems)),
    };
    print(&demo.banner(&listen, &admin));
    demo.read_commands(print)?;
    demo.begin_visits(&listen);
    Ok(exit_code(app::run(loaded, &Origin::File(file), false)))
}

fn try_example(example: Example, listen: &str, admin: &str) -> std::io::Result<ExitCode> {
    let listen = crate::demo::free_address(listen)?;
    let admin = crate::demo::free_address(admin)?;
    let demo = Arc::new(ExampleDemo::start(example, &listen, &admin)?);
    let loaded = match Config::load(demo.config_file()) {
        Ok(loaded) => loaded,
        Err(problems) => return Ok(report(&problems)),
    };
    print(&demo.banner());
    demo.watch(print)?;
    Ok(exit_code(app::run(loaded, &Origin::File(demo.config_file().to_owned()), false)))
}
