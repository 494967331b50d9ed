//! Compares the table of docs/configuration.md with `VARIABLES`; `make docs` writes it.

use super::*;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");

const BEGIN: &str = "<!-- variables: written by `make docs`, not by hand -->\n";
const END: &str = "<!-- variables: end -->";

fn row(variable: &Variable) -> String {
    let default = match variable.fallback {
        Fallback::Required => "**required**".to_owned(),
        Fallback::Value(value) => format!("`{value}`"),
        Fallback::Told(told) => told.to_owned(),
    };
    let Variable { name, meaning, allowed, .. } = variable;
    format!("| `{name}` | {default} | {meaning} | {} |\n", allowed.brief())
}

fn table() -> String {
    let head = "| variable | default | meaning | allowed |\n| --- | --- | --- | --- |\n";
    let rows: String = VARIABLES.iter().map(row).collect();
    format!("\n{head}{rows}\n")
}

#[test]
fn the_configuration_page_matches_the_table() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page has the first mark");
    let (written, after) = rest.split_once(END).expect("the page has the second mark");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(PAGE, format!("{before}{BEGIN}{}{END}{after}", table())).unwrap();
        return;
    }
    assert_eq!(written, table(), "docs/configuration.md differs: run `make docs`");
}
