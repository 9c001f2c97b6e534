//! Properties of the database as a whole: its settings, default privileges, and large objects.

use crate::engine::postgres::schema::gone_roles::GoneRoles;
use crate::engine::postgres::schema::object::catalogs;
use crate::engine::postgres::schema::{Address, Item, Kind, Object, Reader, Section, grants, quote, setting_text};
use crate::engine::postgres::wire::session::{Row, Session};
use crate::platform::error::Result;

/// Reads the owner, comment, privileges, labels and settings of the database. The statements apply to the database that
/// they are run in.
pub(super) fn settings(reader: &mut Reader) -> Result<()> {
    let row = reader.session.row(&format!(
        "SELECT d.oid, d.datname AS name, pg_catalog.pg_get_userbyid(d.datdba) AS owner, \
         d.datconnlimit AS connections, d.datistemplate AS template, \
         pg_catalog.shobj_description(d.oid, 'pg_database') AS comment, {} \
         FROM pg_catalog.pg_database d WHERE d.datname = current_database()",
        grants::columns('d', "d.datacl", "d.datdba")
    ))?;
    let oid: u32 = row.number("oid")?;
    let mut shared = Numbered { oid, count: 0 };
    let owner = row.text("owner")?;
    let mut owned = shared.object("owner");
    owned.owner = Some(owner.to_owned());
    owned.role(owner);
    owned.set_owner.push(quote::for_this_database("ALTER DATABASE %I OWNER TO %I", &[owner]));
    reader.add(owned);
    let connections = row.text("connections")?;
    if connections != "-1" {
        let mut limited = shared.object("connection limit");
        let statement = format!("ALTER DATABASE %I CONNECTION LIMIT {connections}");
        limited.create.push(quote::for_this_database(&statement, &[]));
        reader.add(limited);
    }
    if row.flag("template")? {
        reader.notes.push(
            "the database is a template; the restored database is not, because a template database cannot be dropped"
                .to_owned(),
        );
    }
    if let Some(comment) = row.get("comment")? {
        let mut commented = shared.object("comment");
        commented.create.push(quote::for_this_database("COMMENT ON DATABASE %I IS %L", &[comment]));
        reader.add(commented);
    }
    if row.get("acl")?.is_some() {
        let mut granted = shared.object("privileges");
        // The mark holds the place of the database's name. It cannot occur in any other part of the statement.
        let mark = "\u{1}";
        let (acl, base) = (row.list("acl")?, row.list("acl_base")?);
        let target = grants::Target { word: "DATABASE", name: mark, column: None, owner };
        for statement in grants::statements(&mut reader.gone_roles, &mut granted, &target, &acl, &base)? {
            let text = match statement.split_once(mark) {
                Some((before, after)) => quote::for_this_database(
                    &format!("{}%I{}", before.replace('%', "%%"), after.replace('%', "%%")),
                    &[],
                ),
                None => statement,
            };
            granted.set_owner.push(text);
        }
        if !granted.set_owner.is_empty() {
            reader.add(granted);
        }
    }
    labels(reader, &mut shared)?;
    values(reader, &mut shared)
}

/// Creates objects that share the database's address. A number in the column makes each address unique.
struct Numbered {
    oid: u32,
    count: i32,
}

impl Numbered {
    fn object(&mut self, name: &str) -> Object {
        self.count += 1;
        let address = Address { catalog: catalogs::DATABASE, oid: self.oid, column: self.count };
        Object::new(address, Kind::DatabaseSetting, None, name).at(Section::Last)
    }
}

/// Reads the database's security labels.
fn labels(reader: &mut Reader, shared: &mut Numbered) -> Result<()> {
    let oid = shared.oid;
    let labels = reader.rows(&format!(
        "SELECT provider, label FROM pg_catalog.pg_shseclabel WHERE classoid = {} AND objoid = {oid} ORDER BY 1",
        catalogs::DATABASE
    ))?;
    for row in labels {
        let provider = row.text("provider")?;
        let mut labelled = shared.object(&format!("security label {provider}"));
        let text = row.text("label")?;
        let statement =
            format!("SECURITY LABEL FOR {} ON DATABASE %I IS %L", quote::ident(provider).replace('%', "%%"));
        labelled.create.push(quote::for_this_database(&statement, &[text]));
        reader.add(labelled);
    }
    Ok(())
}

/// Reads the settings of the database, for all roles and for single roles.
fn values(reader: &mut Reader, shared: &mut Numbered) -> Result<()> {
    let oid = shared.oid;
    let rows = reader.rows(&format!(
        "SELECT s.setrole AS role_oid, pg_catalog.pg_get_userbyid(s.setrole) AS role, c.setting \
         FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) WITH ORDINALITY c (setting, place) \
         WHERE s.setdatabase = {oid} ORDER BY s.setrole <> 0, s.ctid, c.place"
    ))?;
    // One object for the database and one for each role. The order in which the settings were made is kept, because
    // pg_dump prints them in that order.
    let mut sets: Vec<Object> = Vec::new();
    for row in rows {
        let setting = row.text("setting")?;
        let (name, values) = setting_text::parse(setting);
        let placeholders = vec!["%L"; values.len()].join(", ");
        let values = values.iter().map(String::as_str);
        let role = Some(row.text("role")?).filter(|_| row.text("role_oid").is_ok_and(|oid| oid != "0"));
        if let Some(role) = role.filter(|role| reader.gone_roles.is_gone_owner(role)) {
            let note = format!("the database's settings of the role {role}, which does not exist, were left out");
            if !reader.notes.contains(&note) {
                reader.notes.push(note);
            }
            continue;
        }
        let title = role.map_or_else(|| "settings".to_owned(), |role| format!("settings of role {role}"));
        if sets.last().is_none_or(|set| set.name != title) {
            sets.push(shared.object(&title));
        }
        let Some(set) = sets.last_mut() else { continue };
        match role {
            None => {
                let arguments: Vec<&str> = std::iter::once(name).chain(values).collect();
                let statement = format!("ALTER DATABASE %I SET %I TO {placeholders}");
                set.create.push(quote::for_this_database(&statement, &arguments));
            }
            Some(role) => {
                set.role(role);
                let arguments: Vec<&str> = [role, name].into_iter().chain(values).collect();
                // The database's name is the first argument, although the statement names the role first.
                let statement = format!("ALTER ROLE %2$I IN DATABASE %1$I SET %3$I TO {}", numbered(&placeholders));
                set.set_owner.push(quote::for_this_database(&statement, &arguments));
            }
        }
    }
    for set in sets {
        reader.add(set);
    }
    Ok(())
}

/// Returns `placeholders` with its `%L`s numbered from 4 on.
fn numbered(placeholders: &str) -> String {
    let mut numbered = String::new();
    for (index, part) in placeholders.split("%L").enumerate() {
        if index > 0 {
            numbered.push_str(&format!("%{}$L", index + 3));
        }
        numbered.push_str(part);
    }
    numbered
}

/// Reads the default privileges.
pub(super) fn default_privileges(reader: &mut Reader) -> Result<()> {
    for row in reader.rows(DEFAULT_PRIVILEGES)? {
        let role = row.text("role")?;
        // The check that nothing was missed notes the row: without its schema, it would be for all schemas.
        if row.flag("has_no_schema")? || reader.gone_roles.is_gone_owner(role) {
            continue;
        }
        let Some(word) = default_privileges_word(&row)? else {
            let letter = row.text("type")?;
            reader.refused.push(format!("the default privileges of {role}: unknown kind of object '{letter}'"));
            continue;
        };
        let mut object = default_privileges_object(&row, word)?;
        let (acl, base) = (row.list("acl")?, row.list("acl_base")?);
        let (gone, prefix) = (&mut reader.gone_roles, default_privileges_prefix(&row)?);
        object.set_owner = grants::default_statements(gone, &mut object, &prefix, (word, role), &acl, &base)?;
        reader.add(object);
    }
    Ok(())
}

/// The query for the default privileges, and those that they differ from.
const DEFAULT_PRIVILEGES: &str = "SELECT a.oid, pg_catalog.pg_get_userbyid(a.defaclrole) AS role, n.nspname AS schema, \
     a.defaclobjtype AS type, a.defaclnamespace <> 0 AND n.oid IS NULL AS has_no_schema, \
     to_json(a.defaclacl::text[]) AS acl, CASE WHEN a.defaclnamespace = 0 THEN to_json(pg_catalog.acldefault( \
     CASE WHEN a.defaclobjtype = 'S' THEN 's'::\"char\" ELSE a.defaclobjtype END, a.defaclrole)::text[]) \
     ELSE '[]' END AS acl_base \
     FROM pg_catalog.pg_default_acl a LEFT JOIN pg_catalog.pg_namespace n ON n.oid = a.defaclnamespace";

/// Returns the word for the objects that get the privileges, or `None` if the kind is unknown.
fn default_privileges_word(row: &Row) -> Result<Option<&'static str>> {
    Ok(match row.text("type")? {
        "r" => Some("TABLES"),
        "S" => Some("SEQUENCES"),
        "f" => Some("FUNCTIONS"),
        "T" => Some("TYPES"),
        "n" => Some("SCHEMAS"),
        "L" => Some("LARGE OBJECTS"),
        _ => None,
    })
}

fn default_privileges_prefix(row: &Row) -> Result<String> {
    let mut prefix = format!("ALTER DEFAULT PRIVILEGES FOR ROLE {}", quote::ident(row.text("role")?));
    if let Some(schema) = row.get("schema")? {
        prefix.push_str(&format!(" IN SCHEMA {}", quote::ident(schema)));
    }
    Ok(prefix)
}

fn default_privileges_object(row: &Row, word: &str) -> Result<Object> {
    let (role, schema) = (row.text("role")?, row.get("schema")?);
    let address = Address::new(catalogs::DEFAULT_ACL, row.number("oid")?);
    let name = format!("{} of {role}", word.to_lowercase());
    let mut object = Object::new(address, Kind::DefaultPrivileges, schema, &name).at(Section::Last);
    object.owner = Some(role.to_owned());
    object.role(role);
    Ok(object)
}

/// The default privileges of a database at one time.
pub(in crate::engine::postgres) struct DefaultPrivileges(Vec<DefaultList>);

/// The default privileges of a role for one kind of objects.
struct DefaultList {
    /// The object that the schema has for them.
    object: Object,
    word: &'static str,
    prefix: String,
    acl: Vec<String>,
    /// The privileges without any that are set.
    base: Vec<String>,
}

impl DefaultList {
    fn is_of(&self, schema: Option<&String>, name: &str) -> bool {
        (self.object.schema.as_ref(), self.object.name.as_str()) == (schema, name)
    }

    /// Returns the statements that change the privileges `from` to `to`.
    fn change(&self, from: &[String], to: &[String]) -> Result<Vec<String>> {
        let of = (self.word, self.object.owner.as_deref().unwrap_or_default());
        let (gone, object) = (&mut GoneRoles::default(), &mut self.object.clone());
        grants::default_statements(gone, object, &self.prefix, of, to, from)
    }
}

impl DefaultPrivileges {
    pub(in crate::engine::postgres) fn read(session: &mut Session) -> Result<Self> {
        let mut lists = Vec::new();
        for row in session.rows(DEFAULT_PRIVILEGES)? {
            let Some(word) = default_privileges_word(&row)?.filter(|_| !matches!(row.flag("has_no_schema"), Ok(true)))
            else {
                continue;
            };
            let (object, prefix) = (default_privileges_object(&row, word)?, default_privileges_prefix(&row)?);
            lists.push(DefaultList { object, word, prefix, acl: row.list("acl")?, base: row.list("acl_base")? });
        }
        Ok(DefaultPrivileges(lists))
    }

    fn find(&self, schema: Option<&String>, name: &str) -> Option<&DefaultList> {
        self.0.iter().find(|list| list.is_of(schema, name))
    }

    /// Returns the statements that set those of these items back to what they are here, from what they are `now`.
    pub(in crate::engine::postgres) fn put_back(&self, now: &Self, items: &[&Item]) -> Result<Vec<String>> {
        let mut statements = Vec::new();
        for item in items.iter().filter(|item| item.kind == Kind::DefaultPrivileges) {
            let (schema, name) = (item.schema.as_ref(), item.name.as_str());
            statements.extend(match (self.find(schema, name), now.find(schema, name)) {
                (Some(before), Some(now)) => before.change(&now.acl, &before.acl)?,
                (Some(before), None) => before.change(&before.base, &before.acl)?,
                (None, Some(now)) => now.change(&now.acl, &now.base)?,
                (None, None) => Vec::new(),
            });
        }
        Ok(statements)
    }
}

/// Reads the large objects, without their data.
pub(super) fn large_objects(reader: &mut Reader) -> Result<()> {
    let rows = reader.rows(&format!(
        "SELECT l.oid, pg_catalog.pg_get_userbyid(l.lomowner) AS owner, {} \
         FROM pg_catalog.pg_largeobject_metadata l",
        grants::columns('L', "l.lomacl", "l.lomowner")
    ))?;
    for row in rows {
        let oid = row.text("oid")?;
        let address = Address::new(catalogs::LARGE_OBJECT, row.number("oid")?);
        let mut object = Object::new(address, Kind::LargeObject, None, oid);
        object.identity = format!("LARGE OBJECT {oid}");
        object.create.push(format!("SELECT pg_catalog.lo_create({oid})"));
        object.own(row.text("owner")?);
        grants::add(&mut reader.gone_roles, &mut object, &row, "LARGE OBJECT", oid)?;
        reader.add(object);
    }
    Ok(())
}
