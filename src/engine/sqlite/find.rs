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

use super::connection::{companion, file_bytes};
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
enum Named {
    ByHand,
    InTree,
}

/// The usual file name endings of databases; only for remarks on files that are not databases.
const USUAL_ENDINGS: [&str; 5] = ["db", "db3", "sqlite", "sqlite3", "s3db"];

/// Folders of the kernel's virtual file systems.
const KERNELS: [&str; 3] = ["/proc", "/sys", "/dev"];

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
                self.file(path, &facts, Named::ByHand);
                Ok(())
            }
            Err(error) => {
                let told = Error::problem(format!("cannot look at {}", shown(path))).because(error);
                self.problem(path, told.hint("check the path; in a container, check that its volume is mounted"));
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
                        let told = Error::problem(format!("cannot list the folder {}", shown(&path))).because(error);
                        self.problem(&path, told.hint("run as a user who may read it"));
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
                if own.is_dir() && KERNELS.iter().any(|kernels| real == Path::new(kernels)) {
                    self.note(&path, "passed over: what the kernel shows as files");
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
            return self.file(path, own, Named::InTree);
        }
        match fs::metadata(path) {
            Ok(facts) if facts.is_dir() => self.folder_links.push((path.to_owned(), identity(&facts))),
            Ok(facts) => self.file(path, &facts, Named::InTree),
            // Many links lead nowhere; a link with the name of a database should not.
            Err(error) if is_nowhere(&error) && !is_called_a_database(path) => {}
            Err(error) => {
                let told = Error::problem(format!("{} is a link that leads nowhere", shown(path)));
                let told = if is_nowhere(&error) {
                    told.hint("check that what it leads to is mounted, or remove the link")
                } else {
                    Error::problem(format!("cannot look at what {} leads to", shown(path)))
                };
                self.problem(path, told.because(error));
            }
        }
    }

    fn file(&mut self, path: &Path, facts: &Metadata, named: Named) {
        if !facts.is_file() {
            if named == Named::ByHand {
                self.problem(path, Error::problem(format!("{} is no regular file", shown(path))));
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
        if !self.others.insert(identity) && named == Named::InTree {
            return;
        }
        // The link may lead elsewhere by now, so it is resolved again; a link in the last part is not followed a second
        // time.
        let content = path.canonicalize().and_then(|real| Content::read(&real));
        let is_expected =
            is_called_a_database(path) || ["-wal", "-journal"].iter().any(|end| file_bytes(&companion(path, end)) > 0);
        let shown = shown(path);
        match content {
            Ok(Content::Database(header)) => {
                self.others.remove(&identity);
                self.databases.insert(identity, (vec![path.to_owned()], header));
            }
            Ok(Content::Damaged) => {
                let told = Error::problem(format!("{shown} is damaged: its header makes no sense"));
                self.problem(path, told.hint("'lifeboat list' shows what there is to restore"));
            }
            // Named by a pattern such as 'data/*': it is a part of the database beside it.
            Ok(Content::Empty | Content::Other | Content::Companion)
                if named == Named::ByHand && is_companion_of_one(path) => {}
            Ok(Content::Empty) if named == Named::ByHand => {
                let told = Error::problem(format!("{shown} is not a database: it has 0 bytes"));
                self.problem(path, told.hint("check that this is the right file and that its volume is mounted"));
            }
            Ok(Content::Empty) if is_expected => self.note(path, "not a database: it has 0 bytes"),
            Ok(Content::Companion) if named == Named::InTree => {
                if let Some(main) = without_companion(path).filter(|main| fs::symlink_metadata(main).is_err()) {
                    let name = main.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    self.note(path, format!("it belongs to {name}, which is not there"));
                }
            }
            Ok(Content::Other | Content::Companion) if named == Named::ByHand => {
                let told = Error::problem(format!("{shown} is not an SQLite database"));
                self.problem(path, told.hint("it may be an encrypted one, or one whose header is damaged"));
            }
            Ok(Content::Other) if is_expected => {
                self.note(path, "not an SQLite database: encrypted, damaged, or something else");
            }
            Ok(Content::Empty | Content::Other | Content::Companion) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && named == Named::InTree => {}
            Err(error) => {
                let told = Error::problem(format!("cannot read {shown}")).because(error);
                self.problem(path, told.hint("run as a user who may read it"));
            }
        }
    }

    fn finish(mut self) -> Found {
        for (path, identity) in std::mem::take(&mut self.folder_links) {
            if !self.folders.contains(&identity) {
                self.note(&path, "a link to a folder, which is not followed: name it to look there too");
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
                let told = Error::problem(format!(
                    "{} and {} are one file, and each has a WAL or journal of its own",
                    shown(first),
                    shown(second)
                ));
                self.problem(first, told.hint("close every program that uses it, and keep one of the names"));
            }
            let by_hand_or_link = links.first().cloned();
            let Some(path) = with.into_iter().next().or_else(|| names.first().cloned()).or(by_hand_or_link) else {
                continue;
            };
            let real_path = match path.canonicalize() {
                Ok(real) => real,
                Err(error) => {
                    self.problem(&path, Error::problem(format!("cannot find {} again", shown(&path))).because(error));
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

fn is_nowhere(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

fn is_called_a_database(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default();
    USUAL_ENDINGS.iter().any(|usual| ending.eq_ignore_ascii_case(usual))
}

/// Returns true if a file has the name of a companion of an existing database.
fn is_companion_of_one(path: &Path) -> bool {
    let main = without_companion(path).and_then(|main| main.canonicalize().ok());
    main.is_some_and(|main| matches!(Content::read(&main), Ok(Content::Database(_))))
}

/// Returns the database that a file is a companion of, by its name.
fn without_companion(path: &Path) -> Option<PathBuf> {
    let name = path.as_os_str().as_bytes();
    let main = COMPANIONS.iter().find_map(|suffix| name.strip_suffix(suffix.as_bytes()))?;
    Some(PathBuf::from(OsStr::from_bytes(main)))
}
