//! Loads and builds a configuration, and prints its problems.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use crate::app::build::{BuildContext, BuildError, build};
use crate::config::{Config, LoadedConfig, Problems, Warning};
use crate::proxy::context::wall_clock;
use crate::session::token::keyring::Keyring;
use crate::store::local::table::Table;
use crate::telemetry::metrics::Metrics;

use super::output::{INVALID_CONFIG, print_message, usage, uses_colour_on};

/// Loads a file and builds it as a start would, without listening.
pub(super) fn load(path: Option<&Path>) -> Result<LoadedConfig, ExitCode> {
    let Some(path) = path else {
        return Err(usage("no configuration: name the file with --config FILE or in HOMING_CONFIG"));
    };
    let loaded = Config::load(path).map_err(|problems| report(&problems))?;
    try_build(&loaded.config).map_err(|error| {
        print_message(&format!("error: {error}\n --> {}", path.display()));
        ExitCode::from(INVALID_CONFIG)
    })?;
    Ok(loaded)
}

fn try_build(config: &Config) -> Result<(), Box<dyn std::error::Error>> {
    let metrics = Metrics::new()?;
    let table = Table::new(1, wall_clock(), Box::new(|_, _| {}));
    let generated_keys = Keyring::random([0; 32]).map_err(BuildError::from)?;
    let acme = Arc::default();
    let context =
        BuildContext { table: &table, metrics: &metrics, generated_keys: &generated_keys, acme: &acme, previous: None };
    build(config.clone(), &context)?;
    Ok(())
}

/// Prints all problems.
pub(super) fn report(problems: &Problems) -> ExitCode {
    print_message(&problems.render(uses_colour()));
    ExitCode::from(INVALID_CONFIG)
}

/// Prints what an operator should look at in a valid file.
pub(super) fn print_warnings(warnings: &[Warning]) {
    if !warnings.is_empty() {
        let shown: Vec<String> = warnings.iter().map(|warning| warning.render(uses_colour())).collect();
        print_message(&shown.join("\n\n"));
    }
}

fn uses_colour() -> bool {
    uses_colour_on(&std::io::stderr())
}
