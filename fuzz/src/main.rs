//! `shardcast-fuzz`: see `--help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    shardcast_fuzz::runner::main()
}
