//! Tests of the structure of the source tree: which room may import from which, and that files do not import each other
//! in a cycle. The tests read the `use` lines of every file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A file of the program.
struct Source {
    /// Its path below `src`.
    path: String,
    /// The path of its module, without `crate`.
    module: Vec<String>,
    /// Its text without its unit tests and comments.
    code: String,
    /// Its complete text.
    text: String,
}

/// Reads every file of the program.
fn sources() -> Vec<Source> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    assert!(paths.len() > 20, "found only {paths:?}");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        // The unit tests of a file are at its end.
        let program = text.split("\n#[cfg(test)]\nmod ").next().unwrap();
        let code = program.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n");
        let path = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let mut module: Vec<String> = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
            module.pop();
        }
        Source { path, module, code, text }
    };
    paths.into_iter().map(read).collect()
}

/// Returns the room of a file: its first folder, or its own name.
fn room(path: &str) -> &str {
    path.split('/').next().unwrap().trim_end_matches(".rs")
}

/// Splits a group into its paths: `a::{b, c::{d, e}}` becomes `a::b`, `a::c::d` and `a::c::e`.
fn expand(group: &str) -> Vec<String> {
    let group = group.trim();
    let Some((start, rest)) = group.split_once('{') else {
        let name = group.split(" as ").next().unwrap().trim();
        return if name.is_empty() { Vec::new() } else { vec![name.to_owned()] };
    };
    let inner = rest.strip_suffix('}').unwrap_or(rest);
    let (mut depth, mut part, mut parts) = (0, String::new(), Vec::new());
    for character in inner.chars() {
        match character {
            ',' if depth == 0 => parts.push(std::mem::take(&mut part)),
            _ => {
                depth += i32::from(character == '{') - i32::from(character == '}');
                part.push(character);
            }
        }
    }
    parts.push(part);
    parts.iter().flat_map(|part| expand(part)).map(|path| format!("{start}{path}")).collect()
}

/// Returns the paths in the `use` and `pub use` lines of a text.
fn imported_paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find("use ") {
        let (before, after) = rest.split_at(at);
        let line = before.rsplit('\n').next().unwrap();
        let statement = after["use ".len()..].split(';').next().unwrap();
        let is_statement = line.trim().is_empty() || line.trim().starts_with("pub");
        if is_statement {
            found.extend(expand(statement));
        }
        rest = &after["use ".len()..];
    }
    found
}

/// Returns the path from the root of the crate for a path in a `use` line of `module`. A path of another crate looks
/// like that of a child module, for which there is no file.
fn resolve(path: &str, module: &[String]) -> Option<Vec<String>> {
    let mut words: Vec<String> = path.split("::").map(|word| word.trim().to_owned()).collect();
    if words.last().is_some_and(|word| word == "self" || word == "*") {
        words.pop();
    }
    match words.first()?.as_str() {
        "crate" => Some(words.split_off(1)),
        "self" => Some([module, &words[1..]].concat()),
        "super" => {
            let up = words.iter().take_while(|word| *word == "super").count();
            Some([&module[..module.len().checked_sub(up)?], &words[up..]].concat())
        }
        _ => Some([module, &words[..]].concat()),
    }
}

/// Returns the files that each file imports, as indexes of `sources`.
fn import_graph(sources: &[Source]) -> Vec<BTreeSet<usize>> {
    let files: BTreeMap<&[String], usize> =
        sources.iter().enumerate().map(|(number, source)| (&*source.module, number)).collect();
    let imports_of = |source: &Source| {
        let paths = imported_paths(&source.code).into_iter().filter_map(|path| resolve(&path, &source.module));
        // The longest part of the path that is a module is the file; the rest is a name in it.
        let file = |path: Vec<String>| (1..=path.len()).rev().find_map(|length| files.get(&path[..length]).copied());
        paths.filter_map(file).collect::<BTreeSet<usize>>()
    };
    sources
        .iter()
        .enumerate()
        .map(|(number, source)| imports_of(source).into_iter().filter(|other| *other != number).collect())
        .collect()
}

/// Returns a path of imports from a file back to itself, if there is one.
fn find_cycle(from: usize, imports: &[BTreeSet<usize>]) -> Option<Vec<usize>> {
    let mut before: BTreeMap<usize, usize> = BTreeMap::new();
    let mut waiting = vec![from];
    while let Some(file) = waiting.pop() {
        for next in &imports[file] {
            if *next == from {
                let mut cycle = vec![from, file];
                while let Some(earlier) = before.get(cycle.last().unwrap()) {
                    cycle.push(*earlier);
                }
                cycle.dedup();
                return Some(cycle);
            }
            if !before.contains_key(next) {
                before.insert(*next, file);
                waiting.push(*next);
            }
        }
    }
    None
}

#[test]
fn files_do_not_import_each_other_in_a_cycle() {
    let sources = sources();
    let imports = import_graph(&sources);
    let count: usize = imports.iter().map(BTreeSet::len).sum();
    assert!(count > 300, "only {count} imports were found, so the 'use' lines are not parsed correctly");
    let cycles: Vec<String> = (0..sources.len())
        .filter_map(|file| find_cycle(file, &imports))
        .map(|cycle| cycle.iter().map(|file| &*sources[*file].path).collect::<Vec<_>>().join(" <- "))
        .collect();
    assert!(cycles.is_empty(), "files that import each other:\n{}", cycles.join("\n"));
}

/// Returns the height of a room. A file imports from its own room and from lower ones.
fn height(room: &str) -> u32 {
    match room {
        "main" | "lib" => 9,
        "cli" => 8,
        "serve" => 7,
        "ops" => 6,
        "config" | "migrate" => 5,
        "engine" => 4,
        "snapshots" | "notify" => 3,
        "archive" => 2,
        "store" => 1,
        "platform" => 0,
        other => panic!("the room '{other}' has no height: add it here"),
    }
}

/// Returns the rooms that the code of a file names.
fn rooms_used(source: &Source) -> BTreeSet<String> {
    let named = source.code.split("crate::").skip(1).filter(|rest| !rest.starts_with('{'));
    let mut used: BTreeSet<String> =
        named.map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()).collect();
    let paths = used_rooms_in_groups(&source.code);
    used.extend(paths);
    used.remove("");
    used
}

/// Returns the rooms in groups such as `use crate::{a::X, b}`.
fn used_rooms_in_groups(code: &str) -> Vec<String> {
    let paths = imported_paths(code);
    paths.iter().filter_map(|path| path.strip_prefix("crate::")?.split("::").next().map(str::to_owned)).collect()
}

#[test]
fn rooms_import_only_from_lower_rooms() {
    let mut wrong = Vec::new();
    for source in sources() {
        let own = room(&source.path).to_owned();
        for used in rooms_used(&source) {
            if used != own && height(&used) >= height(&own) {
                wrong.push(format!("{} uses {used}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that are not from a lower room:\n{}", wrong.join("\n"));
}

#[test]
fn lib_rs_lists_every_room_and_every_recipe() {
    let sources = sources();
    let rooms: BTreeSet<&str> =
        sources.iter().map(|source| room(&source.path)).filter(|room| !["main", "lib"].contains(room)).collect();
    let text = &sources.iter().find(|source| source.path == "lib.rs").unwrap().text;
    let listed: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("//! | [`")?.split('`').next()).collect();
    assert_eq!(listed.iter().copied().collect::<BTreeSet<_>>(), rooms);
    let heights: Vec<u32> = listed.iter().map(|room| height(room)).collect();
    assert!(
        heights.is_sorted_by(|upper, lower| upper >= lower),
        "the rooms are not in order, the highest first: {listed:?} {heights:?}"
    );
    for recipe in ["A store", "A database engine", "A subcommand", "A notice"] {
        assert!(text.contains(&format!("- **{recipe}**")), "lib.rs has no recipe for '{recipe}'");
    }
}

#[test]
fn engines_the_archive_and_stores_do_not_import_each_other() {
    let rooms = ["engine", "archive", "store"];
    let mut wrong = Vec::new();
    for source in sources().into_iter().filter(|source| rooms.contains(&room(&source.path))) {
        let own = room(&source.path);
        let others = rooms_used(&source).into_iter().filter(|used| rooms.contains(&used.as_str()) && used != own);
        wrong.extend(others.map(|used| format!("{} uses {used}", source.path)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Names of engines, and the files outside the room `engine` that may contain them because that engine is their
/// subject.
const ENGINE_NAMES: [(&str, &[&str]); 4] = [
    (
        "\"sqlite\"",
        &["cli/init.rs", "ops/init/discover.rs", "ops/init/prisma.rs", "ops/list.rs", "ops/migrate/inputs.rs"],
    ),
    ("\"postgres\"", &["cli/init.rs", "ops/init/compose.rs", "ops/init/discover.rs"]),
    ("SqliteFile", &[]),
    ("PostgresDatabase", &[]),
];

#[test]
fn only_the_room_engine_distinguishes_engines() {
    let sources = sources();
    for (word, allowed) in ENGINE_NAMES {
        let outside = sources.iter().filter(|source| room(&source.path) != "engine" && source.code.contains(word));
        let found: Vec<&str> = outside.map(|source| &*source.path).collect();
        assert_eq!(found, allowed, "{word}: use a method of `engine::database::Database` or `Engine` instead");
    }
}

/// Code outside the room `store` opens stores by their URL and does not distinguish kinds of stores.
#[test]
fn only_the_room_store_distinguishes_kinds_of_stores() {
    let words = ["StoreUrl::Folder", "StoreUrl::S3", "LocalStore::", "S3Store::"];
    // The config has separate fields for each kind of store.
    let is_elsewhere = |source: &Source| room(&source.path) != "store" && source.path != "config/sections/stores.rs";
    for source in sources().into_iter().filter(is_elsewhere) {
        for word in words {
            assert!(!source.code.contains(word), "{} contains {word}", source.path);
        }
    }
}

#[test]
fn a_subcommand_never_imports_another_subcommand() {
    let shared = ["call", "checks", "filter", "github", "global", "mod", "output", "remote", "trust", "without"];
    for source in sources().into_iter().filter(|source| source.path.starts_with("cli/") && source.path != "cli/mod.rs")
    {
        for path in imported_paths(&source.code) {
            if let Some(rest) = path.strip_prefix("crate::cli::") {
                let other = rest.split("::").next().unwrap();
                let own = source.module.last().unwrap();
                assert!(other == own || shared.contains(&other), "{} imports {path}", source.path);
            }
        }
    }
}

#[test]
fn only_the_room_cli_parses_arguments_and_prints() {
    let words = ["println!", "eprintln!", "print!(", "eprint!(", "io::stdout()", "io::stderr()", "dbg!(", "clap::"];
    for source in sources().into_iter().filter(|source| room(&source.path) != "cli") {
        for word in words {
            assert!(!source.code.contains(word), "{} contains {word}", source.path);
        }
    }
}

#[test]
fn main_uses_only_the_room_cli() {
    let sources = sources();
    let main = sources.iter().find(|source| source.path == "main.rs").unwrap();
    let used: Vec<&str> = main.text.split("lifeboat::").skip(1).map(|rest| rest.split("::").next().unwrap()).collect();
    assert_eq!(used, ["cli"]);
    assert!(main.text.lines().count() <= 30);
}

#[test]
fn code_outside_tests_does_not_unwrap_or_panic() {
    for source in sources() {
        for word in [".unwrap()", "panic!(", "todo!(", "unimplemented!(", ".expect(\"\")"] {
            assert!(!source.code.contains(word), "{} contains {word}", source.path);
        }
    }
}

#[test]
fn every_file_begins_with_a_module_comment() {
    for source in sources() {
        assert!(source.text.starts_with("//!"), "{} does not begin with a module comment", source.path);
    }
}

#[test]
fn use_lines_are_parsed_and_resolved() {
    let code = "use crate::{archive::{A, B}, store, error::C as D};\npub use crate::digest::E;\nuse super::x::*;\nfn reuse () {}";
    assert_eq!(
        imported_paths(code),
        [
            "crate::archive::A",
            "crate::archive::B",
            "crate::store",
            "crate::error::C",
            "crate::digest::E",
            "super::x::*"
        ]
    );
    let module = ["a".to_owned(), "b".to_owned()];
    assert_eq!(resolve("super::x::*", &module), Some(vec!["a".to_owned(), "x".to_owned()]));
    assert_eq!(resolve("crate::a::{self}", &module).map(|path| path.len()), Some(2));
    assert_eq!(resolve("child::X", &module).unwrap().join("::"), "a::b::child::X");
    assert_eq!(imported_paths("pub use child::X;\nuse child::Y;"), ["child::X", "child::Y"]);
}

#[test]
fn import_cycles_are_found() {
    let imports = [BTreeSet::from([1]), BTreeSet::from([2]), BTreeSet::from([1, 3]), BTreeSet::new()];
    assert_eq!(find_cycle(0, &imports), None);
    assert_eq!(find_cycle(1, &imports), Some(vec![1, 2, 1]));
    assert_eq!(find_cycle(3, &imports), None);
}
