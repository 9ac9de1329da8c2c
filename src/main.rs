//! The program: the command line decides.

use std::process::ExitCode;

/// Pingora allocates some dozens of times a request; this is the allocator that made it fastest.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    homing::cli::main()
}
