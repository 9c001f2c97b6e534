//! Holds the rooms of the source tree apart: `use` lines are read file by file, and no two files may need each other.

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
    /// Its text as it is.
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
        // The unit tests of a file stand at its end.
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

/// The room that a file is in: its first folder, or its own name.
fn room(path: &str) -> &str {
    path.split('/').next().unwrap().trim_end_matches(".rs")
}

/// Takes a group apart: `a::{b, c::{d, e}}` is `a::b`, `a::c::d` and `a::c::e`.
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

/// The paths that the `use` lines of a text name. `pub use child::Name` only gives a name a second place: the file does not
/// need it, and the line is left out.
fn used(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find("use ") {
        let (before, after) = rest.split_at(at);
        let line = before.rsplit('\n').next().unwrap();
        let statement = after["use ".len()..].split(';').next().unwrap();
        let is_statement = line.trim().is_empty() || line.trim().starts_with("pub");
        if is_statement {
            let is_public = !line.trim().is_empty();
            let of_a_child =
                |path: &String| !["crate::", "super::", "self::"].iter().any(|start| path.starts_with(start));
            found.extend(expand(statement).into_iter().filter(|path| !is_public || !of_a_child(path)));
        }
        rest = &after["use ".len()..];
    }
    found
}

/// The path without `crate` that a path of a `use` line in `module` means. One of another crate looks like one of a child
/// of the module, and leads to no file.
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

/// The files that each file needs, by their places in `sources`.
fn arrows(sources: &[Source]) -> Vec<BTreeSet<usize>> {
    let files: BTreeMap<&[String], usize> =
        sources.iter().enumerate().map(|(number, source)| (&*source.module, number)).collect();
    let of = |source: &Source| {
        let paths = used(&source.code).into_iter().filter_map(|path| resolve(&path, &source.module));
        // What is left of the path names something in the file. The module itself is no file that it needs.
        let file = |path: Vec<String>| (1..=path.len()).rev().find_map(|length| files.get(&path[..length]).copied());
        paths.filter_map(file).collect::<BTreeSet<usize>>()
    };
    sources
        .iter()
        .enumerate()
        .map(|(number, source)| of(source).into_iter().filter(|other| *other != number).collect())
        .collect()
}

/// A way from a file back to itself, if there is one.
fn circle(from: usize, arrows: &[BTreeSet<usize>]) -> Option<Vec<usize>> {
    let mut before: BTreeMap<usize, usize> = BTreeMap::new();
    let mut waiting = vec![from];
    while let Some(file) = waiting.pop() {
        for next in &arrows[file] {
            if *next == from {
                let mut way = vec![from, file];
                while let Some(earlier) = before.get(way.last().unwrap()) {
                    way.push(*earlier);
                }
                way.dedup();
                return Some(way);
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
fn no_two_files_need_each_other() {
    let sources = sources();
    let arrows = arrows(&sources);
    let count: usize = arrows.iter().map(BTreeSet::len).sum();
    assert!(count > 300, "only {count} imports were found: 'use' lines are not read");
    let circles: Vec<String> = (0..sources.len())
        .filter_map(|file| circle(file, &arrows))
        .map(|way| way.iter().map(|file| &*sources[*file].path).collect::<Vec<_>>().join(" <- "))
        .collect();
    assert!(circles.is_empty(), "files that need each other:\n{}", circles.join("\n"));
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
        other => panic!("the room '{other}' has no height yet: say here where it belongs"),
    }
}

/// The rooms that each file names anywhere in its code.
fn rooms_used(source: &Source) -> BTreeSet<String> {
    let named = source.code.split("crate::").skip(1).filter(|rest| !rest.starts_with('{'));
    let mut used: BTreeSet<String> =
        named.map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()).collect();
    let paths = used_rooms_in_groups(&source.code);
    used.extend(paths);
    used.remove("");
    used
}

/// The rooms in `use crate::{a::X, b}`.
fn used_rooms_in_groups(code: &str) -> Vec<String> {
    used(code).iter().filter_map(|path| path.strip_prefix("crate::")?.split("::").next().map(str::to_owned)).collect()
}

#[test]
fn imports_point_down() {
    let mut wrong = Vec::new();
    for source in sources() {
        let own = room(&source.path).to_owned();
        for used in rooms_used(&source) {
            if used != own && height(&used) >= height(&own) {
                wrong.push(format!("{} uses {used}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that do not point down:\n{}", wrong.join("\n"));
}

#[test]
fn the_front_door_lists_every_room() {
    let sources = sources();
    let rooms: BTreeSet<&str> =
        sources.iter().map(|source| room(&source.path)).filter(|room| !["main", "lib"].contains(room)).collect();
    let text = &sources.iter().find(|source| source.path == "lib.rs").unwrap().text;
    let listed: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("//! | [`")?.split('`').next()).collect();
    assert_eq!(listed.iter().copied().collect::<BTreeSet<_>>(), rooms);
    let heights: Vec<u32> = listed.iter().map(|room| height(room)).collect();
    assert!(
        heights.is_sorted_by(|upper, lower| upper >= lower),
        "the highest room comes first: {listed:?} {heights:?}"
    );
    for recipe in ["A store", "A database engine", "A subcommand", "A notice"] {
        assert!(text.contains(&format!("- **{recipe}**")), "no recipe for: {recipe}");
    }
}

#[test]
fn engines_the_archive_and_stores_do_not_know_each_other() {
    let rooms = ["engine", "archive", "store"];
    let mut wrong = Vec::new();
    for source in sources().into_iter().filter(|source| rooms.contains(&room(&source.path))) {
        let own = room(&source.path);
        let others = rooms_used(&source).into_iter().filter(|used| rooms.contains(&used.as_str()) && used != own);
        wrong.extend(others.map(|used| format!("{} uses {used}", source.path)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The files that may ask which engine a source has, beside `engine/source.rs`. The rest calls a method of the source.
const ASK_FOR_THE_ENGINE: [&str; 12] = [
    "config/sections.rs",
    "ops/diff.rs",
    "ops/doctor.rs",
    "ops/init/look.rs",
    "ops/inventory/mod.rs",
    "ops/migrate/inputs.rs",
    "ops/migrate/plan.rs",
    "ops/put_back.rs",
    "ops/restore/postgres.rs",
    "ops/restore/sqlite.rs",
    "ops/snapshot/mod.rs",
    "ops/sources.rs",
];

#[test]
fn the_engine_of_a_source_is_asked_for_in_few_places() {
    let asks = |source: &Source| ["Source::Sqlite(", "Source::Postgres("].iter().any(|word| source.code.contains(word));
    let sources = sources();
    let found: Vec<&str> = sources
        .iter()
        .filter(|source| source.path != "engine/source.rs" && asks(source))
        .map(|source| &*source.path)
        .collect();
    assert_eq!(found, ASK_FOR_THE_ENGINE, "a method of `engine::source::Source` says it for all callers");
}

#[test]
fn a_subcommand_never_imports_a_subcommand() {
    let shared = ["call", "checks", "github", "global", "mod", "narrow", "output"];
    for source in sources().into_iter().filter(|source| source.path.starts_with("cli/") && source.path != "cli/mod.rs")
    {
        for path in used(&source.code) {
            if let Some(rest) = path.strip_prefix("crate::cli::") {
                let other = rest.split("::").next().unwrap();
                let own = source.module.last().unwrap();
                assert!(other == own || shared.contains(&other), "{} imports {path}", source.path);
            }
        }
    }
}

#[test]
fn only_the_command_line_knows_arguments_and_prints() {
    let words = ["println!", "eprintln!", "print!(", "eprint!(", "io::stdout()", "io::stderr()", "dbg!(", "clap::"];
    for source in sources().into_iter().filter(|source| room(&source.path) != "cli") {
        for word in words {
            assert!(!source.code.contains(word), "{} has {word}", source.path);
        }
    }
}

#[test]
fn main_knows_only_the_command_line() {
    let sources = sources();
    let main = sources.iter().find(|source| source.path == "main.rs").unwrap();
    let used: Vec<&str> = main.text.split("lifeboat::").skip(1).map(|rest| rest.split("::").next().unwrap()).collect();
    assert_eq!(used, ["cli"]);
    assert!(main.text.lines().count() <= 30);
}

#[test]
fn nothing_is_unwrapped_outside_tests() {
    for source in sources() {
        for word in [".unwrap()", "panic!(", "todo!(", "unimplemented!(", ".expect(\"\")"] {
            assert!(!source.code.contains(word), "{} has {word}", source.path);
        }
    }
}

#[test]
fn every_file_begins_with_its_purpose() {
    for source in sources() {
        assert!(source.text.starts_with("//!"), "{} does not begin with its purpose", source.path);
    }
}

#[test]
fn use_lines_are_read_as_they_are_written() {
    let code = "use crate::{archive::{A, B}, store, error::C as D};\npub use crate::digest::E;\nuse super::x::*;\nfn reuse () {}";
    assert_eq!(
        used(code),
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
    assert_eq!(used("pub use child::X;\nuse child::Y;"), ["child::Y"]);
}

#[test]
fn circles_are_found() {
    let arrows = [BTreeSet::from([1]), BTreeSet::from([2]), BTreeSet::from([1, 3]), BTreeSet::new()];
    assert_eq!(circle(0, &arrows), None);
    assert_eq!(circle(1, &arrows), Some(vec![1, 2, 1]));
    assert_eq!(circle(3, &arrows), None);
}
