//! The `seedling` program; see [`seedling_server`].

use std::process::ExitCode;

fn main() -> ExitCode {
    seedling_server::main()
}
