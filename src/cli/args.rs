//! The command line's grammar and help texts.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::admin::args::{AdminCommand, ClientArgs};

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
    /// Print what would happen to a session now, asked of the running proxy; with --config, what a token contains or what is
    /// known of an application's session id or of a client's address
    ///
    /// With --admin or `HOMING_ADMIN`, or without a configuration file, the running proxy is asked. With --config no proxy need
    /// run: the file's keys open a token, and the snapshot on disk and the shared store know ids and addresses.
    Explain(ExplainArgs),
    #[command(flatten)]
    Admin(AdminCommand),
    /// Print the version
    Version,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print a manual page: `homing man | man -l -`, `homing man server set`
    Man {
        /// A command, for its own page
        command: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// A server, as NAME=ADDRESS; repeatable. Replaces the file: one pool with the defaults
    #[arg(long, value_name = "NAME=ADDRESS")]
    pub(super) to: Vec<String>,
    /// Take over the listeners and sessions of the process that serves, through `proxy.upgrade_socket`: wait until it gets
    /// QUIT. `homing upgrade` does both
    #[arg(long, conflicts_with = "to")]
    pub(super) upgrade: bool,
    /// Address to listen on, with --to
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(super) listen: String,
    /// Address of probes and metrics, with --to
    #[arg(long, value_name = "ADDRESS", default_value = crate::demo::DEFAULT_ADMIN)]
    pub(super) admin: String,
}

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// A token (the cookie's value, with --config only) or an address; without it, or with `-`, it is read from standard input.
    /// An application's session id is read from standard input only
    pub(super) value: Option<String>,
    /// Take the input for an application's session id, whatever it looks like
    #[arg(long)]
    pub(super) id: bool,
    /// Only in this pool; a running proxy with several pools needs it
    #[arg(long, value_name = "NAME")]
    pub(super) pool: Option<String>,
    /// For a client with this certificate, by its SHA-256 (`bind_to: client_certificate`)
    #[arg(long, value_name = "SHA256")]
    pub(super) certificate: Option<String>,
    /// For a client that is this user (`bind_to: user`, `header:NAME`)
    #[arg(long, value_name = "NAME")]
    pub(super) user: Option<String>,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// The application
    #[arg(value_enum, default_value_t = DemoApplication::Shop)]
    pub(super) application: DemoApplication,
    /// Address of the proxy; another port is used if this one is taken
    #[arg(long, value_name = "ADDRESS", default_value = crate::demo::DEFAULT_LISTEN)]
    pub(super) listen: String,
    /// Address of its probes and metrics; another port is used if this one is taken
    #[arg(long, value_name = "ADDRESS", default_value = crate::demo::DEFAULT_ADMIN)]
    pub(super) admin: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum DemoApplication {
    /// Carts that follow their session; needs nothing else
    Shop,
    /// Transfers that refuse to go on elsewhere; needs Python
    Bank,
    /// WebSockets, two tenants, two versions, a drain; needs Node
    Workspace,
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

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;
    use clap::{CommandFactory, Parser};

    use super::Cli;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    fn parse(line: &str) -> Result<Cli, ErrorKind> {
        Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.kind())
    }

    #[test]
    fn commands_for_a_running_proxy_are_understood() {
        for line in [
            "homing status",
            "homing pools --admin unix:/run/homing.sock -o json",
            "homing servers --admin http://[::1]:9900 --output table",
            "homing server set web/a --state drain --wait --timeout 10m --ignore-silent",
            "homing server set web/a --weight 5",
            "homing server set web/a --reset",
            "homing sessions list --pool web --server a --limit 5 --cursor c",
            "homing sessions show web/0123",
            "homing sessions move web --to b --id",
            "homing sessions end web",
            "homing events -f --kind move --kind health --since 10m --after 7",
            "homing top --interval 500ms -n 3",
            "homing explain --admin 127.0.0.1:9900 --pool web",
            "homing reload",
            "homing upgrade --admin unix:/run/homing.sock",
            "homing run --config f --upgrade",
            "homing man server set",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line));
        }
    }

    #[test]
    fn mistakes_are_usage_errors() {
        for (line, kind) in [
            ("homing status --admin nowhere", ErrorKind::ValueValidation),
            ("homing status --admin https://a:1", ErrorKind::ValueValidation),
            ("homing status --token secret", ErrorKind::UnknownArgument),
            ("homing status -o yaml", ErrorKind::InvalidValue),
            ("homing server set web/a", ErrorKind::MissingRequiredArgument),
            ("homing server set a --state drain", ErrorKind::ValueValidation),
            ("homing server set web/a --state off", ErrorKind::InvalidValue),
            ("homing server set web/a --weight -1", ErrorKind::UnknownArgument),
            ("homing server set web/a --weight 1 --wait", ErrorKind::MissingRequiredArgument),
            ("homing server set web/a --state drain --timeout 5s", ErrorKind::MissingRequiredArgument),
            ("homing server set web/a --state drain --wait --timeout 5", ErrorKind::ValueValidation),
            ("homing server set web/a --state drain --reset", ErrorKind::ArgumentConflict),
            ("homing sessions move web/0123", ErrorKind::MissingRequiredArgument),
            ("homing sessions list --limit 0", ErrorKind::ValueValidation),
            ("homing events --kind moves", ErrorKind::InvalidValue),
            ("homing top --interval 1ms", ErrorKind::ValueValidation),
            ("homing run --to a=127.0.0.1:1 --upgrade", ErrorKind::ArgumentConflict),
        ] {
            assert_eq!(parse(line).map(|_| ()), Err(kind), "{line}");
        }
    }
}
