//! Chooses the names of sources for files that were found: short, and the same on every later run.
//!
//! A file that a store already knows keeps its name from there. A new file gets the name that `snapshot` would give it.
//! If another file of the run or of a store has that name, the names of the folders above are put before it, one after
//! the other, until no other file would get the same name. Files that are added later do not change names that were
//! given before.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::engine::sqlite::save::origin_of;
use crate::ops::Context;
use crate::platform::digest::Sha256;
use crate::platform::error::{Kind, Result};
use crate::snapshots::catalog::Catalog;
use crate::snapshots::id::SourceName;
use crate::snapshots::manifest::Origin;

/// The maximum number of folders above a file that its name may contain.
const MOST_FOLDERS: usize = 8;

/// The maximum number of bytes of a name before the suffix that makes it unique.
const STEM_BYTES: usize = 40;

/// The sources in the stores, with the origins of their newest snapshots, if they have any.
pub(super) struct Known {
    catalogs: Vec<Catalog>,
    sources: BTreeSet<SourceName>,
    origins: BTreeMap<SourceName, Vec<Origin>>,
    /// Names that the config uses.
    reserved: BTreeSet<SourceName>,
}

impl Known {
    /// Reads the stores that exist. A store that does not exist yet has no sources. If a store cannot be reached, the
    /// command that writes to it reports that later.
    pub(super) fn read(context: &Context, reserved: BTreeSet<SourceName>) -> Result<Self> {
        let mut known = Known { catalogs: Vec::new(), sources: BTreeSet::new(), origins: BTreeMap::new(), reserved };
        for store in context.all_stores()? {
            let found = context.open(store).and_then(|catalog| Ok((catalog.sources()?, catalog)));
            match found {
                Ok((sources, catalog)) => {
                    known.sources.extend(sources);
                    known.catalogs.push(catalog);
                }
                Err(error) if error.kind == Kind::Interrupted => return Err(error),
                Err(error) => tracing::info!("{}", error.full_message()),
            }
        }
        Ok(known)
    }

    /// Returns the origins of the snapshots of a source; empty if there are none.
    fn origins(&mut self, name: &SourceName) -> Result<&[Origin]> {
        if !self.origins.contains_key(name) {
            let mut origins = Vec::new();
            for catalog in self.catalogs.iter().filter(|_| self.sources.contains(name)) {
                match catalog.newest_full(name) {
                    Ok(found) => origins.extend(found.map(|manifest| manifest.origin)),
                    Err(error) if error.kind == Kind::Interrupted => return Err(error),
                    Err(error) => tracing::info!("{}", error.full_message()),
                }
            }
            self.origins.insert(name.clone(), origins);
        }
        Ok(self.origins.get(name).map_or(&[], Vec::as_slice))
    }
}

/// Returns a name for each of the files, whose paths are absolute and different.
pub(super) fn name(files: &[&Path], host: &str, known: &mut Known) -> Result<Vec<SourceName>> {
    let candidates: Vec<Vec<SourceName>> = files.iter().map(|file| candidates(file)).collect();
    let mut names: Vec<Option<SourceName>> = Vec::new();
    for (file, candidates) in files.iter().zip(&candidates) {
        // A path that is not UTF-8 has no origin, and is refused when it is saved.
        let origin = origin_of(file, host).ok();
        let mut found = None;
        for candidate in candidates {
            if origin.as_ref().is_some_and(|origin| known.origins(candidate).is_ok_and(|all| all.contains(origin))) {
                found = Some(candidate.clone());
                break;
            }
        }
        names.push(found);
    }
    let mut taken: BTreeSet<SourceName> = names.iter().flatten().cloned().collect();
    taken.extend(known.reserved.iter().cloned());
    let mut claims: BTreeMap<&SourceName, usize> = BTreeMap::new();
    for (candidates, _) in candidates.iter().zip(&names).filter(|(_, name)| name.is_none()) {
        for candidate in candidates.iter().collect::<BTreeSet<_>>() {
            *claims.entry(candidate).or_default() += 1;
        }
    }
    let mut chosen = Vec::new();
    for (name, candidates) in names.into_iter().zip(&candidates) {
        if let Some(name) = name {
            chosen.push(name);
            continue;
        }
        let mut free = None;
        for candidate in candidates {
            let is_free = claims.get(candidate) == Some(&1) && !taken.contains(candidate);
            if is_free && known.origins(candidate)?.is_empty() {
                free = Some(candidate.clone());
                break;
            }
        }
        // The last candidate contains the hash of the whole path, so no other file has it.
        let name = free.or_else(|| candidates.last().cloned()).expect("the last candidate is a hash of the path");
        taken.insert(name.clone());
        chosen.push(name);
    }
    Ok(chosen)
}

/// Returns the names that a file may get, the shortest first; the last is made of the hash of its whole path.
fn candidates(file: &Path) -> Vec<SourceName> {
    let words: Vec<String> = file.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let (last, folders) = words.split_last().map_or(("", &[][..]), |(last, folders)| (last.as_str(), folders));
    let plain = SourceName::derive(last);
    let mut names: Vec<SourceName> = plain.iter().cloned().collect();
    let mut text = last.to_owned();
    for folder in folders.iter().rev().filter(|folder| *folder != "/").take(MOST_FOLDERS) {
        text = format!("{folder}-{text}");
        // A name that is too long was cut, and may be equal to another.
        let name = SourceName::derive(&text).filter(|name| name.as_str().len() < SourceName::MAX_BYTES);
        names.extend(name.filter(|name| plain.is_some() && !names.contains(name)));
    }
    let hash = Sha256::of(std::os::unix::ffi::OsStrExt::as_bytes(file.as_os_str())).to_string();
    let stem = plain.as_ref().map_or("database", |name| name.as_str());
    let stem = stem.get(..stem.len().min(STEM_BYTES)).unwrap_or("database");
    names.extend(format!("{stem}-{}", hash.get(..12).unwrap_or(&hash)).parse::<SourceName>().ok());
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(origins: BTreeMap<SourceName, Vec<Origin>>) -> Known {
        Known { catalogs: Vec::new(), sources: BTreeSet::new(), origins, reserved: BTreeSet::new() }
    }

    fn names(files: &[&str]) -> Vec<String> {
        let paths: Vec<&Path> = files.iter().map(Path::new).collect();
        let mut known = known(BTreeMap::new());
        name(&paths, "host", &mut known).expect("nothing is read").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn unique_file_name_is_the_source_name() {
        assert_eq!(names(&["/data/app.db", "/data/my trades.sqlite3"]), ["app", "my-trades"]);
    }

    #[test]
    fn folders_distinguish_equal_names_in_any_order() {
        assert_eq!(names(&["/data/a/app.db", "/data/b/app.db", "/data/x.db"]), ["a-app", "b-app", "x"]);
        assert_eq!(names(&["/data/b/app.db", "/data/a/app.db"]), ["b-app", "a-app"]);
        assert_eq!(names(&["/a/x/app.db", "/b/x/app.db"]), ["a-x-app", "b-x-app"]);
        assert_eq!(names(&["/data/app.db", "/data/app.sqlite"]).len(), 2);
    }

    #[test]
    fn names_that_no_folder_distinguishes_have_a_hash() {
        let found = names(&["/data/app.db", "/data/app.sqlite"]);
        assert_ne!(found[0], found[1]);
        assert!(found.iter().all(|name| name.starts_with("app-") && name.len() == "app-".len() + 12), "{found:?}");
        let found = names(&["/data/交易.db", "/data/持仓.db"]);
        assert_ne!(found[0], found[1]);
        assert!(found.iter().all(|name| name.starts_with("database-")), "{found:?}");
    }

    #[test]
    fn name_in_a_store_is_kept_and_not_given_to_another_file() {
        let origin = |path: &str| origin_of(Path::new(path), "host").expect("it is UTF-8");
        let app: SourceName = "app".parse().expect("a name");
        let origins = BTreeMap::from([(app, vec![origin("/data/a/app.db")])]);
        let mut known = known(origins);
        let files = [Path::new("/data/b/app.db"), Path::new("/data/a/app.db")];
        let found = name(&files, "host", &mut known).expect("nothing is read");
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), ["b-app", "app"]);
        let found = name(&files[..1], "host", &mut known).expect("nothing is read");
        assert_eq!(found[0].as_str(), "b-app");
    }
}
