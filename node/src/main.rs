//! `vouchsafe`: the daemon and its command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    vouchsafe::cli::main()
}
