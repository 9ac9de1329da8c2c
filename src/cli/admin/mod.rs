//! The client of the admin API: the commands that ask a running proxy.

mod address;
pub(super) mod args;
mod client;
mod events;
pub(super) mod explain;
mod failure;
mod metrics_text;
mod servers;
mod sessions;
mod status;
mod table;
mod terminal;
mod top;
mod wait;

#[cfg(test)]
mod canned_server;

use std::process::ExitCode;

use self::args::{AdminCommand, ClientArgs, ServerCommand};
use self::client::Client;
use self::explain::Question;
use self::failure::Failure;

/// Runs a command.
pub(super) fn run(command: &AdminCommand) -> ExitCode {
    exit_code(match command {
        AdminCommand::Status(args) => connect(args).and_then(|client| status::status(&client, args.output)),
        AdminCommand::Pools(args) => connect(args).and_then(|client| servers::pools(&client, args.output)),
        AdminCommand::Servers(args) => connect(args).and_then(|client| servers::servers(&client, args.output)),
        AdminCommand::Server { what: ServerCommand::Set(args) } => {
            connect(&args.client).and_then(|client| servers::set(&client, args))
        }
        AdminCommand::Sessions { what } => connect(what.client()).and_then(|client| sessions::run(&client, what)),
        AdminCommand::Events(args) => connect(&args.client).and_then(|client| events::events(&client, args)),
        AdminCommand::Top(args) => connect(&args.client).and_then(|client| top::top(&client, args)),
        AdminCommand::Reload(args) => connect(args).and_then(|client| status::reload(&client, args.output)),
        AdminCommand::Upgrade(args) => connect(args).and_then(|client| status::upgrade(&client, args.output)),
    })
}

/// `explain` by the running proxy.
pub(super) fn explain(question: Question<'_>, args: &ClientArgs) -> ExitCode {
    exit_code(connect(args).and_then(|client| explain::ask(&client, question, args.output)))
}

fn exit_code(result: Result<(), Failure>) -> ExitCode {
    result.map_or_else(|failure| failure.report(), |()| ExitCode::SUCCESS)
}

/// The arguments of a process can be read by every user of the machine, so a token comes from the environment only.
fn connect(args: &ClientArgs) -> Result<Client, Failure> {
    let token = match std::env::var("HOMING_ADMIN_TOKEN") {
        Ok(token) => Some(token),
        Err(std::env::VarError::NotPresent) => None,
        Err(std::env::VarError::NotUnicode(_)) => {
            return Err(Failure::Usage("HOMING_ADMIN_TOKEN is no text".to_owned()));
        }
    };
    Client::new(args.admin.clone(), token).map_err(|error| Failure::Failed(error.to_string()))
}
