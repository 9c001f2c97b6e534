//! The changes of tables that a deploy makes on purpose, as the command line names them.

use crate::engine::rules::names::find_table;
use crate::engine::rules::{Condition, Rule};
use crate::ops::command_line::option;
use crate::platform::error::{Error, Result, one_line};
use crate::snapshots::manifest::Manifest;

/// The number of similar names that an error proposes.
const SIMILAR_NAMES: usize = 3;

/// Tables that a deploy drops and renames.
#[derive(Clone, Debug, Default)]
pub(crate) struct IntendedChanges {
    /// The names of the tables that it drops.
    pub dropped: Vec<String>,
    /// The tables that it renames, each as `OLD=NEW`.
    pub renamed: Vec<String>,
}

impl IntendedChanges {
    /// Returns the options that name the changes on a command line.
    pub(super) fn words(&self) -> Vec<String> {
        let dropped = self.dropped.iter().flat_map(|table| option("--expect-dropped", table));
        dropped.chain(self.renamed.iter().flat_map(|pair| option("--expect-renamed", pair))).collect()
    }

    /// Returns the rules about these changes for each of the snapshots. Every table must be in exactly one of them. A
    /// snapshot that is encrypted to a key that is not here gets the rules whose tables no other one has.
    pub(super) fn rules(&self, snapshots: &[Option<&Manifest>]) -> Result<Vec<Vec<Rule>>> {
        let mut rules = vec![Vec::new(); snapshots.len()];
        for table in &self.dropped {
            let found = place_of(table, snapshots)?.ok_or_else(|| unknown(table, snapshots))?;
            found.add(Condition::MustDrop, &mut rules);
        }
        for pair in &self.renamed {
            // A name can contain the sign itself.
            let splits = pair.match_indices('=').map(|(at, _)| (&pair[..at], &pair[at + 1..]));
            let splits: Vec<(&str, &str)> = splits.filter(|(old, new)| !old.is_empty() && !new.is_empty()).collect();
            let Some((first, _)) = splits.first() else {
                return Err(Error::usage(format!("--expect-renamed {} is not OLD=NEW", one_line(pair)))
                    .hint("write the name of the table in the snapshot, '=', and its new name"));
            };
            let mut found = None;
            for (old, new) in &splits {
                if found.is_none() {
                    found = place_of(old, snapshots)?.map(|place| (place, *new));
                }
            }
            let (place, new) = found.ok_or_else(|| unknown(first, snapshots))?;
            place.add(Condition::RenamedTo { new: new.to_owned(), must: true }, &mut rules);
        }
        Ok(rules)
    }
}

/// A table, and the snapshots that have it or may have it.
struct Place {
    table: String,
    snapshots: Vec<usize>,
}

impl Place {
    fn add(self, condition: Condition, rules: &mut [Vec<Rule>]) {
        for number in self.snapshots {
            rules[number].push(Rule { table: Some(self.table.clone()), condition: condition.clone() });
        }
    }
}

/// Finds the snapshot that has a table. Fails if several have one of this name.
fn place_of(written: &str, snapshots: &[Option<&Manifest>]) -> Result<Option<Place>> {
    let mut found: Vec<(usize, String)> = Vec::new();
    for (number, manifest) in snapshots.iter().enumerate() {
        let Some(manifest) = manifest else { continue };
        if let Some(table) = find_table(written, &names_of(manifest), manifest.postgres.is_some()) {
            found.push((number, table.to_owned()));
        }
    }
    match found.as_slice() {
        [(number, table)] => Ok(Some(Place { table: table.clone(), snapshots: vec![*number] })),
        [] => {
            // The tables of these are not known. The comparison says so.
            let unknown = |(_, manifest): &(usize, &Option<&Manifest>)| manifest.is_some_and(Manifest::lacks_tables);
            let snapshots: Vec<usize> =
                snapshots.iter().enumerate().filter(unknown).map(|(number, _)| number).collect();
            Ok((!snapshots.is_empty()).then(|| Place { table: written.to_owned(), snapshots }))
        }
        _ => Err(Error::usage(format!("several sources have a table {}", one_line(written)))
            .hint("run the command for one source at a time: lifeboat postdeploy SOURCE ...")),
    }
}

/// Returns the names of the tables of a snapshot, and of the views of an SQLite database.
fn names_of(manifest: &Manifest) -> Vec<&str> {
    let views = manifest.sqlite.iter().flat_map(|facts| &facts.views).map(String::as_str);
    manifest.tables.iter().filter(|table| table.is_of_user()).map(|table| table.name.as_str()).chain(views).collect()
}

/// Returns the error for a table that no snapshot has.
fn unknown(written: &str, snapshots: &[Option<&Manifest>]) -> Error {
    let known: Vec<&Manifest> = snapshots.iter().copied().flatten().collect();
    let ids: Vec<String> = known.iter().map(|manifest| manifest.id.to_string()).collect();
    let place = match ids.as_slice() {
        [] => "there is no snapshot from before the deploy, and so no".to_owned(),
        ids => format!("{} had no", ids.join(" and ")),
    };
    let error = Error::usage(format!("{place} table {}", one_line(written)));
    let distance = |name: &&str| {
        let short = name.rsplit('.').next().unwrap_or(name);
        strsim::levenshtein(written, name).min(strsim::levenshtein(written, short))
    };
    let mut near: Vec<&str> = known.into_iter().flat_map(names_of).collect();
    near.sort_by_key(distance);
    match near.get(..near.len().min(SIMILAR_NAMES)) {
        None | Some([]) => error,
        Some(near) => error.hint(format!("similar names are {}", one_line(&near.join(", ")))),
    }
}
