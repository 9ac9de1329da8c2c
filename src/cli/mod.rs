//! The command line. Messages go to standard error, data to standard output.

mod admin;
mod args;
mod explain;
mod load;
mod output;
mod run;

use std::path::Path;
use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use rand::RngCore;

use crate::config;
use crate::proxy::context::wall_clock;

use self::admin::explain::Question;
use self::args::{Cli, Command, ConfigCommand, ExplainArgs, KeysCommand};
use self::load::{load, print_warnings};
use self::output::{INVALID_CONFIG, failure, print, usage};

/// Parses the command line and runs its command.
pub fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    if cli.test {
        return check(cli.config.as_deref(), false);
    }
    let Some(command) = cli.command else {
        return usage("no command; `homing --help` lists them");
    };
    match command {
        Command::Run(args) if !args.to.is_empty() => {
            // A file in HOMING_CONFIG is overruled by --to; --config together with --to is an error.
            if is_argument(&matches, "config") {
                usage("--to replaces the file: use --to or --config, not both")
            } else {
                run::quick(&args)
            }
        }
        Command::Run(args) => run::run(cli.config.as_deref(), args.upgrade),
        Command::Check { strict } => check(cli.config.as_deref(), strict),
        Command::Demo(args) => run::demo(args.application, &args.listen, &args.admin),
        Command::Config { what } => show(&what, cli.config.as_deref()),
        Command::Keys { what: KeysCommand::Generate } => {
            print(&new_key());
            ExitCode::SUCCESS
        }
        Command::Explain(args) => explain_session(&args, &matches, cli.config.as_deref()),
        Command::Admin(command) => admin::run(&command),
        Command::Version => {
            print(concat!("homing ", env!("CARGO_PKG_VERSION"), "\n"));
            ExitCode::SUCCESS
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "homing", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Command::Man { command } => man(&command),
    }
}

/// The file is asked when it is named on the command line, or when no proxy is named anywhere.
fn explain_session(args: &ExplainArgs, matches: &ArgMatches, config: Option<&Path>) -> ExitCode {
    let [admin, file] = ["admin", "config"].map(|name| is_argument(matches, name));
    if admin && file {
        return usage("--admin asks the running proxy, --config the file: use one of them");
    }
    let names_proxy = admin || source(matches, "admin") == Some(ValueSource::EnvVariable);
    if file || (!names_proxy && config.is_some()) {
        return explain::explain(args, config);
    }
    let question = Question {
        argument: args.value.as_deref(),
        is_id: args.id,
        pool: args.pool.as_deref(),
        client: (args.certificate.as_deref(), args.user.as_deref()),
    };
    admin::explain(question, &args.client)
}

/// Whether the command line itself, not the environment, has the argument.
fn is_argument(matches: &ArgMatches, name: &str) -> bool {
    source(matches, name) == Some(ValueSource::CommandLine)
}

fn source(matches: &ArgMatches, name: &str) -> Option<ValueSource> {
    matches.subcommand().and_then(|(_, sub)| sub.value_source(name))
}

fn man(names: &[String]) -> ExitCode {
    let mut root = Cli::command();
    root.build();
    let mut command = &root;
    for name in names {
        match command.find_subcommand(name) {
            Some(found) => command = found,
            None => return usage(&format!("no command {name:?}; `homing --help` lists them")),
        }
    }
    let mut page = Vec::new();
    match clap_mangen::Man::new(command.clone()).render(&mut page) {
        Ok(()) => {
            print(&String::from_utf8_lossy(&page));
            ExitCode::SUCCESS
        }
        Err(error) => failure(&error.to_string()),
    }
}

fn check(path: Option<&Path>, strict: bool) -> ExitCode {
    match load(path) {
        Ok(loaded) if strict && !loaded.warnings.is_empty() => {
            print_warnings(&loaded.warnings);
            ExitCode::from(INVALID_CONFIG)
        }
        Ok(loaded) => {
            print_warnings(&loaded.warnings);
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}

fn show(what: &ConfigCommand, path: Option<&Path>) -> ExitCode {
    match what {
        ConfigCommand::Schema => print(&config::schema()),
        ConfigCommand::Example => print(config::example()),
        ConfigCommand::Show => match load(path) {
            Ok(loaded) => print(&loaded.effective()),
            Err(code) => return code,
        },
    }
    ExitCode::SUCCESS
}

/// 256 random bits, and an id that sorts by day.
fn new_key() -> String {
    let mut secret = [0; 32];
    rand::rngs::OsRng.fill_bytes(&mut secret);
    let now = std::time::UNIX_EPOCH + std::time::Duration::from_millis(wall_clock().0);
    let day: String =
        humantime::format_rfc3339_seconds(now).to_string().chars().take(10).filter(|c| *c != '-').collect();
    format!(
        "# The first key seals. Keep older keys below it until their sessions have ended (absolute_timeout).\n\
         # Better than the secret itself: ${{NAME}} or ${{file:/run/secrets/homing-key}}.\n\
         keys:\n  - {{ id: k{day}, secret: \"{}\" }}\n",
        URL_SAFE_NO_PAD.encode(secret)
    )
}
