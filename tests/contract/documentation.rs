//! The README and the pages of `docs`: their links, their lengths, and the release that contains them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::actions::repository;
use crate::support::{Sandbox, have};

/// Returns all pages, by their paths in the repository.
fn pages() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = ["", "docs"]
        .iter()
        .flat_map(|folder| fs::read_dir(repository().join(folder)).unwrap().flatten())
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    found.sort();
    assert!(found.len() > 10, "{found:?}");
    found
}

/// Returns the lines of a page that are not in a fenced block, with their numbers.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut is_code = false;
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            lines.push((number + 1, line));
        }
    }
    assert!(!is_code, "a block is not closed");
    lines
}

/// Returns the name by which GitHub links to a heading.
fn anchor(heading: &str) -> String {
    let letters = heading.trim().to_lowercase().replace(' ', "-");
    letters.chars().filter(|character| character.is_alphanumeric() || "-_".contains(*character)).collect()
}

fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text).into_iter().filter(|(_, line)| line.starts_with('#'));
    headings.map(|(_, line)| anchor(line.trim_start_matches('#'))).collect()
}

/// Returns a message if a link on a page does not lead to a file, or to a heading of it.
fn broken(page: &Path, link: &str) -> Option<String> {
    if link.starts_with("https://") {
        return None;
    }
    let (path, heading) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() { page.to_owned() } else { page.parent().unwrap().join(path) };
    if !target.exists() {
        return Some("no such file".to_owned());
    }
    let is_there =
        heading.is_empty() || anchors(&fs::read_to_string(&target).unwrap()).iter().any(|one| one == heading);
    (!is_there).then(|| format!("{} has no such heading", target.display()))
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let (mut problems, mut count) = (Vec::new(), 0);
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for (number, line) in prose(&text) {
            for link in line.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
                count += 1;
                if let Some(problem) = broken(&page, link) {
                    problems.push(format!("{}:{number}: {link}: {problem}", page.display()));
                }
            }
        }
    }
    assert!(count > 30, "only {count} links were found");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_script_that_a_page_names_exists() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let is_path = |character: char| character.is_ascii_alphanumeric() || "-_./".contains(character);
        for (at, _) in text.match_indices("scripts/") {
            let path: String = text[at..].chars().take_while(|character| is_path(*character)).collect();
            let path = path.trim_end_matches('.');
            assert!(repository().join(path).exists(), "{}: {path}", page.display());
        }
    }
}

/// Tables and fenced blocks may have longer lines.
#[test]
fn the_readme_is_short_and_so_are_the_lines_of_all_pages() {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    assert!(readme.lines().count() <= 150, "README.md has {} lines; move some to docs", readme.lines().count());
    for page in pages().iter().filter(|page| !page.ends_with("CHANGELOG.md")) {
        for (number, line) in prose(&fs::read_to_string(page).unwrap()) {
            let length = line.chars().count();
            assert!(length <= 128 || line.starts_with('|'), "{}:{number}: {length} characters", page.display());
        }
    }
}

/// Returns the fenced blocks of a page, each with its language.
fn blocks(text: &str) -> Vec<&str> {
    text.split("\n```").skip(1).step_by(2).collect()
}

#[test]
fn the_chinese_readme_has_the_same_commands_links_and_sections() {
    let [english, chinese] =
        ["README.md", "README.zh.md"].map(|name| fs::read_to_string(repository().join(name)).unwrap());
    assert_eq!(blocks(&english), blocks(&chinese));
    let links = |text: &str| -> Vec<String> {
        let links = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap().to_owned());
        links.filter(|link| !link.starts_with("README")).collect()
    };
    assert_eq!(links(&english), links(&chinese));
    let levels = |text: &str| -> Vec<usize> {
        prose(text)
            .iter()
            .map(|(_, line)| line.len() - line.trim_start_matches('#').len())
            .filter(|level| *level > 0)
            .collect()
    };
    assert_eq!(levels(&english), levels(&chinese));
}

#[test]
fn a_release_contains_the_readme_and_all_pages_of_docs() {
    if !have(&["tar", "gzip"]) {
        return;
    }
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("lifeboat"), "a program").unwrap();
    let package = Command::new(repository().join("scripts/package"))
        .args(["archive", "lifeboat", "target", "dist"])
        .current_dir(sandbox.root())
        .status();
    assert!(package.unwrap().success());
    let listing = Command::new("tar").arg("tzf").arg(sandbox.path("dist/lifeboat-target.tar.gz")).output().unwrap();
    let listing = String::from_utf8(listing.stdout).unwrap();
    for page in pages() {
        let path = page.strip_prefix(repository()).unwrap().to_str().unwrap();
        let is_for_users = path != "CONTRIBUTING.md";
        assert_eq!(listing.lines().any(|line| line == path), is_for_users, "{path}\n{listing}");
    }
}
