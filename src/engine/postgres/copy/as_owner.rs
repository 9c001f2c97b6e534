//! Runs the code of a table with the rights of its owner.
//!
//! The expressions of a table (checks, generated columns, indexes, bounds of partitions, domains of its columns) may call
//! functions of its owner. The server calls them with the rights of the session, so a superuser who loads rows lends all
//! rights to them. `SET ROLE` does not help, because a function can reset it. In a function that is `SECURITY DEFINER`, no
//! code can change the role. COPY cannot be run there, so the rows are first loaded into a temporary table without any
//! code, and are inserted from there.
//!
//! Tables without such expressions, or whose expressions call only immutable functions of the server, are loaded directly.
//! The server itself builds indexes, refreshes materialized views and analyzes tables with the rights of their owners.

use std::collections::{BTreeSet, HashMap};

use crate::engine::postgres::copy::row_source::{Owned, RowSource};
use crate::engine::postgres::schema::quote::{ident, literal};
use crate::engine::postgres::wire::session::Session;
use crate::engine::postgres::wire::settings;
use crate::platform::error::{Error, Result, one_line};

/// The nodes of expression trees that evaluate nothing but the functions and operators that they name. PostgreSQL 16
/// renamed some.
const PLAIN_NODES: &str = "'FUNCEXPR', 'OPEXPR', 'SCALARARRAYOPEXPR', 'BOOLEXPR', 'RELABELTYPE', 'VAR', 'CONST', 'NULLTEST', \
     'BOOLEANTEST', 'COALESCE', 'COALESCEEXPR', 'CASE', 'CASEEXPR', 'WHEN', 'CASEWHEN', 'CASETESTEXPR', 'ARRAY', \
     'ARRAYEXPR', 'COERCEVIAIO', 'DISTINCTEXPR', 'NULLIFEXPR', 'MINMAX', 'MINMAXEXPR', 'SQLVALUEFUNCTION', \
     'COERCETODOMAINVALUE', 'SUBSCRIPTINGREF', 'NAMEDARGEXPR'";

/// The statements that take back what owners get for the time of a restore, and enable what was disabled.
#[derive(Debug, Default)]
pub(crate) struct Lent(Vec<String>);

/// Returns true if the session has the rights of a superuser, which the code of others must not get.
pub(crate) fn is_superuser(session: &mut Session) -> Result<bool> {
    session
        .row("SELECT coalesce(bool_or(rolsuper), false) AS is FROM pg_catalog.pg_roles WHERE rolname = current_user")?
        .flag("is")
}

/// Finds the tables of a database that is being built whose rows must be loaded with the rights of their owners, and marks
/// them. Grants their owners the use of the schemas of these tables and their types, because the privileges of a restored
/// database are set only at its end.
pub(crate) fn protect(session: &mut Session, tables: &mut [RowSource]) -> Result<Lent> {
    if !is_superuser(session)? {
        return Ok(Lent::default());
    }
    mark(tables, &find(session, "NOT r.rolsuper")?);
    lend_schemas(session)
}

/// Finds the existing tables whose rows must be loaded with the rights of their owners, and marks them. Disables the rules
/// that would change what is inserted into them.
pub(crate) fn protect_existing(session: &mut Session, tables: &mut [RowSource]) -> Result<Lent> {
    if !is_superuser(session)? {
        return Ok(Lent::default());
    }
    mark(tables, &find(session, "NOT r.rolsuper")?);
    if tables.iter().all(|table| table.owned.is_none()) {
        return Ok(Lent::default());
    }
    let mut lent = lend_schemas(session)?;
    for table in tables.iter() {
        let Some(owned) = &table.owned else { continue };
        let row = session.row(&format!(
            "SELECT c.relforcerowsecurity AS forced, pg_catalog.has_table_privilege(c.relowner, c.oid, 'INSERT') AS may_insert
               FROM pg_catalog.pg_class c WHERE c.oid = {}::pg_catalog.regclass",
            literal(&table.qualified)
        ))?;
        // Policies do not apply to the session, but would to the owner.
        if row.flag("forced")? {
            session.execute(&format!("ALTER TABLE {} NO FORCE ROW LEVEL SECURITY", table.qualified))?;
            lent.0.push(format!("ALTER TABLE {} FORCE ROW LEVEL SECURITY", table.qualified));
        }
        if !row.flag("may_insert")? {
            let owner = ident(&owned.owner);
            session.execute(&format!("GRANT INSERT ON TABLE {} TO {owner}", table.qualified))?;
            lent.0.push(format!("REVOKE INSERT ON TABLE {} FROM {owner}", table.qualified));
        }
        let rules = session.rows(&format!(
            "SELECT pg_catalog.quote_ident(r.rulename) AS name,
                    CASE r.ev_enabled WHEN 'R' THEN 'ENABLE REPLICA' WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE' END AS enable
               FROM pg_catalog.pg_rewrite r
              WHERE r.ev_class = {}::pg_catalog.regclass AND r.ev_type = '3' AND r.ev_enabled <> 'D'",
            literal(&table.qualified)
        ))?;
        for rule in &rules {
            let (name, enable) = (rule.text("name")?, rule.text("enable")?);
            session.execute(&format!("ALTER TABLE {} DISABLE RULE {name}", table.qualified))?;
            lent.0.push(format!("ALTER TABLE {} {enable} RULE {name}", table.qualified));
        }
    }
    Ok(lent)
}

/// Marks copies of tables, which belong to the session's role, so that their rows are loaded with the rights of the owners
/// of the original tables. `owners` has these owners, in the order of `tables`.
pub(crate) fn protect_copies(
    session: &mut Session,
    tables: &mut [RowSource],
    owners: &[Option<String>],
) -> Result<Lent> {
    let mut lent = Lent::default();
    if !is_superuser(session)? {
        return Ok(lent);
    }
    mark(tables, &find(session, "r.rolname = current_user")?);
    for (table, owner) in tables.iter_mut().zip(owners) {
        let Some(owned) = &mut table.owned else { continue };
        let owner = owner.clone().unwrap_or_default();
        if !has_fewer_rights(session, &owner)? {
            tracing::warn!(
                "functions that the types of {} use are run with the rights of the superuser {}",
                one_line(&table.qualified),
                session.about().user
            );
            table.owned = None;
            continue;
        }
        let schema = table.qualified.strip_suffix(&owned.name).unwrap_or_default().trim_end_matches('.');
        for privilege in [format!("INSERT ON TABLE {}", table.qualified), format!("USAGE ON SCHEMA {schema}")] {
            session.execute(&format!("GRANT {privilege} TO {}", ident(&owner)))?;
            lent.0.push(format!("REVOKE {privilege} FROM {}", ident(&owner)));
        }
        owned.owner = owner;
    }
    Ok(lent)
}

fn mark(tables: &mut [RowSource], found: &HashMap<String, Owned>) {
    for table in tables.iter_mut().filter(|table| table.span.is_none() && !table.columns.is_empty()) {
        table.owned = found.get(&table.qualified).cloned();
    }
}

fn lend_schemas(session: &mut Session) -> Result<Lent> {
    let rows = session.rows(
        "SELECT DISTINCT n.nspname AS schema, r.rolname AS owner
           FROM pg_catalog.pg_class c
           JOIN pg_catalog.pg_roles r ON r.oid = c.relowner
           JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
           JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
           JOIN pg_catalog.pg_namespace n ON n.oid IN (c.relnamespace, t.typnamespace)
          WHERE c.relkind IN ('r', 'p') AND c.oid >= 16384
            AND n.nspname OPERATOR(pg_catalog.!~) '^pg_'::pg_catalog.text AND NOT r.rolsuper
            AND NOT pg_catalog.has_schema_privilege(r.oid, n.oid, 'USAGE')
          ORDER BY 1, 2",
    )?;
    let mut lent = Lent::default();
    for row in &rows {
        let (schema, owner) = (ident(row.text("schema")?), ident(row.text("owner")?));
        session.execute(&format!("GRANT USAGE ON SCHEMA {schema} TO {owner}"))?;
        lent.0.push(format!("REVOKE USAGE ON SCHEMA {schema} FROM {owner}"));
    }
    Ok(lent)
}

/// Grants a role what it needs to create an object in a schema: the use of all schemas, and CREATE on this one.
pub(crate) fn lend_for_creation(session: &mut Session, owner: &str, schema: &str) -> Result<Lent> {
    let rows = session.rows(&format!(
        "SELECT n.nspname AS schema, p.privilege
           FROM pg_catalog.pg_namespace n, pg_catalog.pg_roles r, (VALUES ('USAGE'), ('CREATE')) AS p (privilege)
          WHERE r.rolname = {} AND n.nspname OPERATOR(pg_catalog.!~) '^pg_'::pg_catalog.text
            AND n.nspname OPERATOR(pg_catalog.<>) 'information_schema'::pg_catalog.name
            AND (p.privilege = 'USAGE' OR n.nspname = {})
            AND NOT pg_catalog.has_schema_privilege(r.oid, n.oid, p.privilege)
          ORDER BY 1, 2",
        literal(owner),
        literal(schema)
    ))?;
    let mut lent = Lent::default();
    for row in &rows {
        let (privilege, schema) = (row.text("privilege")?, ident(row.text("schema")?));
        session.execute(&format!("GRANT {privilege} ON SCHEMA {schema} TO {}", ident(owner)))?;
        lent.add(format!("REVOKE {privilege} ON SCHEMA {schema} FROM {}", ident(owner)));
    }
    Ok(lent)
}

impl Lent {
    /// Adds a statement that takes back what it was granted for.
    pub(crate) fn add(&mut self, statement: String) {
        self.0.push(statement);
    }

    /// Adds the statements of another.
    pub(crate) fn and(mut self, other: Lent) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Runs the statements.
    pub(crate) fn take_back(self, session: &mut Session) -> Result<()> {
        self.0.iter().try_for_each(|statement| session.execute(statement))
    }
}

/// Warns if the code of a snapshot runs with the rights of a superuser, because its owners are not restored.
pub(crate) fn warn_about_superuser(session: &mut Session) -> Result<()> {
    if !is_superuser(session)? {
        return Ok(());
    }
    let found = find(session, "true")?;
    let names: BTreeSet<&String> = found.keys().collect();
    if let Some(first) = names.first() {
        let others = if names.len() > 1 { format!(" and {} more tables", names.len() - 1) } else { String::new() };
        tracing::warn!(
            "functions of the snapshot that {}{others} use are run with the rights of the superuser {}, because the owners \
             of the snapshot are not restored: restore as a role with fewer rights",
            one_line(first),
            session.about().user
        );
    }
    Ok(())
}

/// Finds the tables with code, by their names, quoted for statements. `r` is the role that owns a table.
fn find(session: &mut Session, owner: &str) -> Result<HashMap<String, Owned>> {
    let multirange = if session.version() >= 140_000 { "OR g.rngmultitypid = p.oid" } else { "" };
    let rows = session.rows(&format!(
        "WITH RECURSIVE tables AS MATERIALIZED (
             SELECT c.oid, r.rolname AS owner, pg_catalog.quote_ident(c.relname) AS relation,
                    pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) AS name
               FROM pg_catalog.pg_class c
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               JOIN pg_catalog.pg_roles r ON r.oid = c.relowner
              WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND c.oid >= 16384
                AND n.nspname OPERATOR(pg_catalog.!~) '^pg_'::pg_catalog.text AND {owner}),
         above AS (
             SELECT t.oid, i.inhparent AS parent
               FROM tables t JOIN pg_catalog.pg_inherits i ON i.inhrelid = t.oid
              UNION SELECT a.oid, i.inhparent FROM above a JOIN pg_catalog.pg_inherits i ON i.inhrelid = a.parent),
         types AS (
             SELECT t.oid, a.atttypid AS type
               FROM tables t JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
              WHERE a.atttypid >= 16384
              UNION SELECT y.oid, part.type
               FROM types y JOIN pg_catalog.pg_type p ON p.oid = y.type
              CROSS JOIN LATERAL (
                  SELECT p.typelem AS type UNION ALL SELECT p.typbasetype
                   UNION ALL SELECT g.rngsubtype FROM pg_catalog.pg_range g WHERE g.rngtypid = p.oid {multirange}
                   UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a
                              WHERE p.typrelid <> 0 AND a.attrelid = p.typrelid AND a.attnum > 0 AND NOT a.attisdropped
              ) AS part
              WHERE part.type >= 16384),
         trees AS (
             SELECT t.oid, d.adbin::pg_catalog.text AS tree
               FROM tables t JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attgenerated <> ''
               JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
              UNION SELECT t.oid, k.conbin::pg_catalog.text
               FROM tables t JOIN pg_catalog.pg_constraint k ON k.conrelid = t.oid AND k.contype = 'c'
              UNION SELECT t.oid, x.indexprs::pg_catalog.text FROM tables t JOIN pg_catalog.pg_index x ON x.indrelid = t.oid
              UNION SELECT t.oid, x.indpred::pg_catalog.text FROM tables t JOIN pg_catalog.pg_index x ON x.indrelid = t.oid
              UNION SELECT a.oid, p.partexprs::pg_catalog.text
               FROM above a JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = a.parent
              UNION SELECT y.oid, k.conbin::pg_catalog.text
               FROM types y JOIN pg_catalog.pg_constraint k ON k.contypid = y.type AND k.contype = 'c'),
         functions AS (
             SELECT e.tree, part[1] AS field, part[2]::pg_catalog.oid AS called
               FROM (SELECT DISTINCT tree FROM trees WHERE tree IS NOT NULL) AS e
              CROSS JOIN LATERAL pg_catalog.regexp_matches(e.tree,
                    ':(opno|funcid|opfuncid|hashfuncid|negfuncid|elemfuncid|resulttype) ([0-9]+)', 'g') AS part),
         unsafe AS (
             SELECT tree FROM trees CROSS JOIN LATERAL pg_catalog.regexp_matches(tree, '[{{]([A-Z_]+)', 'g') AS node
              WHERE node[1] NOT IN ({PLAIN_NODES})
              UNION SELECT f.tree
               FROM functions f LEFT JOIN pg_catalog.pg_operator o ON f.field = 'opno' AND o.oid = f.called
               LEFT JOIN pg_catalog.pg_proc p ON p.oid = CASE WHEN f.field = 'opno' THEN o.oprcode::pg_catalog.oid ELSE f.called END
              WHERE CASE WHEN f.called = 0 THEN false
                         WHEN f.called >= 16384 OR f.field = 'resulttype' THEN f.called >= 16384
                         ELSE (p.oid < 16384 AND (p.provolatile = 'i' OR p.provolatile = 's'
                               AND p.prorettype IN (16, 1082, 1083, 1114, 1184, 1186, 1266)
                               AND p.proname ~ '^(now|date|time|interval)')) IS NOT TRUE END)
         SELECT t.name, t.relation, t.owner,
                (SELECT string_agg(pg_catalog.quote_ident(a.attname) || ' ' || CASE WHEN a.atttypid < 16384
                        THEN pg_catalog.format_type(a.atttypid, a.atttypmod) ELSE 'pg_catalog.text' END, ', ')
                   FROM pg_catalog.pg_attribute a
                  WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '') AS definitions,
                (SELECT pg_catalog.json_object_agg(pg_catalog.quote_ident(a.attname), pg_catalog.format_type(a.atttypid, a.atttypmod))
                   FROM pg_catalog.pg_attribute a
                  WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid >= 16384) AS casts
           FROM tables t
          WHERE t.oid IN (SELECT e.oid FROM trees e JOIN unsafe u USING (tree))"
    ))?;
    let mut found = HashMap::new();
    for row in &rows {
        let casts: HashMap<String, String> = match row.get("casts")? {
            Some(text) => serde_json::from_str(text)
                .map_err(|error| Error::failed("cannot understand the types of columns").because(error))?,
            None => HashMap::new(),
        };
        let definitions = row.get("definitions")?.unwrap_or_default().to_owned();
        let (owner, name) = (row.text("owner")?.to_owned(), row.text("relation")?.to_owned());
        found.insert(row.text("name")?.to_owned(), Owned { owner, name, definitions, casts, path: None });
    }
    Ok(found)
}

/// The table that rows are loaded into before they are inserted.
const STAGING: &str = "pg_temp.lifeboat_staging";

/// Returns the tables whose rows are loaded by code that may look into other tables, by their names, quoted for statements:
/// functions of users or extensions in checks, generated columns, indexes, bounds of partitions, domains.
pub(crate) fn tables_with_code(session: &mut Session) -> Result<BTreeSet<String>> {
    Ok(find(session, "true")?.into_keys().collect())
}

/// Loads rows with the rights of the table's owner. `copy` loads rows with the COPY that it gets.
pub(crate) fn load(
    session: &mut Session,
    table: &RowSource,
    owned: &Owned,
    copy: impl FnOnce(&mut Session, &str) -> Result<u64>,
) -> Result<u64> {
    let value = |column: &String| match owned.casts.get(column) {
        Some(kind) => format!("{column}::{kind}"),
        None => column.clone(),
    };
    let values: Vec<String> = table.columns.iter().map(value).collect();
    session.execute(&format!(
        "DROP TABLE IF EXISTS {STAGING}; CREATE TEMPORARY TABLE lifeboat_staging ({}); GRANT SELECT ON {STAGING} TO {}",
        owned.definitions,
        ident(&owned.owner)
    ))?;
    let loaded = match copy(session, &format!("COPY {STAGING}{} FROM STDIN", table.column_list())) {
        Err(error) if !session.is_in_transaction() => {
            let _ = session.execute(&format!("DROP TABLE IF EXISTS {STAGING}"));
            return Err(error);
        }
        loaded => loaded?,
    };
    let inserted = run_in_path(
        session,
        &owned.owner,
        owned.path.as_deref().unwrap_or(SAFE_PATH),
        &format!(
            "INSERT INTO {}{} OVERRIDING SYSTEM VALUE SELECT {} FROM {STAGING}",
            table.qualified,
            table.column_list(),
            values.join(", ")
        ),
    );
    match inserted {
        Err(error) if session.is_in_transaction() => return Err(error),
        inserted => session.execute(&format!("DROP TABLE {STAGING}")).and(inserted)?,
    }
    Ok(loaded)
}

/// A `search_path` in which code of others is not found before that of the server.
const SAFE_PATH: &str = "pg_catalog, pg_temp";

/// Runs a statement with the rights of a role. The code that it calls can get no others, neither now nor later.
pub(crate) fn run(session: &mut Session, owner: &str, statement: &str) -> Result<()> {
    run_in_path(session, owner, SAFE_PATH, statement)
}

/// Runs a statement like [`run`], with this `search_path`.
pub(crate) fn run_in_path(session: &mut Session, owner: &str, path: &str, statement: &str) -> Result<()> {
    if session.is_in_transaction() {
        return run_in_transaction(session, owner, path, statement);
    }
    session.execute("BEGIN")?;
    match run_in_transaction(session, owner, path, statement) {
        Ok(()) => session.execute("COMMIT"),
        Err(error) => {
            let _ = session.execute("ROLLBACK");
            Err(error)
        }
    }
}

/// The function that runs a statement. Its owner may change it, so it is created anew for each statement.
const FUNCTION: &str = "pg_temp.lifeboat_run(pg_catalog.text)";

fn run_in_transaction(session: &mut Session, owner: &str, path: &str, statement: &str) -> Result<()> {
    let deferred = deferred_triggers(session)?;
    session.execute(&format!(
        "DROP FUNCTION IF EXISTS {FUNCTION};
         CREATE FUNCTION {FUNCTION} RETURNS pg_catalog.void LANGUAGE plpgsql SECURITY DEFINER
             SET search_path = {path}
             AS 'BEGIN EXECUTE $1; SET CONSTRAINTS ALL IMMEDIATE; END';
         ALTER FUNCTION {FUNCTION} OWNER TO {}",
        ident(owner)
    ))?;
    session.rows(&format!("SELECT pg_temp.lifeboat_run({}::pg_catalog.text)", literal(statement)))?;
    // The code may have changed settings, such as the path in which the next statements find functions.
    settings::pin_again(session)?;
    // A deferred trigger would be run at the end of the transaction, with the rights of the session.
    if deferred_triggers(session)? != deferred {
        return Err(Error::failed(format!(
            "a function that tables of {} use creates deferred triggers, which would run with the rights of {}",
            one_line(owner),
            session.about().user
        )));
    }
    session.execute(&format!("DROP FUNCTION IF EXISTS {FUNCTION}"))
}

/// Returns the oids of all triggers that may be deferred, but not those of foreign keys.
fn deferred_triggers(session: &mut Session) -> Result<Option<String>> {
    session
        .row(
            "SELECT pg_catalog.string_agg(t.oid::pg_catalog.text, ',' ORDER BY t.oid) AS oids
               FROM pg_catalog.pg_trigger t WHERE t.tgdeferrable AND NOT t.tgisinternal",
        )?
        .owned("oids")
}

/// Returns true if the code of a role is to be run with its own rights: the session has more.
pub(crate) fn has_fewer_rights(session: &mut Session, owner: &str) -> Result<bool> {
    let row = session.row(&format!(
        "SELECT coalesce(bool_or(s.rolsuper AND NOT r.rolsuper), false) AS fewer
           FROM pg_catalog.pg_roles s, pg_catalog.pg_roles r WHERE s.rolname = current_user AND r.rolname = {}",
        literal(owner)
    ))?;
    row.flag("fewer")
}
