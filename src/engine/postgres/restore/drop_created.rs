//! Drops the objects that a restore has created in an existing database, and nothing that others have created there: objects
//! are found by their oids, and one on which an object of others depends is left.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::postgres::restore::create::shown;
use crate::engine::postgres::restore::created::place_of;
use crate::engine::postgres::schema::quote::literal;
use crate::engine::postgres::schema::{Item, Kind, catalogs, identify};
use crate::engine::postgres::wire::created::CreatedObject;
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::{self, Error, Result, one_line};

/// The reasons for leaving objects, by their places in the catalogs.
type Reasons = BTreeMap<(u32, u32), String>;

/// The number of objects that one statement drops. Every object takes locks, whose number the server limits.
const AT_ONCE: usize = 100;

/// An object that is to be dropped.
#[derive(Clone, Debug)]
struct Doomed {
    catalog: u32,
    oid: u32,
    /// The words after DROP.
    word: String,
    /// Its name, as the statement writes it.
    name: String,
}

impl Doomed {
    /// Returns true if one statement can drop several objects of this kind.
    fn is_listed(&self) -> bool {
        !["CAST", "TRANSFORM", "OPERATOR CLASS", "OPERATOR FAMILY", "LANGUAGE", "SUBSCRIPTION"]
            .contains(&self.word.as_str())
    }
}

/// Drops the objects. Returns those that are left, each with the reason.
pub(super) fn drop_created(session: &mut Session, items: &[Item], created: &[CreatedObject]) -> Result<Vec<String>> {
    let mut left = drop_unnamed(session, items, created)?;
    let (addresses, unsure) = find(session, items, created)?;
    left.extend(unsure);
    let mut doomed = identify_all(session, &addresses)?;
    let mut errors = BTreeMap::new();
    while !doomed.is_empty() {
        let before = doomed.len();
        drop_all(session, &doomed, &mut errors)?;
        doomed = identify_all(session, &addresses)?;
        if doomed.len() == before && !drop_circle(session, &doomed)? {
            break;
        }
    }
    for one in &doomed {
        let reason = errors.get(&(one.catalog, one.oid)).cloned().unwrap_or_default();
        left.push(format!("{} {} ({reason})", one.word.to_lowercase(), one_line(&one.name)));
    }
    Ok(left)
}

/// Drops what the catalogs that a role may read do not show by oid: user mappings and large objects. Returns those that are
/// left.
fn drop_unnamed(session: &mut Session, items: &[Item], created: &[CreatedObject]) -> Result<Vec<String>> {
    let mut left = Vec::new();
    let mut large_objects = Vec::new();
    for item in created.iter().filter(|one| one.oid.is_some()).map(|one| &items[one.item]) {
        match item.kind {
            Kind::LargeObject => large_objects.push(item.oid.to_string()),
            Kind::UserMapping => {
                let create = item.create.first().map(String::as_str).unwrap_or_default();
                let mapping = create.trim_start_matches("CREATE ").split(" OPTIONS (").next().unwrap_or_default();
                if let Some(why) =
                    failure(session.execute(&format!("DROP {}", mapping.replacen(" FOR ", " IF EXISTS FOR ", 1))))?
                {
                    left.push(format!("{} ({why})", shown(item)));
                }
            }
            _ => {}
        }
    }
    for some in large_objects.chunks(AT_ONCE) {
        let unlink = format!(
            "SELECT pg_catalog.lo_unlink(m.oid) FROM pg_catalog.pg_largeobject_metadata m WHERE m.oid IN ({})",
            some.join(", ")
        );
        if let Some(why) = failure(session.execute(&unlink))? {
            left.push(format!("large objects ({why})"));
        }
    }
    Ok(left)
}

/// Returns the reason if a statement was refused. Fails if the connection is lost, or if the program was asked to stop.
fn failure(done: Result<()>) -> Result<Option<String>> {
    match done {
        Err(error) if matches!(error.kind, error::Kind::Unreachable | error::Kind::Interrupted) => Err(error),
        Err(error) => Ok(Some(reason(&error))),
        Ok(()) => Ok(None),
    }
}

/// Returns the server's message, with the objects that it names.
fn reason(error: &Error) -> String {
    let causes = error.causes();
    let details = causes.iter().filter_map(|cause| cause.strip_prefix("detail: ")).map(str::to_owned);
    let details: Vec<String> = details.collect();
    one_line(&if details.is_empty() { error.message.clone() } else { details.join(", ") })
}

/// An object by its place in the catalogs, with the words after DROP.
type Address = (u32, u32, String);

/// Returns the objects, those that were created last first, and in words others that may be ours, too.
fn find(session: &mut Session, items: &[Item], created: &[CreatedObject]) -> Result<(Vec<Address>, Vec<String>)> {
    let mut found: Vec<(u32, u32, Kind)> = Vec::new();
    let mut unsure = Vec::new();
    for one in created {
        let item = &items[one.item];
        match (place_of(item), one.oid) {
            (Some(place), Some(oid)) => found.push((place.catalog, oid, item.kind)),
            (_, Some(_)) => {}
            (_, None) => {
                if may_exist(session, items, created, item)? {
                    unsure.push(format!("{} (it may be that of another program)", shown(item)));
                }
            }
        }
    }
    let mut known = BTreeSet::new();
    // The rest depends on sequences by default values, and is in schemas.
    let rank = |kind: Kind| match kind {
        Kind::Sequence => 1,
        Kind::Extension | Kind::Language => 2,
        Kind::Schema => 3,
        _ => 0,
    };
    found.reverse();
    found.sort_by_key(|(.., kind)| rank(*kind));
    found.retain(|(catalog, oid, _)| known.insert((*catalog, *oid)));
    Ok((found.into_iter().map(|(catalog, oid, kind)| (catalog, oid, drop_word(kind))).collect(), unsure))
}

/// Returns true if there is an object, besides those that are known to be ours, that may be that of this item. The reply to its
/// statement was lost.
fn may_exist(session: &mut Session, items: &[Item], created: &[CreatedObject], item: &Item) -> Result<bool> {
    let query = match (place_of(item), item.kind) {
        (Some(place), _) => {
            let catalog_of = |one: &CreatedObject| place_of(&items[one.item]).map(|place| place.catalog);
            let known: Vec<u32> =
                created.iter().filter(|one| catalog_of(one) == Some(place.catalog)).filter_map(|one| one.oid).collect();
            for row in &session.rows(&place.named(item))? {
                if !known.contains(&row.number("oid")?) {
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        (None, Kind::LargeObject) => {
            format!("SELECT FROM pg_catalog.pg_largeobject_metadata m WHERE m.oid = {}", item.oid)
        }
        (None, Kind::UserMapping) => format!(
            "SELECT FROM pg_catalog.pg_user_mappings m
              WHERE pg_catalog.concat(m.usename, ' ', m.srvname) OPERATOR(pg_catalog.=) {}",
            literal(&item.name)
        ),
        // Default privileges are put back.
        (None, _) => return Ok(false),
    };
    session.row(&format!("SELECT EXISTS ({query}) AS is"))?.flag("is")
}

/// Returns the words after DROP.
fn drop_word(kind: Kind) -> String {
    match kind {
        Kind::ShellType => "TYPE".to_owned(),
        Kind::Function | Kind::Procedure | Kind::Aggregate => "ROUTINE".to_owned(),
        Kind::ForeignServer => "SERVER".to_owned(),
        Kind::ContinuousAggregate => "MATERIALIZED VIEW".to_owned(),
        kind => kind.words().to_uppercase(),
    }
}

/// Returns those of the objects that exist, with their names.
fn identify_all(session: &mut Session, addresses: &[Address]) -> Result<Vec<Doomed>> {
    let mut target = identify("w.class", "w.oid", "0", session.version());
    // Not every role may read the oids of subscriptions.
    if addresses.iter().any(|(catalog, ..)| *catalog == catalogs::SUBSCRIPTION) {
        let is_gone = "NOT EXISTS (SELECT FROM pg_catalog.pg_subscription s WHERE s.oid = w.oid)";
        target = format!("CASE WHEN w.class = {} AND {is_gone} THEN NULL ELSE {target} END", catalogs::SUBSCRIPTION);
    }
    let mut doomed = Vec::new();
    for some in addresses.chunks(1000) {
        let values: Vec<String> = some
            .iter()
            .enumerate()
            .map(|(place, (catalog, oid, _))| format!("({place}, {catalog}::pg_catalog.oid, {oid}::pg_catalog.oid)"))
            .collect();
        let rows = session.rows(&format!(
            "SELECT t.place, t.target ->> 'identity' AS identity
               FROM (SELECT w.place, {target} AS target FROM (VALUES {}) AS w (place, class, oid) OFFSET 0) t
              WHERE t.target IS NOT NULL ORDER BY t.place",
            values.join(", ")
        ))?;
        for row in &rows {
            let (catalog, oid, word) = some[row.number::<usize>("place")?].clone();
            let mut name = row.text("identity")?.to_owned();
            if catalog == catalogs::TRANSFORM {
                name = name.replace(" on language ", " language ");
            }
            doomed.push(Doomed { catalog, oid, word, name });
        }
    }
    Ok(doomed)
}

/// Drops the objects, many with one statement, but none that other objects depend on. Adds the reasons for leaving some.
fn drop_all(session: &mut Session, doomed: &[Doomed], errors: &mut Reasons) -> Result<()> {
    let ours: Vec<u32> = doomed.iter().filter(|one| one.catalog == catalogs::CLASS).map(|one| one.oid).collect();
    for alike in doomed.chunk_by(|one, next| one.word == next.word && one.is_listed()) {
        for some in alike.chunks(AT_ONCE) {
            let theirs = parts_of_others(session, some, &ours)?;
            let (kept, some): (Vec<Doomed>, Vec<Doomed>) =
                some.iter().cloned().partition(|one| theirs.contains_key(&(one.catalog, one.oid)));
            for one in kept {
                let part = one_line(&theirs[&(one.catalog, one.oid)]);
                errors.insert((one.catalog, one.oid), format!("{part} of another program would be dropped with it"));
            }
            drop_some(session, &some, errors)?;
        }
    }
    Ok(())
}

/// Drops objects of one kind. If some of them cannot be dropped, the others are.
fn drop_some(session: &mut Session, some: &[Doomed], errors: &mut Reasons) -> Result<()> {
    let Some(first) = some.first() else { return Ok(()) };
    if first.catalog == catalogs::SUBSCRIPTION {
        // Old servers leave its comment, and then cannot name its object.
        failure(session.execute(&format!("COMMENT ON SUBSCRIPTION {} IS NULL", first.name)))?;
    }
    let names: Vec<&str> = some.iter().map(|one| one.name.as_str()).collect();
    let Some(why) = failure(session.execute(&format!("DROP {} IF EXISTS {}", first.word, names.join(", "))))? else {
        return Ok(());
    };
    if some.len() > 1 {
        let (one, other) = some.split_at(some.len() / 2);
        drop_some(session, one, errors)?;
        return drop_some(session, other, errors);
    }
    errors.insert((first.catalog, first.oid), why);
    Ok(())
}

/// Returns the relations of others that the server would drop with relations of ours, because they are parts of them: their
/// partitions, and the sequences that belong to their columns. The key is our relation.
fn parts_of_others(session: &mut Session, some: &[Doomed], ours: &[u32]) -> Result<Reasons> {
    if some.iter().all(|one| one.catalog != catalogs::CLASS) {
        return Ok(BTreeMap::new());
    }
    let list = |oids: &mut dyn Iterator<Item = u32>| oids.map(|oid| oid.to_string()).collect::<Vec<_>>().join(",");
    let rows = session.rows(&format!(
        "WITH RECURSIVE parts AS (
             SELECT o.oid AS ours, o.oid FROM pg_catalog.unnest('{{{}}}'::pg_catalog.oid[]) AS o (oid)
              UNION SELECT p.ours, d.objid
               FROM parts p JOIN pg_catalog.pg_depend d ON d.refclassid = {class} AND d.refobjid = p.oid
              WHERE d.classid = {class} AND d.deptype = 'a')
         SELECT p.ours, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name
           FROM parts p JOIN pg_catalog.pg_class c ON c.oid = p.oid
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S') AND c.oid <> ALL ('{{{}}}'::pg_catalog.oid[])",
        list(&mut some.iter().map(|one| one.oid)),
        list(&mut ours.iter().copied()),
        class = catalogs::CLASS,
    ))?;
    rows.iter().map(|row| Ok(((catalogs::CLASS, row.number("ours")?), row.text("name")?.to_owned()))).collect()
}

/// Drops an object of those that depend on each other, with all that depend on it, if none of these is that of others.
/// Returns false if no object can be dropped so.
fn drop_circle(session: &mut Session, doomed: &[Doomed]) -> Result<bool> {
    for one in doomed {
        let drop = format!("DROP {} {} CASCADE", one.word, one.name);
        if !is_needed_by_others(session, one, doomed)? && failure(session.execute(&drop))?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns true if the server would drop an object of others with this one, or a part of it, such as a foreign key.
fn is_needed_by_others(session: &mut Session, one: &Doomed, ours: &[Doomed]) -> Result<bool> {
    let ours: Vec<String> =
        ours.iter().map(|one| format!("({}::pg_catalog.oid, {}::pg_catalog.oid)", one.catalog, one.oid)).collect();
    let query = format!(
        "WITH RECURSIVE ours (class, oid) AS (VALUES {}), dropped AS (
             SELECT {}::pg_catalog.oid AS class, {}::pg_catalog.oid AS oid
              UNION SELECT n.class, n.oid FROM dropped r CROSS JOIN LATERAL (
                  SELECT d.classid AS class, d.objid AS oid FROM pg_catalog.pg_depend d
                   WHERE d.refclassid = r.class AND d.refobjid = r.oid
                   UNION ALL SELECT d.refclassid, d.refobjid FROM pg_catalog.pg_depend d
                   WHERE d.classid = r.class AND d.objid = r.oid AND d.deptype IN ('i', 'P', 'S')) n)
         SELECT EXISTS (
             SELECT FROM dropped r WHERE (r.class, r.oid) NOT IN (SELECT class, oid FROM ours)
                AND (NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                                  WHERE d.classid = r.class AND d.objid = r.oid AND d.deptype IN ('a', 'i', 'P', 'S')
                                    AND (d.refclassid, d.refobjid) IN (SELECT class, oid FROM dropped))
                     OR EXISTS (SELECT FROM pg_catalog.pg_class c
                                 WHERE r.class = {} AND c.oid = r.oid AND c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S')
                                   AND NOT EXISTS (
                                       SELECT FROM pg_catalog.pg_depend i
                                        WHERE i.classid = r.class AND i.objid = r.oid AND i.deptype = 'i')))) AS is",
        ours.join(", "),
        one.catalog,
        one.oid,
        catalogs::CLASS,
    );
    session.row(&query)?.flag("is")
}
