//! Finds databases in directory trees by the content of the files. What cannot be read is reported, never silently
//! skipped.
//!
//! Links to files are followed, and a file with several names is one database. Links to folders are followed only if
//! the user names them, so every walk ends. Files are opened and closed here outside SQLite, so nothing in this process
//! may have one of these databases open meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::companions;
use super::files::{companion, file_bytes};
use super::header::{Content, Header};
use crate::platform::disk::shown;
use crate::platform::error::{Error, Result};

/// The result of a search.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The databases, by path.
    pub databases: Vec<FoundDatabase>,
    /// Remarks that are worth mentioning but are not failures.
    pub notes: Vec<Remark<String>>,
    /// The problems that make the list incomplete.
    pub problems: Vec<Remark<Error>>,
}

/// A remark on a path.
#[derive(Clone, Debug)]
pub(crate) struct Remark<T> {
    /// The path.
    pub path: PathBuf,
    /// The remark.
    pub what: T,
}

/// A file that is a database.
#[derive(Clone, Debug)]
pub(crate) struct FoundDatabase {
    /// The path at which it was found.
    pub path: PathBuf,
    /// Other names of the same file: links that lead to it, hard links.
    pub other_paths: Vec<PathBuf>,
    /// The absolute path with links resolved; of several hard links, the one that has a WAL or journal.
    pub real_path: PathBuf,
    /// The header of the file.
    pub header: Header,
}

/// Device and inode.
type Identity = (u64, u64);

/// The origin of a path: named by the user, or found in a tree.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    User,
    Tree,
}

/// The usual file name endings of databases; only for remarks on files that are not databases.
const USUAL_ENDINGS: [&str; 5] = ["db", "db3", "sqlite", "sqlite3", "s3db"];

/// Folders of the kernel's virtual file systems.
const KERNEL_FOLDERS: [&str; 3] = ["/proc", "/sys", "/dev"];

/// The endings of the files beside a database that are part of it.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Searches for databases in files and folders. Fails only if a signal asks to stop.
pub(crate) fn find(paths: &[PathBuf]) -> Result<Found> {
    let mut walk = Walk::default();
    for path in paths {
        walk.start(path)?;
    }
    Ok(walk.finish())
}

#[derive(Default)]
struct Walk {
    found: Found,
    /// The names of every database, the first one as it was found.
    databases: BTreeMap<Identity, (Vec<PathBuf>, Header)>,
    /// Other files that were inspected.
    others: BTreeSet<Identity>,
    folders: BTreeSet<Identity>,
    /// Links to folders, which may also be walked under another name.
    folder_links: Vec<(PathBuf, Identity)>,
}

impl Walk {
    fn note(&mut self, path: &Path, what: impl Into<String>) {
        self.found.notes.push(Remark { path: path.to_owned(), what: what.into() });
    }

    fn problem(&mut self, path: &Path, what: Error) {
        self.found.problems.push(Remark { path: path.to_owned(), what });
    }

    fn start(&mut self, path: &Path) -> Result<()> {
        match fs::metadata(path) {
            Ok(facts) if facts.is_dir() => self.folder(path, &facts),
            Ok(facts) => {
                self.file(path, &facts, Origin::User);
                Ok(())
            }
            Err(error) => {
                let problem = Error::problem(format!("cannot access {}", shown(path))).because(error);
                self.problem(path, problem.hint("check the path; in a container, check that its volume is mounted"));
                Ok(())
            }
        }
    }

    fn folder(&mut self, path: &Path, facts: &Metadata) -> Result<()> {
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let mut waiting = vec![(path.to_owned(), real, identity(facts))];
        while let Some((path, real, identity)) = waiting.pop() {
            crate::platform::interrupt::check()?;
            if !self.folders.insert(identity) {
                continue;
            }
            let mut names = match list(&path) {
                Ok(names) => names,
                Err(error) => {
                    // A folder that has been removed since its name was read has nothing to list.
                    if error.kind() != io::ErrorKind::NotFound {
                        let problem = Error::problem(format!("cannot list the folder {}", shown(&path))).because(error);
                        self.problem(&path, problem.hint("run as a user who can read it"));
                    }
                    continue;
                }
            };
            names.sort();
            let mut below = Vec::new();
            for name in names {
                crate::platform::interrupt::check()?;
                let (path, real) = (path.join(&name), real.join(&name));
                let Ok(own) = fs::symlink_metadata(&path) else { continue };
                if own.is_dir() && KERNEL_FOLDERS.iter().any(|folder| real == Path::new(folder)) {
                    self.note(&path, "skipped: a virtual file system of the kernel");
                } else if own.is_dir() {
                    below.push((path, real, self::identity(&own)));
                } else {
                    self.entry(&path, &own);
                }
            }
            // The last element is taken first.
            waiting.extend(below.into_iter().rev());
        }
        Ok(())
    }

    /// Inspects an entry of a folder that is not a folder itself.
    fn entry(&mut self, path: &Path, own: &Metadata) {
        if !own.is_symlink() {
            return self.file(path, own, Origin::Tree);
        }
        match fs::metadata(path) {
            Ok(facts) if facts.is_dir() => self.folder_links.push((path.to_owned(), identity(&facts))),
            Ok(facts) => self.file(path, &facts, Origin::Tree),
            // Broken links are common, but a link with the name of a database should not be broken.
            Err(error) if is_broken_link(&error) && !has_database_name(path) => {}
            Err(error) => {
                let problem = if is_broken_link(&error) {
                    Error::problem(format!("{} is a broken link: its target does not exist", shown(path)))
                        .hint("check that the volume of its target is mounted, or remove the link")
                } else {
                    Error::problem(format!("cannot access the target of the link {}", shown(path)))
                };
                self.problem(path, problem.because(error));
            }
        }
    }

    fn file(&mut self, path: &Path, facts: &Metadata, origin: Origin) {
        if !facts.is_file() {
            if origin == Origin::User {
                self.problem(path, Error::problem(format!("{} is not a regular file", shown(path))));
            }
            return;
        }
        let identity = identity(facts);
        if let Some((paths, _)) = self.databases.get_mut(&identity) {
            if !paths.iter().any(|known| known == path) {
                paths.push(path.to_owned());
            }
            return;
        }
        if !self.others.insert(identity) && origin == Origin::Tree {
            return;
        }
        // The link may point to another file by now, so it is resolved again; a link in the last part is not followed a
        // second time.
        let (real, content) = match path.canonicalize() {
            Ok(real) => (real.clone(), content_of(&real)),
            Err(error) => (path.to_owned(), Err(error)),
        };
        // SQLite names the companions after the file, not after a link to it.
        let is_expected =
            has_database_name(path) || ["-wal", "-journal"].iter().any(|end| file_bytes(&companion(&real, end)) > 0);
        let shown = shown(path);
        match content {
            Ok(Content::Database(header)) => {
                self.others.remove(&identity);
                self.databases.insert(identity, (vec![path.to_owned()], header));
            }
            Ok(Content::Damaged) => {
                let problem = Error::problem(format!("{shown} is damaged: its header is invalid"));
                self.problem(path, problem.hint("'lifeboat list' shows the snapshots that can be restored"));
            }
            // Named by a pattern such as 'data/*': it is a part of the database beside it.
            Ok(Content::Empty | Content::Other | Content::Companion)
                if origin == Origin::User && is_companion_of_one(path) => {}
            Ok(Content::Empty | Content::Other) if companions::rest_of_database(&real).is_some() => {
                let rest = companions::rest_of_database(&real).unwrap_or_default();
                let problem = Error::problem(format!("the files of {shown} do not belong together: {rest}"));
                self.problem(path, problem.hint(companions::HINT));
            }
            Ok(Content::Empty) if origin == Origin::User => {
                let problem = Error::problem(format!("{shown} is not a database: it has 0 bytes"));
                self.problem(path, problem.hint("check that this is the right file and that its volume is mounted"));
            }
            Ok(Content::Empty) if is_expected => self.note(path, "not a database: it has 0 bytes"),
            Ok(Content::Companion) if origin == Origin::Tree => {
                if let Some(main) = database_of(path).filter(|main| fs::symlink_metadata(main).is_err()) {
                    let name = main.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    self.note(path, format!("it belongs to {name}, which does not exist"));
                }
            }
            Ok(Content::Other | Content::Companion) if origin == Origin::User => {
                let problem = Error::problem(format!("{shown} is not an SQLite database"));
                self.problem(path, problem.hint("it may be encrypted, or its header may be damaged"));
            }
            Ok(Content::Other) if is_expected => {
                self.note(path, "not an SQLite database: it may be encrypted, damaged, or a file of another type");
            }
            Ok(Content::Empty | Content::Other | Content::Companion) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && origin == Origin::Tree => {}
            Err(error) => {
                let problem = Error::problem(format!("cannot read {shown}")).because(error);
                self.problem(path, problem.hint("run as a user who can read it"));
            }
        }
    }

    fn finish(mut self) -> Found {
        for (path, identity) in std::mem::take(&mut self.folder_links) {
            if !self.folders.contains(&identity) {
                self.note(&path, "a link to a folder, which is not followed: name the link to search that folder too");
            }
        }
        for (paths, header) in std::mem::take(&mut self.databases).into_values() {
            let is_link = |path: &Path| fs::symlink_metadata(path).is_ok_and(|facts| facts.is_symlink());
            let (links, mut names): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| is_link(path));
            names.sort();
            // SQLite names a WAL after the path by which the database was opened. It does not belong to the database's
            // other names.
            let has_companion = |path: &PathBuf| {
                COMPANIONS.iter().any(|suffix| *suffix != "-shm" && file_bytes(&companion(path, suffix)) > 0)
            };
            let with: Vec<PathBuf> = names.iter().filter(|path| has_companion(path)).cloned().collect();
            if let [first, second, ..] = with.as_slice() {
                let problem = Error::problem(format!(
                    "{} and {} are the same file, but each has its own WAL or journal",
                    shown(first),
                    shown(second)
                ));
                let hint = "stop every program that uses the file, and keep only one of the names";
                self.problem(first, problem.hint(hint));
            }
            let first_link = links.first().cloned();
            let Some(path) = with.into_iter().next().or_else(|| names.first().cloned()).or(first_link) else {
                continue;
            };
            let real_path = match path.canonicalize() {
                Ok(real) => real,
                Err(error) => {
                    let problem = Error::problem(format!("cannot resolve the path {}", shown(&path)));
                    self.problem(&path, problem.because(error));
                    continue;
                }
            };
            let mut other_paths: Vec<PathBuf> = names.into_iter().chain(links).filter(|name| *name != path).collect();
            other_paths.sort();
            self.found.databases.push(FoundDatabase { path, other_paths, real_path, header });
        }
        self.found.databases.sort_by(|one, other| one.path.cmp(&other.path));
        self.found
    }
}

fn list(folder: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
}

fn identity(facts: &Metadata) -> Identity {
    (facts.dev(), facts.ino())
}

fn is_broken_link(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

fn has_database_name(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default();
    USUAL_ENDINGS.iter().any(|usual| ending.eq_ignore_ascii_case(usual))
}

/// Returns true if a file has the name of a companion of an existing database.
fn is_companion_of_one(path: &Path) -> bool {
    let main = database_of(path).and_then(|main| main.canonicalize().ok());
    main.is_some_and(|main| matches!(content_of(&main), Ok(Content::Database(_))))
}

/// Determines the content of a file: also a database whose header is only in its WAL or journal.
fn content_of(path: &Path) -> io::Result<Content> {
    let content = Content::read(path)?;
    match content {
        Content::Damaged | Content::Other => Ok(companions::header_beside(path).map_or(content, Content::Database)),
        _ => Ok(content),
    }
}

/// Returns the path of the database that a companion file belongs to, by its name.
fn database_of(path: &Path) -> Option<PathBuf> {
    let name = path.as_os_str().as_bytes();
    let main = COMPANIONS.iter().find_map(|suffix| name.strip_suffix(suffix.as_bytes()))?;
    Some(PathBuf::from(OsStr::from_bytes(main)))
}
