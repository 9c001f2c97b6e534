//! `extract`: writes the content of an archive to files or to stdout.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::archive::{Entry, Visitor, tar_header};
use crate::engine::postgres::copy::rows::RowSum;
use crate::engine::postgres::copy::selection::Pattern;
use crate::engine::sqlite::dump::{DumpFormat, dump_table};
use crate::ops::fetch::{self, Opened};
use crate::ops::{Context, Narrow, Report, layout};
use crate::platform::disk::{self, create_file, create_folder, folder_of, require_space, sync_folder};
use crate::platform::error::{Error, IoContext, Kind, Result, one_line};

/// Options of [`run`].
#[derive(Clone, Debug)]
pub(crate) struct ExtractOptions {
    /// An id, the start of one, or 'latest'
    pub snapshot: String,
    /// Filters for the snapshots to choose from
    pub narrow: Narrow,
    /// A folder (new or empty) for the whole archive, a file (new) for one entry or table, - for stdout
    pub to: Option<PathBuf>,
    /// Only this entry of the archive, such as manifest.json
    pub entry: Option<String>,
    /// Only this table, as text
    pub table: Option<String>,
    /// The format of a table: sql (keeps every value) or csv; PostgreSQL: copy, as COPY reads it
    pub format: Option<TableFormat>,
}

/// The format of an extracted table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableFormat {
    /// SQL statements that create the table and its rows (SQLite).
    Sql,
    /// Comma-separated values (SQLite).
    Csv,
    /// Rows as COPY prints and reads them (PostgreSQL).
    Copy,
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
    let whole = options.entry.is_none() && options.table.is_none();
    let destination = match &options.to {
        Some(path) if path.as_os_str() == "-" => Destination::Stdout,
        Some(path) => Destination::Path(path),
        None if whole => {
            return Err(
                Error::usage("where to is not said").hint("name a folder with --to, or - for a tar stream on stdout")
            );
        }
        None => Destination::Stdout,
    };
    if json && matches!(destination, Destination::Stdout) {
        return Err(Error::usage("--json and the content cannot both go to stdout").hint("name a file with --to"));
    }
    let catalog = context.open_catalog()?;
    let listed = catalog.find(&options.snapshot, &options.narrow)?;
    let opened = fetch::open(&catalog, &listed.id, context)?;
    let files = match (destination, &options.entry, &options.table) {
        (Destination::Path(path), None, None) => to_folder(&opened, path, context)?,
        (Destination::Stdout, None, None) => {
            opened.walk(&mut TarStream {
                out: stdout,
                padding: 0,
                mtime: opened.manifest.created_at.timestamp().unsigned_abs(),
            })?;
            stdout.write_all(&[0; 1024]).io(Kind::Failed, || "cannot write to stdout".to_owned())?;
            Vec::new()
        }
        (Destination::Path(path), _, _) => vec![to_file(path, &mut |out| one(&opened, options, context, out))?],
        (Destination::Stdout, _, _) => {
            one(&opened, options, context, stdout).map_err(to_stdout)?;
            Vec::new()
        }
    };
    Ok(ExtractReport { id: listed.id.to_string(), files })
}

/// Adds "cannot write to stdout" to an error that does not say what failed.
fn to_stdout(error: Error) -> Error {
    if error.message == "input or output failed" { error.context("cannot write to stdout") } else { error }
}

/// Writes one entry or table.
fn one(opened: &Opened, options: &ExtractOptions, context: &Context, out: &mut dyn Write) -> Result<()> {
    if let Some(path) = &options.entry {
        let entry = opened.reader.entry(path).map_err(|_| {
            let names: Vec<&str> = opened.reader.entries().iter().map(|entry| entry.path.as_str()).take(10).collect();
            Error::usage(format!("the snapshot {} has no entry '{}'", opened.manifest.id, one_line(path)))
                .hint(format!("it has {}", names.join(", ")))
        })?;
        return opened.reader.stream_entry(entry, &mut |bytes| Ok(out.write_all(bytes)?));
    }
    let table = options.table.as_deref().unwrap_or_default();
    if opened.manifest.postgres.is_some() {
        return postgres_table(opened, table, options.format, out);
    }
    let format = match options.format {
        Some(TableFormat::Copy) => {
            return Err(Error::usage("an SQLite table has no COPY form").hint("write it as sql or csv"));
        }
        Some(TableFormat::Csv) => DumpFormat::Csv,
        Some(TableFormat::Sql) | None => DumpFormat::Sql,
    };
    // An image consists of pages: extracting one table needs the whole image.
    let scratch = context.scratch.folder(opened.manifest.raw_bytes)?;
    let fetched = opened.fetch_image(scratch.path("image.db"), context)?;
    dump_table(fetched.image.path(), table, format, out).map(drop)
}

/// Writes one table's rows as they were saved. Only the blocks of that table are read.
fn postgres_table(opened: &Opened, name: &str, format: Option<TableFormat>, out: &mut dyn Write) -> Result<()> {
    if !matches!(format, None | Some(TableFormat::Copy)) {
        return Err(Error::usage("a table of a PostgreSQL snapshot is written as COPY prints it, in no other form")
            .hint("leave --format away"));
    }
    let (id, pattern) = (&opened.manifest.id, Pattern::new(name));
    let tables = opened.manifest.tables.iter().filter_map(|table| Some((table, table.relation.as_ref()?)));
    let found: Vec<_> =
        tables.filter(|(table, relation)| pattern.matches(&relation.schema, &relation.table, &table.name)).collect();
    let (table, relation) = match found.as_slice() {
        [one] => one,
        [] => {
            return Err(Error::usage(format!("the snapshot {id} has no table {}", one_line(name)))
                .hint(format!("'lifeboat show {id}' lists its tables")));
        }
        several => {
            let names: Vec<&str> = several.iter().map(|(table, _)| table.name.as_str()).collect();
            return Err(Error::usage(format!("{} is the name of several tables", one_line(name)))
                .hint(format!("name one: {}", one_line(&names.join(", ")))));
        }
    };
    let folder = layout::table_folder(&relation.schema, &relation.table);
    let wanted: Vec<&Entry> = opened.reader.entries().iter().filter(|entry| entry.path.starts_with(&folder)).collect();
    let mut rows = TableRows { out, sum: RowSum::default(), rest: Vec::new() };
    opened.reader.visit(&wanted, &mut rows)?;
    let sum = rows.sum;
    if table.rows != Some(sum.rows) || table.digest != Some(sum.digest) {
        return Err(Error::problem(format!("the rows of {} are not those that were saved", one_line(&table.name)))
            .context(format!("the snapshot {id} is damaged")));
    }
    Ok(())
}

/// Writes rows as they arrive, and computes their count and digest.
struct TableRows<'a> {
    out: &'a mut dyn Write,
    sum: RowSum,
    /// The beginning of a row whose end has not arrived yet.
    rest: Vec<u8>,
}

impl Visitor for TableRows<'_> {
    fn start(&mut self, _: &Entry) -> Result<()> {
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        self.rest.extend_from_slice(bytes);
        let whole = std::mem::take(&mut self.rest);
        self.rest.extend_from_slice(self.sum.add(&whole));
        Ok(self.out.write_all(bytes)?)
    }

    fn end(&mut self, _: &Entry) -> Result<()> {
        Ok(())
    }
}

/// Writes a new file atomically and syncs it. Fails if the path exists.
fn to_file(path: &Path, write: &mut dyn FnMut(&mut dyn Write) -> Result<()>) -> Result<ExtractedFile> {
    if fs::symlink_metadata(path).is_ok() {
        return Err(Error::usage(format!("{} is there already", one_line(&path.display().to_string())))
            .hint("name a new file, or remove it first"));
    }
    let cannot = || format!("cannot write {}", one_line(&path.display().to_string()));
    let folder = folder_of(path);
    let temporary = tempfile::NamedTempFile::new_in(folder).io(Kind::Unreachable, cannot)?;
    let mut out = BufWriter::with_capacity(1 << 20, temporary.as_file());
    write(&mut out)?;
    out.flush().io(Kind::Failed, cannot)?;
    drop(out);
    temporary.as_file().sync_all().io(Kind::Failed, cannot)?;
    let file = temporary.persist_noclobber(path).map_err(|error| Error::failed(cannot()).because(error.error))?;
    sync_folder(folder).io(Kind::Failed, cannot)?;
    let bytes = file.metadata().io(Kind::Failed, cannot)?.len();
    Ok(ExtractedFile { path: path.display().to_string(), bytes })
}

/// Writes the whole archive into a folder that is new or empty. The files appear there only when all of them are
/// written and checked.
fn to_folder(opened: &Opened, path: &Path, context: &Context) -> Result<Vec<ExtractedFile>> {
    let shown = one_line(&path.display().to_string());
    match fs::read_dir(path) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(Error::usage(format!("{shown} is not empty")).hint("name a new folder, or an empty one"));
            }
        }
        Err(_) if fs::symlink_metadata(path).is_ok() => {
            return Err(Error::usage(format!("{shown} is not a folder")).hint("name a new folder"));
        }
        Err(_) => {}
    }
    // If the folder exists (it may be a mount point or the target of a link), the files are moved into it one by one,
    // the manifest last. A new folder appears at once.
    let existing = path.canonicalize().ok();
    let parent = existing.as_deref().unwrap_or_else(|| folder_of(path));
    require_space(parent, opened.manifest.raw_bytes)?;
    let making = tempfile::Builder::new()
        .prefix(".lifeboat-extract-")
        .tempdir_in(parent)
        .io(Kind::Unreachable, || format!("cannot write into {}", disk::shown(parent)))?;
    let mut sink = FolderSink { root: making.path(), file: None };
    context.progress.start("extracting", opened.manifest.raw_bytes);
    let checked = opened.walk(&mut sink);
    context.progress.finish();
    checked?;
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
                fs::rename(making.path().join(name), folder.join(name)).io(Kind::Failed, cannot)?;
            }
        }
        None => {
            fs::rename(making.path(), path).io(Kind::Failed, cannot)?;
            drop(making.keep());
        }
    }
    sync_folder(parent).io(Kind::Failed, || format!("cannot sync the folder of {shown}"))?;
    let file = |entry: &Entry| ExtractedFile { path: path.join(&entry.path).display().to_string(), bytes: entry.bytes };
    Ok(opened.reader.entries().iter().map(file).collect())
}

struct FolderSink<'a> {
    root: &'a Path,
    file: Option<(File, PathBuf)>,
}

impl Visitor for FolderSink<'_> {
    fn start(&mut self, entry: &Entry) -> Result<()> {
        let mut path = self.root.to_owned();
        let mut parts = entry.path.split('/').peekable();
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

    fn end(&mut self, _: &Entry) -> Result<()> {
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

impl Visitor for TarStream<'_> {
    fn start(&mut self, entry: &Entry) -> Result<()> {
        self.out.write_all(&tar_header(&entry.path, entry.bytes, self.mtime))?;
        self.padding = entry.bytes.next_multiple_of(512) - entry.bytes;
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.out.write_all(bytes)?)
    }

    fn end(&mut self, _: &Entry) -> Result<()> {
        Ok(self.out.write_all(&vec![0; usize::try_from(self.padding).expect("less than a sector")])?)
    }
}
