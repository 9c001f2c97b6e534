//! Holds the rooms of the source tree apart: imports point down.

use std::collections::BTreeSet;
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

/// The paths that the `use` lines of a text name. `pub use` of what is below in the same folder gives it another name and
/// is left out: the file itself does not need it.
fn used(code: &str) -> Vec<String> {
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

/// The path without `crate` that a path of a `use` line in `module` means; `None` for other crates.
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
        _ => None,
    }
}

/// How high a room lies; a file imports from its own room and from lower ones.
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

#[test]
fn only_the_command_line_prints() {
    let words = ["println!", "eprintln!", "print!(", "eprint!(", "io::stdout()", "io::stderr()", "dbg!("];
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
    assert_eq!(resolve("std::fs", &module), None);
}
