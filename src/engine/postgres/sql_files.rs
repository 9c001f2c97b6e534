//! The files of an archive that psql runs: written when a snapshot is saved, and again when it is extracted.
//!
//! psql runs commands that a file contains, so a file that only the archive vouches for is not handed to anybody: it is
//! made anew from the list of objects, whose every statement is checked, and from the names in the manifest.

use std::collections::HashMap;

use crate::engine::postgres::copy::row_source::RowSource;
use crate::engine::postgres::copy::script::Script;
use crate::engine::postgres::layout;
use crate::engine::postgres::restore::items::read_items;
use crate::engine::postgres::role_settings;
use crate::engine::postgres::schema::psql_text::for_psql;
use crate::engine::postgres::schema::quote::qualified;
use crate::engine::postgres::schema::restriction::Restriction;
use crate::engine::postgres::schema::{Item, Section, not_sql, render, roles, sequences};
use crate::engine::restoring::SavedSnapshot;
use crate::platform::error::{Error, Result};
use crate::snapshots::manifest::{RoleFacts, SequenceValue};

/// Returns the statements that make the roles of a snapshot.
pub(super) fn roles(roles: &[RoleFacts], restriction: &Restriction) -> Result<String> {
    Ok(restriction.enclose(&roles::script(roles)?))
}

/// Returns the statements that are run before the rows are loaded.
pub(super) fn pre_data(items: &[Item], restriction: &Restriction) -> Result<String> {
    Ok(restriction.enclose(&render(items, Section::Pre, true)?))
}

/// Returns the statements that are run after the rows are loaded.
pub(super) fn post_data(items: &[Item], restriction: &Restriction) -> Result<String> {
    let statements = render(items, Section::Post, true)? + &render(items, Section::Last, true)?;
    Ok(restriction.enclose(&statements))
}

/// Returns the statements that set the sequences.
pub(super) fn sequences(values: &[SequenceValue], restriction: &Restriction) -> Result<String> {
    for value in values {
        let name = format!("sequence {}", qualified(&value.schema, &value.name));
        for_psql(&sequences::statement(value)).map_err(|reason| not_sql(&name, reason))?;
    }
    Ok(restriction.enclose(&sequences::render(values)))
}

/// Returns the files that psql runs, made anew, with their paths in the archive. Fails if a statement of the schema has a
/// part that psql would run by itself.
pub(super) fn made_anew(snapshot: &dyn SavedSnapshot) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let manifest = snapshot.manifest();
    let not_postgres = || Error::problem("its manifest does not describe a PostgreSQL snapshot");
    let facts = manifest.postgres.as_ref().ok_or_else(not_postgres)?;
    let items = read_items(snapshot)?;
    let restriction = Restriction::new()?;
    let tables: HashMap<String, RowSource> = manifest
        .tables
        .iter()
        .filter_map(|table| {
            let relation = table.relation.as_ref()?;
            Some((layout::table_folder(&relation.schema, &relation.table), RowSource::like(table)))
        })
        .collect();
    let mut script = Script::new(&manifest.id.to_string(), &facts.database.encoding, layout::PRE_DATA);
    for (path, _) in snapshot.entries() {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        if path.starts_with(layout::LARGE_OBJECTS) {
            script.large_objects(path);
        } else if let Some(table) = tables.get(&format!("{folder}/")) {
            let names = format!("{}{}", table.qualified, table.column_list());
            for_psql(&names).map_err(|reason| not_sql(&format!("table {}", table.qualified), reason))?;
            script.copy(table, path);
        }
    }
    let mut files = vec![
        (layout::PRE_DATA, pre_data(&items, &restriction)?),
        (layout::SEQUENCES, sequences(&facts.sequences, &restriction)?),
        (layout::POST_DATA, post_data(&items, &restriction)?),
        (layout::RESTORE, script.finish(&[layout::SEQUENCES, layout::POST_DATA])),
    ];
    if !facts.role_definitions.is_empty() {
        let definitions = role_settings::definitions(snapshot, facts)?;
        files.push((layout::ROLES, roles(&definitions, &restriction)?));
    }
    Ok(files.into_iter().map(|(path, text)| (path, text.into_bytes())).collect())
}
