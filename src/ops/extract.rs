//! `extract`: writes the content of an archive to files or to stdout.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::archive::{Entry, tar_header};
use crate::engine::database::TableFormat;
use crate::engine::restoring::SavedSnapshot;
use crate::engine::source::engine_named;
use crate::ops::choose::Choice;
use crate::ops::fetch::Opened;
use crate::ops::{Context, Report, SnapshotFilter};
use crate::platform::disk::{
    self, create_file, create_folder, folder_of, rename, require_space, sync_folder, temporary_file,
};
use crate::platform::entries::EntryVisitor;
use crate::platform::error::{Error, IoContext, Kind, Result, one_line};
use crate::platform::incidental::is_incidental;
use crate::platform::new_name::persist_new;
use crate::platform::place;
use crate::platform::temporary_folder::TemporaryFolder;

/// Options of [`run`].
#[derive(Clone, Debug)]
pub(crate) struct ExtractOptions {
    /// A snapshot id, the start of one, or 'latest'
    pub snapshot: String,
    /// The filters for the snapshots to choose from
    pub filter: SnapshotFilter,
    /// A folder (new or empty) for the whole archive, a file (new) for one entry or table, - for stdout
    pub to: Option<PathBuf>,
    /// Only this entry of the archive, such as manifest.json
    pub entry: Option<String>,
    /// Only this table, as text
    pub table: Option<String>,
    /// The format of a table: sql (keeps every value) or csv; PostgreSQL: copy, as COPY reads it
    pub format: Option<TableFormat>,
}

/// One file that was written.
#[derive(Debug, Serialize)]
pub(crate) struct ExtractedFile {
    /// Its path.
    pub path: String,
    /// Its length.
    pub bytes: u64,
}

/// The files that were written.
#[derive(Debug, Serialize)]
pub(crate) struct ExtractReport {
    /// The snapshot.
    pub id: String,
    /// Empty if everything was written to stdout.
    pub files: Vec<ExtractedFile>,
}

impl Report for ExtractReport {}

/// The destination of the content.
enum Destination<'a> {
    Path(&'a Path),
    Stdout,
}

/// Runs the command. Content that is not written to files is written to `stdout`.
pub(crate) fn run(
    options: &ExtractOptions,
    json: bool,
    context: &Context,
    stdout: &mut dyn Write,
) -> Result<ExtractReport> {
    let is_whole_archive = options.entry.is_none() && options.table.is_none();
    let destination = match &options.to {
        Some(path) if path.as_os_str() == "-" => Destination::Stdout,
        Some(path) => Destination::Path(path),
        None if is_whole_archive => {
            return Err(Error::usage("no destination is given")
                .hint("name a folder with --to, or - for a tar stream on stdout"));
        }
        None => Destination::Stdout,
    };
    if json && matches!(destination, Destination::Stdout) {
        return Err(Error::usage("--json and the content cannot both go to stdout").hint("name a file with --to"));
    }
    let choice = Choice::find(&options.snapshot, &options.filter, || context.open_catalog())?;
    let opened = choice.open(context)?;
    let files = match (destination, &options.entry, &options.table) {
        (Destination::Path(path), None, None) => to_folder(&opened, path, context)?,
        (Destination::Stdout, None, None) => {
            let mtime = opened.manifest.created_at.timestamp().unsigned_abs();
            let mut stream = TarStream { out: stdout, padding: 0, mtime };
            opened.read_all(&mut Substitute::new(&opened, &mut stream)?)?;
            stdout.write_all(&[0; 1024]).io(Kind::Failed, || "cannot write to stdout".to_owned())?;
            Vec::new()
        }
        (Destination::Path(path), _, _) => vec![to_file(path, &mut |out| write_one(&opened, options, context, out))?],
        (Destination::Stdout, _, _) => {
            write_one(&opened, options, context, &mut Stdout(stdout))?;
            Vec::new()
        }
    };
    Ok(ExtractReport { id: opened.manifest.id.to_string(), files })
}

/// Adds "cannot write to stdout" to the errors of the output.
struct Stdout<'a>(&'a mut dyn Write);

impl Write for Stdout<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.0.write(bytes);
        written.io(Kind::Failed, || "cannot write to stdout".to_owned()).map_err(io::Error::from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Writes one entry or table.
fn write_one(opened: &Opened, options: &ExtractOptions, context: &Context, out: &mut dyn Write) -> Result<()> {
    if let Some(path) = &options.entry {
        let entry = opened.reader.entry(path).map_err(|_| {
            let names: Vec<&str> = opened.reader.entries().iter().map(|entry| entry.path.as_str()).take(10).collect();
            Error::usage(format!("the snapshot {} has no entry '{}'", opened.manifest.id, one_line(path)))
                .hint(format!("it has {}", names.join(", ")))
        })?;
        // The text of an archive that psql would run is not trusted.
        if path.ends_with(".sql")
            && let Some((_, content)) = made_anew(opened)?.iter().find(|(anew, _)| anew == path)
        {
            return Ok(out.write_all(content)?);
        }
        return opened.reader.stream_entry(entry, &mut |bytes| Ok(out.write_all(bytes)?));
    }
    let table = options.table.as_deref().unwrap_or_default();
    engine_named(&opened.manifest.engine)?.write_table(opened, table, options.format, &context.for_engine(), out)
}

/// Writes a new file atomically and syncs it. Fails if the path exists.
fn to_file(path: &Path, write: &mut dyn FnMut(&mut dyn Write) -> Result<()>) -> Result<ExtractedFile> {
    if fs::symlink_metadata(path).is_ok() {
        return Err(Error::usage(format!("{} already exists", one_line(&path.display().to_string())))
            .hint("name a new file, or remove it first"));
    }
    let cannot = || format!("cannot write {}", one_line(&path.display().to_string()));
    let folder = folder_of(path);
    let temporary = temporary_file(folder, ".lifeboat-extract-", "").io(Kind::Unreachable, cannot)?;
    let mut out = BufWriter::with_capacity(1 << 20, temporary.as_file());
    write(&mut out)?;
    out.flush().io(Kind::Failed, cannot)?;
    drop(out);
    temporary.as_file().sync_all().io(Kind::Failed, cannot)?;
    let file = persist_new(temporary, path).io(Kind::Failed, cannot)?;
    sync_folder(folder).io(Kind::Failed, cannot)?;
    let bytes = file.metadata().io(Kind::Failed, cannot)?.len();
    Ok(ExtractedFile { path: path.display().to_string(), bytes })
}

/// Writes the whole archive into a folder that is new or empty. The files appear there only when all of them are
/// written and checked.
fn to_folder(opened: &Opened, path: &Path, context: &Context) -> Result<Vec<ExtractedFile>> {
    let shown = one_line(&path.display().to_string());
    match fs::read_dir(path) {
        Ok(entries) => {
            if entries.flatten().any(|entry| !is_incidental(&entry.file_name().to_string_lossy())) {
                return Err(Error::usage(format!("{shown} is not empty")).hint("name a new folder, or an empty one"));
            }
        }
        Err(_) if fs::symlink_metadata(path).is_ok() => {
            return Err(Error::usage(format!("{shown} is not a folder")).hint("name a new folder"));
        }
        Err(_) => {}
    }
    // If the folder exists (it may be a mount point or the target of a link), the files are moved into it one by one,
    // the manifest last. A new folder appears in one step.
    let existing = match place::resolve(path) {
        Err(error) if place::is_refused(&error) => return Err(error.into()),
        resolved => resolved.ok(),
    };
    let parent = existing.as_deref().unwrap_or_else(|| folder_of(path));
    require_space(parent, opened.manifest.raw_bytes)?;
    let parent =
        place::resolve(parent).io(Kind::Unreachable, || format!("cannot write into {}", disk::shown(parent)))?;
    let parent = parent.as_path();
    let temporary = TemporaryFolder::create(parent, ".lifeboat-extract-")
        .io(Kind::Unreachable, || format!("cannot write into {}", disk::shown(parent)))?;
    let mut writer = FolderWriter { root: temporary.path(), file: None };
    let mut substitute = Substitute::new(opened, &mut writer)?;
    context.progress.start("extracting", opened.manifest.raw_bytes);
    let checked = opened.read_all(&mut substitute);
    context.progress.finish();
    checked?;
    let anew = substitute.anew;
    let cannot = || format!("cannot create {shown}");
    match &existing {
        Some(folder) => {
            let mut names: Vec<&str> = Vec::new();
            for name in opened.reader.entries().iter().filter_map(|entry| entry.path.split('/').next()) {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            for name in names {
                rename(&temporary.path().join(name), &folder.join(name)).io(Kind::Failed, cannot)?;
            }
        }
        None => {
            rename(temporary.path(), path).io(Kind::Failed, cannot)?;
            temporary.keep();
        }
    }
    sync_folder(parent).io(Kind::Failed, || format!("cannot sync the folder of {shown}"))?;
    let file = |entry: &Entry| {
        let bytes = anew.get(entry.path.as_str()).map_or(entry.bytes, |content| content.len() as u64);
        ExtractedFile { path: path.join(&entry.path).display().to_string(), bytes }
    };
    Ok(opened.reader.entries().iter().map(file).collect())
}

/// Returns the entries of a snapshot that another program runs, made anew.
fn made_anew(opened: &Opened) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let cannot = |error: Error| error.context(format!("cannot extract the snapshot {}", opened.manifest.id));
    engine_named(&opened.manifest.engine)?.made_anew(opened).map_err(cannot)
}

/// Passes the entries of an archive on. In place of those that another program runs, it passes on the ones that were made
/// anew.
struct Substitute<'a> {
    anew: HashMap<&'static str, Vec<u8>>,
    visitor: &'a mut dyn EntryVisitor,
    is_replaced: bool,
}

impl<'a> Substitute<'a> {
    fn new(opened: &Opened, visitor: &'a mut dyn EntryVisitor) -> Result<Self> {
        Ok(Substitute { anew: made_anew(opened)?.into_iter().collect(), visitor, is_replaced: false })
    }
}

impl EntryVisitor for Substitute<'_> {
    fn start(&mut self, path: &str, bytes: u64) -> Result<()> {
        let anew = self.anew.get(path);
        self.is_replaced = anew.is_some();
        match anew {
            Some(content) => {
                self.visitor.start(path, content.len() as u64)?;
                self.visitor.data(content)
            }
            None => self.visitor.start(path, bytes),
        }
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        if self.is_replaced { Ok(()) } else { self.visitor.data(bytes) }
    }

    fn end(&mut self) -> Result<()> {
        self.visitor.end()
    }
}

/// Writes the entries as files of a folder.
struct FolderWriter<'a> {
    root: &'a Path,
    file: Option<(File, PathBuf)>,
}

impl EntryVisitor for FolderWriter<'_> {
    fn start(&mut self, entry: &str, _: u64) -> Result<()> {
        let mut path = self.root.to_owned();
        let mut parts = entry.split('/').peekable();
        while let Some(part) = parts.next() {
            // The path was checked, and each part of it is a name that the writer encoded. No file system truncates
            // long names silently.
            path.push(part);
            if parts.peek().is_some() && !path.is_dir() {
                create_folder(&path)?;
            }
        }
        self.file = Some((create_file(&path)?, path));
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        let (file, path) = self.file.as_mut().expect("an entry has started");
        file.write_all(bytes).io(Kind::Failed, || format!("cannot write {}", path.display()))
    }

    fn end(&mut self) -> Result<()> {
        let (file, path) = self.file.take().expect("an entry has started");
        file.sync_all().io(Kind::Failed, || format!("cannot sync {}", path.display()))?;
        sync_folder(folder_of(&path)).io(Kind::Failed, || format!("cannot sync the folder of {}", path.display()))
    }
}

/// Writes the entries as a tar stream.
struct TarStream<'a> {
    out: &'a mut dyn Write,
    padding: u64,
    mtime: u64,
}

impl EntryVisitor for TarStream<'_> {
    fn start(&mut self, entry: &str, bytes: u64) -> Result<()> {
        self.out.write_all(&tar_header(entry, bytes, self.mtime))?;
        self.padding = bytes.next_multiple_of(512) - bytes;
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.out.write_all(bytes)?)
    }

    fn end(&mut self) -> Result<()> {
        Ok(self.out.write_all(&vec![0; usize::try_from(self.padding).expect("less than a sector")])?)
    }
}
