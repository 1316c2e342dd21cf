//! The binary `hookledger`; what it does is in the library.

use std::process::{self, ExitCode};

use mimalloc::MiMalloc;
use runtime::abort::on_abort;
use runtime::memory;

/// Folding allocates many small, short-lived objects.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    memory::without_huge_pages();
    on_abort(exit).expect("a thread at the start");
    cli::command::main(std::env::args_os())
}

/// The only end that waits for no thread.
fn exit(why: &str) {
    tracing::error!("exiting: {why}");
    process::exit(1)
}
