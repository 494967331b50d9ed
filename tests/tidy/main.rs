//! Reads the sources and checks the rules that no compiler checks: which module may use which, how
//! a file opens, how long files and functions may be, where the environment is read, where tasks
//! are spawned.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of `src/` by layer. Each may use the modules of its own layer and of lower ones.
const FLOORS: &[&[&str]] = &[
    &["main"],
    &["ops"],
    &["run", "check", "cli", "signals"],
    &["admin"],
    &["status"],
    &["app"],
    &["poller", "worker", "intake", "scheduler"],
    &["settle"],
    &["handler", "controls"],
    &["inflight"],
    &["idempotency", "outage", "client", "queue"],
    &["telemetry", "health", "metrics"],
    &["event", "retry", "config"],
    &["credentials"],
    &["clock", "escaped", "memory"],
];

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;
const COMMENT_COLUMNS_MAX: usize = 100;

/// Functions that are one flat table and may exceed the limit.
const TABLES: &[&str] = &["src/metrics/build.rs new"];

/// A source file: its path relative to the root, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Returns the top-level module of `src/` that the file belongs to.
    fn module(&self) -> &str {
        let below = self.path.strip_prefix("src/").unwrap();
        below.split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// Whether the whole file is test code.
    fn is_test(&self) -> bool {
        !self.path.starts_with("src/")
            || self.path.contains("/tests")
            || self.path.ends_with("/test_server.rs")
    }

    /// Returns its numbered lines without comments and without the tests at the end of the file.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(at, line)| (at + 1, line));
        let before_tests = lines.take_while(|(_, line)| !line.starts_with("mod tests {"));
        before_tests.map(|(number, line)| (number, without_comment(line)))
    }
}

/// Returns a line without its comment. In formatted code, `//` occurs in strings only in URLs.
fn without_comment(line: &str) -> &str {
    match line.find("//") {
        Some(at) if !line[..at].ends_with(':') => &line[..at],
        Some(_) | None => line,
    }
}

fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
                found.push(Source { path, text });
            }
        }
    }
    assert!(!found.is_empty(), "no source files in {folder}");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// All source files of the root crate, its tests and the development crates.
fn all() -> Vec<Source> {
    ["src", "tests", "crates"].into_iter().flat_map(sources).collect()
}

fn floor(module: &str) -> usize {
    let of_it = |floor: &&[&str]| floor.contains(&module);
    FLOORS.iter().position(of_it).unwrap_or_else(|| panic!("{module} is missing in FLOORS"))
}

/// Returns the modules named after `crate::` in a file's code: in `use` lines and in paths.
fn used(source: &Source) -> BTreeSet<String> {
    let code: String = source.code().map(|(_, line)| line.to_owned() + "\n").collect();
    let name = |text: &str| -> String {
        text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    let mut found = BTreeSet::new();
    for opening in ["crate::", "reservation_worker::"] {
        for rest in code.split(opening).skip(1) {
            match rest.strip_prefix('{') {
                Some(group) => {
                    let group = group.split_once('}').map_or(group, |(group, _)| group);
                    found.extend(group.split(',').map(|part| name(part.trim())));
                }
                None => {
                    found.insert(name(rest));
                }
            }
        }
    }
    found.remove("");
    found
}

#[test]
fn modules_use_only_their_own_and_lower_layers() {
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut upward = Vec::new();
    for source in
        sources("src").iter().filter(|source| source.path != "src/lib.rs" && !source.is_test())
    {
        let module = source.module();
        for other in used(source).into_iter().filter(|other| other != module) {
            if floor(&other) < floor(module) {
                upward.push(format!("{} uses {other}, which is in a higher layer", source.path));
            }
            edges.entry(module.to_owned()).or_default().insert(other);
        }
    }
    assert!(upward.is_empty(), "{upward:#?}");
    assert!(edges.len() > 10, "too few dependencies found: {edges:?}");
    // Modules of one layer may use each other, but not in a cycle.
    let mut finished = BTreeSet::new();
    for module in edges.keys() {
        walk(module, &edges, &mut Vec::new(), &mut finished);
    }
}

fn walk(
    module: &str,
    edges: &BTreeMap<String, BTreeSet<String>>,
    path: &mut Vec<String>,
    finished: &mut BTreeSet<String>,
) {
    assert!(!path.iter().any(|on| on == module), "cycle: {path:?} and {module} again");
    if finished.contains(module) {
        return;
    }
    path.push(module.to_owned());
    for other in edges.get(module).into_iter().flatten() {
        walk(other, edges, path, finished);
    }
    path.pop();
    finished.insert(module.to_owned());
}

#[test]
fn the_layers_list_exactly_the_modules() {
    let modules: BTreeSet<_> =
        sources("src").iter().map(|source| source.module().to_owned()).collect();
    let listed: BTreeSet<_> =
        FLOORS.iter().flat_map(|floor| floor.iter().map(|m| (*m).to_owned())).collect();
    let unlisted: Vec<_> = modules.difference(&listed).filter(|module| *module != "lib").collect();
    let gone: Vec<_> = listed.difference(&modules).collect();
    assert!(
        unlisted.is_empty() && gone.is_empty(),
        "without a layer: {unlisted:?}; listed, but do not exist: {gone:?}"
    );
}

#[test]
fn every_file_has_a_header_comment() {
    let silent: Vec<_> = all()
        .into_iter()
        .filter(|source| {
            let said: usize =
                source.text.lines().take_while(|l| l.starts_with("//!")).map(str::len).sum();
            said < "//! A few words.".len()
        })
        .map(|source| source.path)
        .collect();
    assert!(silent.is_empty(), "no `//!` header: {silent:#?}");
}

#[test]
fn files_have_at_most_400_lines() {
    let long: Vec<_> = all()
        .iter()
        .map(|source| (source.path.clone(), source.text.lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .collect();
    assert!(long.is_empty(), "more than {FILE_LINES_MAX} lines: {long:#?}");
}

/// Returns the functions (file and name) and their line counts, by the indentation of the code.
fn functions(source: &Source) -> Vec<(String, usize)> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some((before, after)) = line.trim_start().split_once("fn ") else { continue };
        let mut words = before.split_whitespace();
        if !words.all(|word| ["const", "async"].contains(&word) || word.starts_with("pub")) {
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        // A body ends with a brace at the function's indentation, a declaration with a semicolon.
        let ends = |line: &&str| {
            line.strip_prefix(indent).is_some_and(|rest| {
                rest == "}" || (!rest.starts_with(' ') && rest.ends_with([';', '}']))
            })
        };
        let name: String = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        // A function named by a macro parameter is skipped.
        if name.is_empty() {
            continue;
        }
        let length = lines[at..].iter().position(ends).expect("every function has an end");
        found.push((format!("{} {name}", source.path), length + 1));
    }
    found
}

#[test]
fn functions_have_at_most_70_lines() {
    let all: Vec<_> = all().iter().flat_map(functions).collect();
    assert!(all.len() > 500, "only {} functions found", all.len());
    let long = all
        .into_iter()
        .filter(|(name, lines)| *lines > FUNCTION_LINES_MAX && !TABLES.contains(&name.as_str()));
    let long: Vec<_> = long.collect();
    assert!(long.is_empty(), "more than {FUNCTION_LINES_MAX} lines: {long:#?}");
}

/// Returns the lines of production code that contain one of `words`, outside the allowed files.
fn offences(words: &[&str], may: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources("src")
        .iter()
        .filter(|source| !source.is_test() && !may.contains(&source.path.as_str()))
    {
        for (number, line) in
            source.code().filter(|(_, line)| words.iter().any(|word| line.contains(word)))
        {
            found.push(format!("{}:{number}: {}", source.path, line.trim()));
        }
    }
    found
}

/// The name of the type that a line defines. An associated type, which an `impl` needs, is none.
fn defined_type(line: &str) -> Option<&str> {
    let is_indented = line.starts_with(' ');
    let line = line.trim_start();
    let line = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
        Some(rest) => rest.trim_start(),
        None => line,
    };
    let (keyword, rest) = line.split_once(' ')?;
    let is_type = match keyword {
        "struct" | "enum" | "trait" | "union" => true,
        "type" => !is_indented,
        _ => false,
    };
    let name = rest.split(|c: char| !c.is_ascii_alphanumeric()).next()?;
    (is_type && name.starts_with(|c: char| c.is_ascii_uppercase())).then_some(name)
}

#[test]
fn a_type_name_means_one_type() {
    let sources = sources("src");
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.is_test()) {
        for (number, line) in source.code() {
            if let Some(name) = defined_type(line) {
                places.entry(name).or_default().push(format!("{}:{number}", source.path));
            }
        }
    }
    assert!(places.len() > 200, "the sources were not understood: {} types", places.len());
    // A type that only tests use may share its name with one of other tests, but not with the
    // product's.
    for source in &sources {
        let in_tests = source
            .text
            .lines()
            .enumerate()
            .skip_while(|(_, line)| !source.is_test() && !line.starts_with("mod tests {"));
        for (at, line) in in_tests {
            if let Some(places) = defined_type(line).and_then(|name| places.get_mut(name)) {
                places.push(format!("{}:{}", source.path, at + 1));
            }
        }
    }
    let twice: Vec<_> = places.into_iter().filter(|(_, places)| places.len() > 1).collect();
    assert!(twice.is_empty(), "{twice:#?}");
}

#[test]
fn comments_are_at_most_100_columns_wide() {
    let mut wide = Vec::new();
    for source in all() {
        for (at, line) in source.text.lines().enumerate() {
            let is_wide = line.chars().count() > COMMENT_COLUMNS_MAX && !line.contains("://");
            if line.trim_start().starts_with("//") && is_wide {
                wide.push(format!("{}:{}", source.path, at + 1));
            }
        }
    }
    assert!(wide.is_empty(), "more than {COMMENT_COLUMNS_MAX} columns: {wide:#?}");
}

#[test]
fn production_code_has_no_unwrap_and_no_panic() {
    let found = offences(&[".unwrap()", "panic!(", "todo!(", "unimplemented!("], &[]);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_environment_is_read_only_by_the_configuration() {
    let found =
        offences(&["env::", "envy::"], &["src/config.rs", "src/config/raw.rs", "src/main.rs"]);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn only_the_app_spawns_tasks_outside_a_join_set() {
    let found = offences(&["tokio::spawn(", "task::spawn("], &["src/app.rs"]);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_aws_sdk_is_used_only_by_the_sqs_module() {
    let found = offences(&["aws_sdk_sqs", "aws_config"], &[]);
    let elsewhere: Vec<_> =
        found.iter().filter(|line| !line.starts_with("src/queue/sqs")).collect();
    assert!(elsewhere.is_empty() && !found.is_empty(), "{elsewhere:#?}");
}

#[test]
fn only_fail_points_are_there_for_the_simulation() {
    let found = offences(&["feature = \"simulation\""], &["src/lib.rs"]);
    assert!(found.is_empty(), "{found:#?}");
    let tests: String = sources("tests").into_iter().map(|source| source.text).collect();
    let mut points = BTreeSet::new();
    for source in sources("src") {
        let calls = source.text.split("fail_point!(").skip(1);
        points.extend(calls.map(|rest| rest.split('"').nth(1).unwrap().to_owned()));
    }
    let idle: Vec<_> =
        points.iter().filter(|point| !tests.contains(&format!("Engine(\"{point}\")"))).collect();
    assert!(points.len() > 5 && idle.is_empty(), "switched on by no test: {idle:?}");
}

/// Returns the text between `before` and the first of `ends` in a file of the root folder.
fn version_in(file: &str, before: &str, ends: &[char]) -> String {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("{file}: no {before}"));
    rest.split(ends).next().unwrap().to_owned()
}

#[test]
fn the_image_is_built_with_the_pinned_toolchain() {
    let pinned = version_in("rust-toolchain.toml", "channel = \"", &['"']);
    assert_eq!(version_in("Dockerfile", "ARG RUST_IMAGE=rust:", &['-', '\n']), pinned);
}
