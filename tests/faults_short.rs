//! The short form of `make faults`: faults injected into the debug binary from outside. The cases
//! are in `crates/faults/`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};

use faults::case::{Verdict, run_all};
use faults::report;
use faults::world::Setting;

const AT_ONCE: usize = 4;

#[tokio::test]
async fn the_short_fault_cases_pass() {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let setting = Setting {
        program: PathBuf::from(env!("CARGO_BIN_EXE_reservation-worker")),
        folder: folder.clone(),
        is_short: true,
    };
    let mut cases = faults::cases::all();
    cases.retain(|case| case.is_short);
    let verdicts = run_all(&cases, &setting, AT_ONCE, |it| println!("{}", report::line(it))).await;
    assert!(verdicts.len() >= 5 && verdicts.iter().all(Verdict::has_passed));
    std::fs::remove_dir_all(folder).unwrap();
}
