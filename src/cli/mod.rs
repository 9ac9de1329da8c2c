//! The command line. Messages go to standard error, data to standard output.

mod explain;
mod run;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use rand::RngCore;

use crate::app::build::{BuildError, Materials, build};
use crate::config::{self, Config, Loaded, Problems};
use crate::store::local::table::Table;
use crate::telemetry::metrics::Metrics;

/// Failed while running.
const FAILED: u8 = 1;
/// Invalid configuration: `EX_CONFIG` of sysexits.h.
const BAD_CONFIG: u8 = 78;

/// An HTTP edge proxy that brings every session home.
#[derive(Debug, Parser)]
#[command(name = "homing", version, disable_help_subcommand = true, arg_required_else_help = true)]
pub struct Cli {
    /// Check the configuration, as `homing check`
    #[arg(short = 't', long = "test", requires = "config")]
    test: bool,
    /// The configuration file
    #[arg(short = 'c', long, value_name = "FILE", env = "HOMING_CONFIG", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run in the foreground, with a configuration file or with servers named here
    Run(RunArgs),
    /// Report all problems of a configuration file; prints nothing when there are none
    Check,
    /// Three small stateful sample servers, the proxy before them, and what to try
    Demo(DemoArgs),
    /// Show the configuration's schema, an example, or what a file amounts to
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// Keys that seal tokens
    Keys {
        #[command(subcommand)]
        what: KeysCommand,
    },
    /// What a token says: pool, server, epoch, times and key; or why it does not open
    Explain {
        /// The cookie's value, or `-` to read it from standard input
        token: String,
    },
    /// The version of this program
    Version,
    /// A completion script for a shell, on standard output
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
struct RunArgs {
    /// A server, as NAME=ADDRESS; repeatable. Instead of a file: one pool with the defaults
    #[arg(long, value_name = "NAME=ADDRESS")]
    to: Vec<String>,
    /// Where to listen, with --to
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: String,
    /// Where probes and metrics are, with --to
    #[arg(long, value_name = "ADDRESS", default_value = crate::demo::DEFAULT_ADMIN)]
    admin: String,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// Where the proxy listens; another port is taken when this one is
    #[arg(long, value_name = "ADDRESS", default_value = crate::demo::DEFAULT_LISTEN)]
    listen: String,
    /// Where its probes and metrics are; another port is taken when this one is
    #[arg(long, value_name = "ADDRESS", default_value = crate::demo::DEFAULT_ADMIN)]
    admin: String,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// The JSON Schema of the file, for editors
    Schema,
    /// A file with every key, its default and its meaning
    Example,
    /// The effective configuration, defaults filled in, secrets masked
    Show,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// A new key, as YAML to paste
    Generate,
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    if cli.test {
        return check(cli.config.as_deref());
    }
    let Some(command) = cli.command else {
        return usage("a command is missing; `homing --help` lists them");
    };
    match command {
        Command::Run(args) if !args.to.is_empty() => {
            // A file named in the environment is no contradiction; one named beside --to is.
            let sub = matches.subcommand().map(|(_, sub)| sub);
            let named = sub.and_then(|sub| sub.value_source("config")) == Some(ValueSource::CommandLine);
            if named { usage("--to is instead of a file: give --to or --config") } else { run::quick(&args) }
        }
        Command::Run(_) => run::run(cli.config.as_deref()),
        Command::Check => check(cli.config.as_deref()),
        Command::Demo(args) => run::demo(&args.listen, &args.admin),
        Command::Config { what } => show(&what, cli.config.as_deref()),
        Command::Keys { what: KeysCommand::Generate } => {
            say(&new_key());
            ExitCode::SUCCESS
        }
        Command::Explain { token } => explain::explain(&token, cli.config.as_deref()),
        Command::Version => {
            say(concat!("homing ", env!("CARGO_PKG_VERSION"), "\n"));
            ExitCode::SUCCESS
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "homing", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
    }
}

/// Data for standard output. A reader that has gone (`| head`) is no error of ours.
fn say(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// A message for standard error.
#[expect(clippy::print_stderr, reason = "messages go to standard error")]
fn complain(text: &str) {
    eprintln!("{text}");
}

fn usage(message: &str) -> ExitCode {
    complain(&format!("error: {message}"));
    ExitCode::from(2)
}

/// Loads a file and builds it, as a start would, without listening.
fn load(path: Option<&Path>) -> Result<Loaded, ExitCode> {
    let Some(path) = path else {
        return Err(usage("no configuration: name the file with --config FILE or in HOMING_CONFIG"));
    };
    let loaded = Config::load(path).map_err(|problems| report(&problems))?;
    try_build(&loaded.config).map_err(|error| {
        complain(&format!("error: {error}\n --> {}", path.display()));
        ExitCode::from(BAD_CONFIG)
    })?;
    Ok(loaded)
}

/// What `check` and a start have in common: what cannot be built is found here.
fn try_build(config: &Config) -> Result<(), Box<dyn std::error::Error>> {
    let metrics = Metrics::new()?;
    let table = Table::new(1, crate::proxy::context::wall_clock(), Box::new(|_, _| {}));
    let made_keys = crate::session::token::keyring::Keyring::random([0; 32]).map_err(BuildError::from)?;
    let materials = Materials { table: &table, metrics: &metrics, made_keys: &made_keys, former: None };
    build(config.clone(), &materials)?;
    Ok(())
}

fn report(problems: &Problems) -> ExitCode {
    complain(&problems.render(colour_wanted()));
    ExitCode::from(BAD_CONFIG)
}

fn colour_wanted() -> bool {
    use std::io::IsTerminal;
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn check(path: Option<&Path>) -> ExitCode {
    match load(path) {
        Ok(_) => ExitCode::SUCCESS,
        Err(code) => code,
    }
}

fn show(what: &ConfigCommand, path: Option<&Path>) -> ExitCode {
    match what {
        ConfigCommand::Schema => say(&config::schema()),
        ConfigCommand::Example => say(config::example()),
        ConfigCommand::Show => match load(path) {
            Ok(loaded) => say(&loaded.effective),
            Err(code) => return code,
        },
    }
    ExitCode::SUCCESS
}

/// 256 random bits, and a name that sorts by day.
fn new_key() -> String {
    let mut secret = [0; 32];
    rand::rngs::OsRng.fill_bytes(&mut secret);
    let now = std::time::UNIX_EPOCH + std::time::Duration::from_millis(crate::proxy::context::wall_clock().0);
    let day: String =
        humantime::format_rfc3339_seconds(now).to_string().chars().take(10).filter(|c| *c != '-').collect();
    format!(
        "# Put it first to seal with it; keep the older ones below until their sessions have ended (absolute_timeout).\n\
         # Better than the secret itself: ${{NAME}} or ${{file:/run/secrets/homing-key}}.\n\
         keys:\n  - {{ id: k{day}, secret: \"{}\" }}\n",
        URL_SAFE_NO_PAD.encode(secret)
    )
}
