//! Refreshes materialized views again whose functions may read other materialized views.
//!
//! The catalogs do not say what a function reads. If it reads a view that is refreshed only later, it usually fails, and the
//! refresh is tried again; but a function that handles the error returns something else.

use std::collections::BTreeSet;

use crate::engine::postgres::copy::plans;
use crate::engine::postgres::copy::rows::RowSum;
use crate::engine::postgres::restore::again::{Failed, create_again, try_item};
use crate::engine::postgres::restore::create::Owners;
use crate::engine::postgres::restore::own_settings::OwnSettings;
use crate::engine::postgres::schema::quote::qualified;
use crate::engine::postgres::schema::{Item, Kind};
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::Result;

/// The number of times that all of these views are refreshed again, if their rows still change.
const MOST_ROUNDS: usize = 8;

/// Refreshes the materialized views whose functions may read others, until their rows no longer change. Returns those whose
/// functions fail.
pub(super) fn refresh_again(
    session: &mut Session,
    items: &[Item],
    owners: Owners,
    own: &mut Option<OwnSettings>,
) -> Result<Vec<Failed>> {
    if items.iter().filter(|item| item.kind == Kind::Refresh).count() < 2 {
        return Ok(Vec::new());
    }
    let views = with_functions(session)?;
    let is_one = |item: &&Item| {
        item.kind == Kind::Refresh && views.contains(&qualified(item.schema.as_deref().unwrap_or_default(), &item.name))
    };
    let views: Vec<&Item> = items.iter().filter(is_one).collect();
    let not_planned = plans::tables_with_code(session)?;
    for _ in 0..MOST_ROUNDS.min(views.len()) {
        let mut has_changed = false;
        for item in &views {
            let before = sum(session, item, &not_planned)?;
            let failed: Vec<Failed> = try_item(session, item, owners)?.into_iter().collect();
            let failed = create_again(session, items, owners, failed, own)?;
            if !failed.is_empty() {
                return Ok(failed);
            }
            has_changed |= sum(session, item, &not_planned)? != before;
        }
        if !has_changed {
            break;
        }
    }
    Ok(Vec::new())
}

/// Returns the populated materialized views that call functions of users, also through views, if one of these functions may
/// read a materialized view: its text has the name of one, or runs statements that it makes.
fn with_functions(session: &mut Session) -> Result<Vec<String>> {
    let rows = session.rows(
        "WITH RECURSIVE code AS (
             SELECT p.oid, lower(p.prosrc) AS text
               FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
              WHERE p.oid >= 16384 AND l.lanname NOT IN ('c', 'internal')
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                                 WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid
                                   AND d.deptype = 'e')),
         uses AS (
             SELECT c.oid AS view, c.oid AS at FROM pg_catalog.pg_class c WHERE c.relkind = 'm' AND c.relispopulated
              UNION SELECT u.view, d.refobjid
               FROM uses u JOIN pg_catalog.pg_rewrite r ON r.ev_class = u.at
               JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
                    AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
               JOIN pg_catalog.pg_class c ON c.oid = d.refobjid AND c.relkind = 'v')
         SELECT DISTINCT n.nspname AS schema, c.relname AS name
           FROM uses u JOIN pg_catalog.pg_rewrite r ON r.ev_class = u.at
           JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
                AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
           JOIN code f ON f.oid = d.refobjid
           JOIN pg_catalog.pg_class c ON c.oid = u.view
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE EXISTS (SELECT FROM code
                         WHERE text ~ 'execute'
                            OR EXISTS (SELECT FROM pg_catalog.pg_class m
                                        WHERE m.relkind = 'm' AND pg_catalog.strpos(text, lower(m.relname::text)) > 0))",
    )?;
    rows.iter().map(|row| Ok(qualified(row.text("schema")?, row.text("name")?))).collect()
}

/// Returns the sum of the rows of a materialized view; that of no rows if it must not be read by a query.
fn sum(session: &mut Session, view: &Item, not_planned: &BTreeSet<String>) -> Result<RowSum> {
    let name = qualified(view.schema.as_deref().unwrap_or_default(), &view.name);
    if not_planned.contains(&name) {
        return Ok(RowSum::default());
    }
    let mut sum = RowSum::default();
    let copy = format!("COPY (SELECT * FROM {name}) TO STDOUT");
    session.copy_out(&copy, Vec::new(), |buffer| {
        let rest = sum.add(buffer).len();
        buffer.drain(..buffer.len() - rest);
        Ok(())
    })?;
    Ok(sum)
}
