//! The owner, mode, access control list and other attributes of a database file: recorded by a snapshot, and given to
//! the file that a restore creates, so that the program of the database can still open and write it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rusqlite::Connection;

use super::files::{FileIdentity, companion};
use super::image::ImageFile;
use super::main_file::MainFile;
use crate::platform::attributes::{self, Extended, Group, NotSet, Owner, Wanted, group_of};
use crate::platform::disk::{folder_of, shown};
use crate::platform::error::{IoContext, Kind, Result, one_line};
use crate::platform::file_birth::FileBirth;
use crate::platform::node::{FileReference, Node};
use crate::platform::shell::quote_path;
use crate::snapshots::manifest::{FileOwner, Manifest, SqliteFacts};

/// Records owner and attributes of a database file.
pub(super) fn record(path: &Path, facts: &mut SqliteFacts) {
    // The file is not opened: closing a descriptor would drop the locks of this process.
    let Ok(found) = fs::symlink_metadata(path) else { return };
    facts.file_birth = FileBirth::at(path);
    facts.file_owner = Some(FileOwner { uid: found.uid(), gid: found.gid() });
    match attributes::read_extended(path) {
        Ok((extended, left_out)) => {
            facts.file_attributes = extended.into_iter().map(|(name, value)| (name, hex::encode(value))).collect();
            for attribute in left_out {
                tracing::warn!("an attribute of {} is not saved: {attribute}", shown(path));
            }
        }
        Err(error) => tracing::warn!("the attributes of {} are not saved: {error}", shown(path)),
    }
}

/// The source of the owner of a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    /// The owner that the snapshot recorded.
    Recorded(Owner),
    /// The owner of the folder.
    Folder(Owner),
}

/// The facts that decide who owns a new file.
#[derive(Clone, Copy, Debug)]
struct Situation {
    recorded: Option<Owner>,
    /// True if the target has the path of the saved file.
    is_same_path: bool,
    /// True if the target is on the machine of the saved file.
    is_same_host: bool,
    folder: Owner,
    folder_mode: u32,
}

impl Situation {
    /// Chooses the owner. On another machine, and in another folder, the number of a user may stand for another person:
    /// there the recorded owner is used only if the folder confirms it.
    fn choose(self) -> Choice {
        let Some(recorded) = self.recorded else { return Choice::Folder(self.folder) };
        // A folder of root says nothing about the program, unless the recorded owner can work in it.
        let may_write =
            self.folder_mode & 0o002 != 0 || (self.folder_mode & 0o020 != 0 && self.folder.gid == recorded.gid);
        let is_confirmed = self.folder.uid == recorded.uid
            || (self.is_same_path && (self.is_same_host || (self.folder.uid == 0 && may_write)));
        if is_confirmed { Choice::Recorded(recorded) } else { Choice::Folder(self.folder) }
    }
}

fn recorded_owner(manifest: &Manifest) -> Option<Owner> {
    let owner = manifest.sqlite.as_ref()?.file_owner?;
    Some(Owner { uid: owner.uid, gid: owner.gid })
}

/// Returns the owner of the folders that are created for a restore to the path of the saved file on the same machine,
/// where they are created in a folder of root.
pub(super) fn owner_for_folders(manifest: &Manifest, target: &Path, host: &str) -> Option<Owner> {
    let origin = &manifest.origin;
    let is_same = origin.host == host && origin.path.as_deref().is_some_and(|path| Path::new(path) == target);
    recorded_owner(manifest).filter(|_| is_same)
}

/// The owner and the attributes of a new file at a target, with the reasons.
struct NewFile<'a> {
    target: &'a Path,
    saved_host: String,
    situation: Situation,
    choice: Choice,
    is_root: bool,
    /// True if the saved file has an access control list that the new one does not get.
    has_other_acl: bool,
    wanted: Wanted,
}

impl<'a> NewFile<'a> {
    /// Decides what a new file gets.
    fn decide(manifest: &Manifest, target: &'a Path, host: &str) -> Result<Self> {
        let folder = fs::metadata(folder_of(target))
            .io(Kind::Failed, || format!("cannot read the owner of the folder of {}", shown(target)))?;
        let origin = &manifest.origin;
        let situation = Situation {
            recorded: recorded_owner(manifest),
            is_same_path: origin.path.as_deref().is_some_and(|path| Path::new(path) == target),
            is_same_host: origin.host == host,
            folder: Owner::of(&folder),
            folder_mode: folder.mode(),
        };
        let choice = situation.choose();
        let is_root = rustix::process::geteuid().is_root();
        let is_recorded = matches!(choice, Choice::Recorded(_));
        let owner = match choice {
            Choice::Recorded(owner) => Some(owner),
            // Other users create files of their own.
            Choice::Folder(owner) => Some(owner).filter(|_| is_root),
        };
        let facts = manifest.sqlite.as_ref();
        let is_kept = |group: Group| match group {
            Group::Acl => is_recorded,
            Group::Selinux => situation.is_same_path && situation.is_same_host,
            Group::User => true,
        };
        let mut extended = Extended::new();
        for (name, value) in facts.iter().flat_map(|facts| &facts.file_attributes) {
            // A manifest may be forged: it cannot set capabilities.
            if let (Some(group), Ok(value)) = (group_of(name), hex::decode(value))
                && is_kept(group)
            {
                extended.insert(name.clone(), value);
            }
        }
        let has_other_acl = facts.is_some_and(|facts| {
            facts.file_attributes.keys().any(|name| group_of(name) == Some(Group::Acl) && !extended.contains_key(name))
        });
        let mode = facts.map_or(0o600, |facts| facts.file_mode & 0o777);
        let wanted = Wanted { owner, mode, extended, is_exact: is_recorded };
        let saved_host = one_line(&origin.host);
        Ok(NewFile { target, saved_host, situation, choice, is_root, has_other_acl, wanted })
    }

    /// Returns what a file of root gets that is restored: the program of the database runs as another user, and could
    /// not write to it. Returns `None` if the old file keeps its owner.
    fn in_place_of(&self, old: &fs::Metadata, extended: Extended) -> Option<Wanted> {
        let owner = self.wanted.owner.filter(|owner| old.uid() == 0 && owner.uid != 0)?;
        Some(Wanted { owner: Some(owner), mode: old.mode() & 0o777 | 0o600, extended, is_exact: true })
    }

    /// Returns what a file without bytes gets: what a new file gets. But a user other than root who owns the folder, or
    /// whom no recorded owner contradicts, keeps the file: that is the user of the program by now.
    fn in_place_of_nothing(&self, old: Owner) -> Wanted {
        let folder = self.situation.folder;
        let is_kept = match self.choice {
            Choice::Folder(_) => true,
            Choice::Recorded(recorded) => folder.uid == old.uid && folder.uid != recorded.uid,
        };
        let owner = if old.uid != 0 && is_kept { Some(old) } else { self.wanted.owner };
        Wanted { owner, ..self.wanted.clone() }
    }

    /// Returns a note on a file that has another owner now.
    fn note_on_old_owner(&self, old: Owner, now: Owner) -> Option<String> {
        let reason = match self.choice {
            Choice::Recorded(_) => "as the saved file did",
            Choice::Folder(_) => "like its folder",
        };
        let place = shown(self.target);
        (old != now).then(|| format!("{place} belonged to {old}, and now belongs to {now}, {reason}"))
    }

    /// Returns notes on what differs from the saved file.
    fn notes(&self, now: Owner, not_set: &NotSet) -> Vec<String> {
        let NewFile { target, saved_host, situation, .. } = self;
        let mut notes = notes(target, now, self.wanted.owner, not_set);
        let place = shown(target);
        match (self.choice, situation.recorded) {
            (Choice::Recorded(owner), _) if not_set.owner.is_none() && !situation.is_same_host => {
                notes.push(format!("{place} belongs to {owner}, as the saved file on {saved_host} did"));
            }
            (Choice::Folder(_), Some(recorded)) if recorded != now => {
                let like_folder = if now == situation.folder { ", like its folder" } else { "" };
                notes.push(format!(
                    "{place} belongs to {now}{like_folder}; the saved file belonged to {recorded} on {saved_host}: to \
                     give it that owner, run as root: chown {recorded} {}",
                    quote_path(target)
                ));
            }
            (Choice::Folder(_), None) if self.is_root && now.uid != 0 && not_set.owner.is_none() => {
                notes.push(format!("{place} belongs to {now}, like its folder; the snapshot does not name an owner"));
            }
            _ => {}
        }
        if self.has_other_acl {
            notes.push(format!(
                "{place} has no access control list, because the one of the saved file names users of {saved_host}; \
                 'setfacl' sets a new one"
            ));
        }
        notes
    }
}

/// Gives a restored image that becomes a new file its owner and attributes. Returns notes on what differs from the
/// saved file.
pub(super) fn give_to_new(image: &ImageFile, manifest: &Manifest, target: &Path, host: &str) -> Result<Vec<String>> {
    let cannot = || format!("cannot set the owner of {}", shown(target));
    let new = NewFile::decide(manifest, target, host)?;
    let not_set = attributes::set(image.file(), &new.wanted).io(Kind::Failed, cannot)?;
    let now = Owner::of(&image.file().metadata().io(Kind::Failed, cannot)?);
    Ok(new.notes(now, &not_set))
}

/// Gives a restored image that takes the place of a file the owner and the attributes of that file, or, if that is a
/// file of root, the owner that a new file gets. Returns notes on what differs.
pub(super) fn give_as_before(image: &ImageFile, manifest: &Manifest, old: &Path, host: &str) -> Result<Vec<String>> {
    let cannot = || format!("cannot read the owner of {}", shown(old));
    let facts = fs::symlink_metadata(old).io(Kind::Failed, cannot)?;
    let (extended, left_out) = attributes::read_extended(old).io(Kind::Failed, cannot)?;
    let owner = Owner::of(&facts);
    let new = NewFile::decide(manifest, old, host)?;
    let as_before = |extended| Wanted { owner: Some(owner), mode: facts.mode() & 0o777, extended, is_exact: true };
    let wanted = new.in_place_of(&facts, extended.clone()).unwrap_or_else(|| as_before(extended));
    let cannot = || format!("cannot set the owner of {}", shown(image.path()));
    let not_set = attributes::set(image.file(), &wanted).io(Kind::Failed, cannot)?;
    let now = Owner::of(&image.file().metadata().io(Kind::Failed, cannot)?);
    let mut notes = notes(old, now, wanted.owner, &not_set);
    if not_set.owner.is_none() {
        notes.extend(new.note_on_old_owner(owner, now));
    }
    notes.extend(left_out.iter().map(|what| format!("{} lacks an attribute that it had: {what}", shown(old))));
    Ok(notes)
}

/// The change of the owner and the mode of a file that stays in its place.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// Notes on what changed, and on what could not be changed.
    pub notes: Vec<String>,
    /// The shell commands that set the owner and the mode as they were.
    pub undo: Vec<String>,
}

/// The content that a database file had before a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Former {
    /// No bytes: somebody created the file and wrote nothing. It gets what a new file gets.
    Nothing,
    /// A database. It keeps its owner, unless that is root and the program of the saved database is another user.
    Database,
}

/// Gives the file that a connection has open, in which a snapshot is restored, an owner that can write to it. A failure
/// is only noted.
pub(super) fn give_to_live(
    connection: &Connection,
    former: Former,
    manifest: &Manifest,
    target: &Path,
    host: &str,
) -> Given {
    let mut given = Given::default();
    let tried = try_give_to_live(connection, former, manifest, target, host, &mut given);
    if let Err(error) = tried {
        let cause = one_line(&error.full_message());
        given.notes.push(format!("the owner of {} was not compared with the saved one: {cause}", shown(target)));
    }
    given
}

fn try_give_to_live(
    connection: &Connection,
    former: Former,
    manifest: &Manifest,
    target: &Path,
    host: &str,
    given: &mut Given,
) -> Result<()> {
    let cannot = || format!("cannot set the owner of {}", shown(target));
    // No other kind of descriptor: closing it would drop the locks of the connection.
    let file = FileReference::open(target).io(Kind::Failed, cannot)?;
    let facts = file.facts().io(Kind::Failed, cannot)?;
    let open = MainFile::of(connection).and_then(|file| file.identity(target));
    let is_same = open == Some(FileIdentity::in_facts(&facts));
    if !facts.is_file() || !is_same || (former == Former::Nothing && facts.len() > 0) {
        return Ok(());
    }
    let new = NewFile::decide(manifest, target, host)?;
    let wanted = match former {
        Former::Nothing => Some(new.in_place_of_nothing(Owner::of(&facts))),
        Former::Database => {
            let (extended, _) = attributes::read_extended(target).io(Kind::Failed, cannot)?;
            new.in_place_of(&facts, extended)
        }
    };
    let (old, old_mode) = (Owner::of(&facts), facts.mode() & 0o7777);
    let Some(wanted) = wanted else { return Ok(()) };
    if facts.nlink() != 1 {
        if let Some(owner) = wanted.owner.filter(|owner| *owner != old) {
            let (place, word) = (shown(target), quote_path(target));
            given.notes.push(format!(
                "{place} still belongs to {old}, because the file has another name (a hard link); the program of the \
                 database may not be able to write to it: to give it that owner, run as root: chown {owner} {word}"
            ));
        }
        return Ok(());
    }
    let not_set = attributes::set(&file, &wanted).io(Kind::Failed, cannot)?;
    let now = file.facts().io(Kind::Failed, cannot)?;
    given.notes.extend(match former {
        Former::Nothing => new.notes(Owner::of(&now), &not_set),
        Former::Database => notes(target, Owner::of(&now), wanted.owner, &not_set),
    });
    if Owner::of(&now) != old {
        given.notes.extend(new.note_on_old_owner(old, Owner::of(&now)));
        given.undo.push(format!("chown {old} {}", quote_path(target)));
    }
    if now.mode() & 0o7777 != old_mode {
        given.undo.push(format!("chmod {old_mode:o} {}", quote_path(target)));
    }
    give_companions(target, &now);
    Ok(())
}

/// Gives the WAL and its index, which this process created or opened before the database got its owner, the owner and
/// the mode of the database.
fn give_companions(target: &Path, main: &fs::Metadata) {
    let owner = Owner::of(main);
    for suffix in ["-wal", "-shm"] {
        let path = companion(target, suffix);
        let Ok(file) = FileReference::open(&path) else { continue };
        let Ok(facts) = file.facts() else { continue };
        // Whoever can rename files in the folder cannot make root give another file away.
        let is_own = facts.is_file() && facts.nlink() == 1 && FileIdentity::in_facts(&facts).is_open();
        if !is_own || Owner::of(&facts) == owner {
            continue;
        }
        let wanted =
            Wanted { owner: Some(owner), mode: main.mode() & 0o777, extended: Extended::new(), is_exact: false };
        match attributes::set(&file, &wanted) {
            Ok(not_set) if not_set.owner.is_none() => {}
            Ok(_) | Err(_) => tracing::warn!("{} could not be given to {owner}", shown(&path)),
        }
    }
}

fn notes(path: &Path, now: Owner, wanted: Option<Owner>, not_set: &NotSet) -> Vec<String> {
    let mut notes = Vec::new();
    if let (Some(error), Some(wanted)) = (&not_set.owner, wanted) {
        notes.push(format!(
            "{} belongs to {now}, because it could not be given to {wanted} ({error}): run as root: chown {wanted} {}",
            shown(path),
            quote_path(path)
        ));
    }
    notes.extend(not_set.rest.iter().map(|what| format!("{} could not be given {what}", shown(path))));
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorded_owner_is_used_where_the_path_or_the_folder_confirms_it() {
        let owner = |id| Owner { uid: id, gid: id };
        let choose = |is_same_path, is_same_host, folder, folder_mode| {
            let recorded = Some(owner(1000));
            Situation { recorded, is_same_path, is_same_host, folder: owner(folder), folder_mode }.choose()
        };
        let recorded = Choice::Recorded(owner(1000));
        assert_eq!(choose(true, true, 0, 0o755), recorded);
        assert_eq!(choose(true, true, 33, 0o755), recorded);
        assert_eq!(choose(false, false, 1000, 0o755), recorded);
        assert_eq!(choose(true, false, 0, 0o777), recorded);
        assert_eq!(choose(true, false, 0, 0o755), Choice::Folder(owner(0)));
        assert_eq!(choose(true, false, 33, 0o777), Choice::Folder(owner(33)));
        assert_eq!(choose(false, true, 0, 0o777), Choice::Folder(owner(0)));
        let old =
            Situation { recorded: None, is_same_path: true, is_same_host: true, folder: owner(33), folder_mode: 0o755 };
        assert_eq!(old.choose(), Choice::Folder(owner(33)));
    }
}
