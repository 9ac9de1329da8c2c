//! The clients of the load bench: one thread, many connections, at full speed or at a fixed rate. Prints one line of JSON:
//! requests, errors by kind, requests a second, latency, whether every session always met its server, and the CPU time that
//! the proxy took meanwhile.
//!
//! With a rate, a request's latency counts from when it should have been sent: a proxy that stops for a second delays all
//! that were due in that second, and all of them are counted.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the bench")]
#![allow(clippy::indexing_slicing, reason = "seats and sessions are made once and named by their place")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "ranks of a quantile")]

mod answer;
mod clients;
mod meter;
mod plan;
mod sessions;
mod tally;
mod wire;

use std::process::ExitCode;

use clients::Load;
use plan::Plan;

fn main() -> ExitCode {
    let plan = match Plan::read(std::env::args().skip(1)) {
        Ok(plan) => plan,
        Err(why) => {
            eprintln!("load: {why}\n{}", plan::USAGE);
            return ExitCode::FAILURE;
        }
    };
    match run(&plan) {
        Ok(seen) => {
            println!("{seen}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("load: {}: {error}", plan.address);
            ExitCode::FAILURE
        }
    }
}

fn run(plan: &Plan) -> std::io::Result<serde_json::Value> {
    let tls = if plan.tls { Some(wire::any_certificate().map_err(std::io::Error::other)?) } else { None };
    let mut sessions = sessions::collect(plan, tls.as_ref())?;
    Load::new(plan, &mut sessions, tls)?.run()
}
