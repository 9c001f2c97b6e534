//! Holds the layers apart: imports point down, and the lower rooms do not know one another.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Every file of the program: its path below `src`, and what is not its unit tests.
fn sources() -> Vec<(String, String)> {
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
        // A room's own tests stand at its end.
        let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap().to_owned();
        (path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), text)
    };
    paths.into_iter().map(read).collect()
}

/// The room that a file is in: its first folder, or its own name.
fn room(path: &str) -> &str {
    path.split('/').next().unwrap().trim_end_matches(".rs")
}

/// The text without comments, so that only code counts.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// The rooms that a text refers to, by `use crate::` or in passing; `use crate::{a::X, b}` counts as both.
fn rooms_used(text: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for rest in code(text).split("crate::").skip(1) {
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut word) = (0, String::new());
            for character in group.chars() {
                match character {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        used.insert(std::mem::take(&mut word).trim().split(':').next().unwrap().to_owned());
                    }
                    _ if depth == 0 => word.push(character),
                    _ => {}
                }
            }
            used.insert(word.trim().split(':').next().unwrap().to_owned());
        } else {
            used.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    used.retain(|word| !word.is_empty());
    used
}

/// How high a room lies; imports go to lower numbers only, or within the room.
fn height(room: &str) -> u32 {
    match room {
        "main" => 8,
        "lib" => 8,
        "cli" => 7,
        // What a person sees is made of what commands report.
        "output" | "github" => 6,
        "commands" => 5,
        "config" | "migrate" => 4,
        "catalog" | "rules" | "source" => 3,
        "engine" | "archive" | "store" | "notify" | "preflight" => 2,
        "retention" | "manifest" | "scratch" | "supervise" | "text" | "id" | "http" | "metrics" | "page" | "web" => 1,
        "digest" | "disk" | "duration" | "error" | "interrupt" | "progress" | "ranged" | "secret" | "tls" => 0,
        other => panic!("the room '{other}' has no height yet: say here where it belongs"),
    }
}

#[test]
fn imports_point_down() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let own = room(&path).to_owned();
        for used in rooms_used(&text) {
            let peers = height(&own) == height(&used) && height(&own) < 2;
            if used != own && height(&used) >= height(&own) && !peers {
                wrong.push(format!("{path} uses {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that do not point down:\n{}", wrong.join("\n"));
}

#[test]
fn engines_the_archive_and_stores_do_not_know_each_other() {
    let rooms = ["engine", "archive", "store"];
    let mut wrong = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| rooms.contains(&room(path))) {
        let strangers =
            rooms_used(&text).into_iter().filter(|used| rooms.contains(&used.as_str()) && used != room(&path));
        wrong.extend(strangers.map(|used| format!("{path} uses {used}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_below_the_commands_knows_of_them_or_of_the_terminal() {
    let above = ["commands", "cli", "output"];
    for (path, text) in sources() {
        if height(room(&path)) < height("commands") {
            let used: Vec<_> = rooms_used(&text).into_iter().filter(|used| above.contains(&used.as_str())).collect();
            assert!(used.is_empty(), "{path} uses {used:?}");
        }
    }
}

#[test]
fn main_knows_only_the_command_line() {
    let (_, text) = sources().into_iter().find(|(path, _)| path == "main.rs").unwrap();
    let used: Vec<&str> = text.split("lifeboat::").skip(1).map(|rest| rest.split("::").next().unwrap()).collect();
    assert_eq!(used, ["cli"]);
    assert!(text.lines().count() <= 30);
}

#[test]
fn only_the_command_line_and_its_output_print() {
    let printing = ["println!", "eprintln!", "print!(", "eprint!(", "io::stdout()", "io::stderr()", "dbg!("];
    for (path, text) in sources().into_iter().filter(|(path, _)| path != "cli.rs" && path != "output.rs") {
        for word in printing {
            assert!(!code(&text).contains(word), "{path} has {word}");
        }
    }
}

#[test]
fn nothing_is_unwrapped_outside_tests() {
    for (path, text) in sources() {
        for word in [".unwrap()", "panic!(", "todo!(", "unimplemented!(", ".expect(\"\")"] {
            assert!(!code(&text).contains(word), "{path} has {word}");
        }
    }
}

#[test]
fn every_room_says_what_it_is() {
    for (path, text) in sources() {
        assert!(text.starts_with("//!"), "{path} does not begin with a word on its job");
    }
}

#[test]
fn imports_are_read_as_they_are_written() {
    let text = "use crate::{archive::{A, B}, store, error::C};\nuse crate::digest::D; // crate::not_this\nfn f() -> crate::id::E {}";
    let used: Vec<String> = rooms_used(text).into_iter().collect();
    assert_eq!(used, ["archive", "digest", "error", "id", "store"]);
}
