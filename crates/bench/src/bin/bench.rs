//! Measures the worker. See `measure::command`.

fn main() -> Result<std::process::ExitCode, measure::command::Failure> {
    measure::command::run()
}
