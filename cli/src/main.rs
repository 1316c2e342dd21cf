//! The binary `hookledger`; what it does is in the library.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Folding allocates many small, short-lived objects.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    cli::command::main(std::env::args_os())
}
