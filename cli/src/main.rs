//! The binary `hookledger`; what it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::command::main(std::env::args_os())
}
