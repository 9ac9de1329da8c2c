//! The command line's grammar and help texts.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// An HTTP edge proxy that brings every session home.
#[derive(Debug, Parser)]
#[command(name = "homing", version, arg_required_else_help = true)]
pub(super) struct Cli {
    /// Check the configuration, as `homing check`
    #[arg(short = 't', long = "test", requires = "config")]
    pub(super) test: bool,
    /// The configuration file
    #[arg(short = 'c', long, value_name = "FILE", env = "HOMING_CONFIG", global = true)]
    pub(super) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run in the foreground, with a configuration file or with servers from the command line
    Run(RunArgs),
    /// Check a configuration file and print all problems and warnings; prints nothing when there are none
    Check {
        /// Exit with 78 for warnings too
        #[arg(long)]
        strict: bool,
    },
    /// Start three small stateful sample servers with the proxy in front of them
    Demo(DemoArgs),
    /// Print the configuration's schema, an example, or the effective configuration
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// Manage the keys that seal tokens
    Keys {
        #[command(subcommand)]
        what: KeysCommand,
    },
    /// Print what a token contains, or what is known of an application's session id or of a client's address
    Explain(ExplainArgs),
    /// Print the version
    Version,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// A server, as NAME=ADDRESS; repeatable. Replaces the file: one pool with the defaults
    #[arg(long, value_name = "NAME=ADDRESS")]
    pub(super) to: Vec<String>,
    /// Address to listen on, with --to
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(super) listen: String,
    /// Address of probes and metrics, with --to
    #[arg(long, value_name = "ADDRESS", default_value = crate::demo::DEFAULT_ADMIN)]
    pub(super) admin: String,
}

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// A token (the cookie's value) or an address; without it, or with `-`, it is read from standard input. An application's
    /// session id is read from standard input only
    pub(super) value: Option<String>,
    /// Take the input for an application's session id, whatever it looks like
    #[arg(long)]
    pub(super) id: bool,
    /// Only in this pool
    #[arg(long, value_name = "NAME")]
    pub(super) pool: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Address of the proxy; another port is used if this one is taken
    #[arg(long, value_name = "ADDRESS", default_value = crate::demo::DEFAULT_LISTEN)]
    pub(super) listen: String,
    /// Address of its probes and metrics; another port is used if this one is taken
    #[arg(long, value_name = "ADDRESS", default_value = crate::demo::DEFAULT_ADMIN)]
    pub(super) admin: String,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the JSON Schema of the file, for editors
    Schema,
    /// Print a file with every key, its default and its meaning
    Example,
    /// Print the effective configuration, with defaults filled in and secrets masked
    Show,
}

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Print a new key, as YAML to paste
    Generate,
}
