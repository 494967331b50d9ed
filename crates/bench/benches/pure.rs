//! Measures the time of each pure part: `cargo bench --package reservation-worker-bench`.

use divan::Bencher;
use measure::pure::{PARTS, Part};

fn main() {
    divan::main();
}

#[divan::bench(args = PARTS.map(|part| part.name))]
fn part(bencher: Bencher<'_, '_>, name: &str) {
    let Part { once, .. } =
        PARTS.into_iter().find(|part| part.name == name).expect("the names come from PARTS");
    bencher.bench(once);
}
