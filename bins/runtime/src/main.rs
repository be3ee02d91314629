//! The Brig OCI runtime command line (brig-runtime): runc's commands, flags, output and exit codes.

mod arguments;
mod commands;
mod console;
mod log;
mod notify;

use std::process::ExitCode;

use arguments::{Global, Parsed};

fn main() -> ExitCode {
    let (global, arguments) = match arguments::parse_global() {
        Ok(Parsed::Run(global, arguments)) => (global, arguments),
        Ok(Parsed::Print(text)) => {
            log::print(&text);
            return ExitCode::SUCCESS;
        }
        Err(error) => return fail(&Global::default(), &error),
    };
    match commands::run(&global, arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(&global, &error),
    }
}

fn fail(global: &Global, error: &anyhow::Error) -> ExitCode {
    log::error(global, &format!("{error:#}"));
    ExitCode::FAILURE
}
