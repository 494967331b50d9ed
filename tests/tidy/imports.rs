//! Which file of `src/` imports which, and that they do so in no circle.
//!
//! A file and the files in the folder of its name are one module: they may import each other.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, sources};

/// A module's path below the crate: empty for `lib.rs`.
type Module = Vec<String>;

/// Files by the path of their module.
type Files = BTreeMap<Module, String>;

fn module_of(path: &str) -> Module {
    let below = path.trim_start_matches("src/").trim_end_matches(".rs");
    if below == "lib" { Vec::new() } else { below.split('/').map(str::to_owned).collect() }
}

/// Splits at the commas that are in no braces.
fn parts(group: &str) -> Vec<&str> {
    let (mut depth, mut from, mut found) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&group[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    found.push(&group[from..]);
    found
}

/// Adds the paths of a `use` tree to `found`.
fn expand(before: &[String], tree: &str, found: &mut Vec<Module>) {
    let tree = tree.trim();
    let words = |text: &str| -> Vec<String> {
        text.split("::").map(|word| word.trim().to_owned()).filter(|w| !w.is_empty()).collect()
    };
    if let Some((head, group)) = tree.split_once('{') {
        let path = [before, &words(head)].concat();
        for part in parts(group.trim_end_matches('}')).iter().filter(|part| !part.trim().is_empty())
        {
            expand(&path, part, found);
        }
    } else {
        let name = tree.split(" as ").next().unwrap_or(tree);
        found.push([before, &words(name)].concat());
    }
}

/// The paths that a file's code names: those of its `use` lines, and those in expressions.
fn paths(source: &Source) -> Vec<Module> {
    let code: String = source.code().map(|(_, line)| line.trim().to_owned() + " ").collect();
    let mut found = Vec::new();
    let mut rest = String::new();
    for (number, statement) in code.split(';').enumerate() {
        let start = if number == 0 { statement.rfind(" use ") } else { statement.find("use ") };
        match start.filter(|_| !statement.contains(['(', '=']) || statement.contains("pub(")) {
            Some(at) => {
                expand(&[], statement[at..].trim_start().trim_start_matches("use "), &mut found)
            }
            None => rest.push_str(statement),
        }
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    for word in rest.split(|c| !is_name(c)).filter(|word| word.contains("::")) {
        expand(&[], word, &mut found);
    }
    found
}

/// The file in which the deepest module of a path is that there is.
fn resolve<'f>(files: &'f Files, from: &Module, path: &[String]) -> Option<&'f String> {
    let mut module = match path.first()?.as_str() {
        "crate" => Vec::new(),
        "super" => from[..from.len().checked_sub(1)?].to_vec(),
        "self" => from.clone(),
        child => [from.clone(), vec![child.to_owned()]].concat(),
    };
    for name in &path[1..] {
        if name == "super" {
            module.pop()?;
            continue;
        }
        let deeper = [module.clone(), vec![name.clone()]].concat();
        if !files.contains_key(&deeper) {
            break;
        }
        module = deeper;
    }
    files.get(&module)
}

/// Whether one of the files is in the folder of the other's name.
fn are_one_module(a: &str, b: &str) -> bool {
    let folder = |path: &str| path.trim_end_matches(".rs").to_owned() + "/";
    a == b
        || a == "src/lib.rs"
        || b == "src/lib.rs"
        || a.starts_with(&folder(b))
        || b.starts_with(&folder(a))
}

fn edges() -> BTreeMap<String, BTreeSet<String>> {
    let sources = sources("src");
    let sources: Vec<_> = sources.iter().filter(|source| !source.is_test()).collect();
    let files: Files =
        sources.iter().map(|source| (module_of(&source.path), source.path.clone())).collect();
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources {
        let from = module_of(&source.path);
        let used = paths(source);
        let used = used.iter().filter_map(|path| resolve(&files, &from, path));
        let others = used.filter(|used| !are_one_module(&source.path, used)).cloned();
        edges.entry(source.path.clone()).or_default().extend(others);
    }
    edges
}

#[test]
fn no_two_files_import_each_other_in_a_circle() {
    let edges = edges();
    // What is known of two files shows that the sources were understood.
    assert!(edges["src/handler.rs"].contains("src/client.rs"), "{:?}", edges["src/handler.rs"]);
    assert!(edges["src/event/validate.rs"].contains("src/event/context.rs"));
    assert!(edges["src/inflight/state/groups.rs"].contains("src/inflight/job.rs"));
    let mut finished = BTreeSet::new();
    for file in edges.keys() {
        super::walk(file, &edges, &mut Vec::new(), &mut finished);
    }
}
