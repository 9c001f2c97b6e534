//! The roles that a schema needs, without their passwords: read for a snapshot, and made again where they are missing.
//!
//! A role that a restore makes cannot log in and has no power over the server, whatever it was before. It becomes a member
//! only of roles that the same restore makes: a role that exists may have any rights. A role that exists is never changed:
//! neither its attributes and settings, nor the roles that it is a member of.
//!
//! Settings may be secrets (`pgrst.jwt_secret`), so they are stored only in the archive, and never printed.

use std::collections::BTreeSet;

use crate::engine::postgres::schema::psql_text::for_psql;
use crate::engine::postgres::schema::quote::{dollars, ident, literal};
use crate::engine::postgres::schema::{not_sql, setting_text};
use crate::engine::postgres::wire::majors::VERSION_16;
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::{Error, Result, one_line};
use crate::snapshots::manifest::{Membership, RoleFacts};

/// The attributes of a role that `CREATE ROLE` does not give by default, each with its column in pg_roles.
const ATTRIBUTES: [(&str, &str); 6] = [
    ("LOGIN", "rolcanlogin"),
    ("SUPERUSER", "rolsuper"),
    ("CREATEDB", "rolcreatedb"),
    ("CREATEROLE", "rolcreaterole"),
    ("REPLICATION", "rolreplication"),
    ("BYPASSRLS", "rolbypassrls"),
];

/// The attributes that a restore does not give to the roles that it makes.
const WITHHELD: [&str; 5] = ["LOGIN", "SUPERUSER", "CREATEROLE", "REPLICATION", "BYPASSRLS"];

/// Reads the definitions of these roles, and the memberships between them. Any role may read them. Roles of the server
/// itself, whose names begin with `pg_`, have no definition.
pub(super) fn read(session: &mut Session, names: &BTreeSet<String>) -> Result<Vec<RoleFacts>> {
    if names.iter().all(|name| name.starts_with("pg_")) {
        return Ok(Vec::new());
    }
    let list = names.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", ");
    let has_options = session.version() >= VERSION_16;
    let options =
        if has_options { "bool_or(m.inherit_option), 'set', bool_or(m.set_option)" } else { "NULL, 'set', NULL" };
    let attributes: Vec<String> =
        ATTRIBUTES.iter().map(|(word, column)| format!("CASE WHEN r.{column} THEN '{word}' END")).collect();
    let rows = session.rows(&format!(
        "SELECT r.rolname AS name, to_json(array_remove(ARRAY[{}], NULL)) AS attributes, r.rolinherit AS inherits,
                nullif(r.rolconnlimit, -1) AS connection_limit, r.rolvaliduntil::text AS valid_until,
                to_json(r.rolconfig) AS settings,
                (SELECT json_agg(g.membership ORDER BY g.name) FROM (
                     SELECT o.rolname AS name, json_build_object('role', o.rolname, 'admin', bool_or(m.admin_option),
                                'inherit', {options}) AS membership
                       FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles o ON o.oid = m.roleid
                      WHERE m.member = r.oid AND o.rolname IN ({list}) GROUP BY o.rolname) g) AS member_of
           FROM pg_catalog.pg_roles r
          WHERE r.rolname IN ({list}) AND NOT pg_catalog.starts_with(r.rolname::text, 'pg_') ORDER BY r.rolname COLLATE \"C\"",
        attributes.join(", ")
    ))?;
    rows.iter()
        .map(|row| {
            let member_of = row.get("member_of")?.map_or(Ok(Vec::new()), |json| {
                serde_json::from_str(json)
                    .map_err(|error| Error::failed("the server returned invalid JSON").because(error))
            })?;
            Ok(RoleFacts {
                name: row.text("name")?.to_owned(),
                attributes: row.list("attributes")?,
                inherits: row.flag("inherits")?,
                connection_limit: row.get("connection_limit")?.and_then(|number| number.parse().ok()),
                valid_until: row.owned("valid_until")?,
                settings: row.list("settings")?,
                member_of,
            })
        })
        .collect()
}

/// Returns the statement that makes a role.
pub(in crate::engine::postgres) fn create(role: &RoleFacts) -> String {
    let mut sql = format!("CREATE ROLE {} NOLOGIN", ident(&role.name));
    if !role.inherits {
        sql.push_str(" NOINHERIT");
    }
    if let Some(limit) = role.connection_limit {
        sql.push_str(&format!(" CONNECTION LIMIT {limit}"));
    }
    if let Some(until) = &role.valid_until {
        sql.push_str(&format!(" VALID UNTIL {}", literal(until)));
    }
    sql
}

/// Returns the statements that give a role its attributes and settings, each with words for it that have no secret. Not
/// every role that may make roles may run them.
pub(in crate::engine::postgres) fn alter(role: &RoleFacts) -> Vec<(String, String)> {
    let name = ident(&role.name);
    let is_given = |word: &&str| !WITHHELD.contains(word) && role.attributes.iter().any(|attribute| attribute == word);
    let attributes = ATTRIBUTES.iter().map(|(word, _)| *word).filter(is_given);
    let attributes = attributes.map(|word| format!("ALTER ROLE {name} {word}"));
    let mut statements: Vec<(String, String)> = attributes.map(|sql| (sql.clone(), sql)).collect();
    for setting in &role.settings {
        let (setting, values) = setting_text::parse(setting);
        let values: Vec<String> = values.iter().map(|value| literal(value)).collect();
        let words = format!("ALTER ROLE {name} SET {}", ident(setting));
        statements.push((format!("{words} TO {}", values.join(", ")), words));
    }
    statements
}

/// Returns the statement that makes a role a member of another, for a server of this version.
pub(in crate::engine::postgres) fn grant(role: &RoleFacts, of: &Membership, version: u32) -> String {
    let mut options = Vec::new();
    if version >= VERSION_16 {
        for (word, value) in [("ADMIN", Some(of.admin)), ("INHERIT", of.inherit), ("SET", of.set)] {
            options.extend(value.map(|value| format!("{word} {}", if value { "TRUE" } else { "FALSE" })));
        }
    } else if of.admin {
        options.push("ADMIN OPTION".to_owned());
    }
    let with = if options.is_empty() { String::new() } else { format!(" WITH {}", options.join(", ")) };
    format!("GRANT {} TO {}{with}", ident(&of.role), ident(&role.name))
}

/// Returns the attributes of a role that a restore does not give to it.
pub(in crate::engine::postgres) fn withheld(role: &RoleFacts) -> Vec<&str> {
    let is_withheld = |word: &&str| WITHHELD.contains(word);
    role.attributes.iter().map(String::as_str).filter(is_withheld).collect()
}

/// Returns a script for psql that makes the roles which are missing on a server of any version, and does nothing else.
/// Fails if psql would run a part of it by itself.
pub(in crate::engine::postgres) fn script(roles: &[RoleFacts]) -> Result<String> {
    let mut text = String::from(
        "-- Makes the roles that are missing on the server, without passwords: run it in any database, before\n\
         -- restore.sql. No role can log in, or has power over the server, until 'ALTER ROLE ... LOGIN' and the like make\n\
         -- it so. Roles that exist are not changed, and no role is made a member of them.\n\
         SET search_path = '';\n",
    );
    let names: Vec<String> = roles.iter().map(|role| literal(&role.name)).collect();
    let mut statements = vec![format!(
        "CREATE TEMPORARY TABLE lifeboat_new_roles AS SELECT name FROM pg_catalog.unnest(ARRAY[{}]::pg_catalog.text[]) AS \
         name WHERE name NOT IN (SELECT rolname::pg_catalog.text FROM pg_catalog.pg_roles)",
        names.join(", ")
    )];
    let if_new = |role: &RoleFacts, body: &[String]| {
        let condition = format!("SELECT FROM pg_temp.lifeboat_new_roles WHERE name = {}", literal(&role.name));
        let body: String = body.iter().map(|statement| format!("    {statement};\n")).collect();
        format!("DO {}", dollars(&format!("BEGIN IF EXISTS ({condition}) THEN\n{body}END IF; END")))
    };
    for role in roles {
        let body: Vec<String> =
            std::iter::once(create(role)).chain(alter(role).into_iter().map(|(sql, _)| sql)).collect();
        statements.push(if_new(role, &body));
    }
    for role in roles {
        let body: Vec<String> = role.member_of.iter().map(|of| grant_if_new(role, of)).collect();
        if !body.is_empty() {
            statements.push(if_new(role, &body));
        }
    }
    for statement in &statements {
        text.push_str(&for_psql(statement).map_err(|reason| not_sql("roles", reason))?);
        text.push_str(";\n");
    }
    for role in roles.iter().filter(|role| !withheld(role).is_empty()) {
        text.push_str(&format!("-- not restored: {} of {}\n", withheld(role).join(", "), one_line(&role.name)));
    }
    for (role, of) in roles.iter().flat_map(|role| role.member_of.iter().map(move |of| (role, of))) {
        let (statement, name) = (grant(role, of, 0), one_line(&of.role));
        text.push_str(&format!("-- not done if {name} existed before: {}\n", one_line(&statement)));
    }
    Ok(text)
}

/// Returns a statement of PL/pgSQL that makes a role a member of another one, if that is new too. A role that exists may be
/// a superuser on this server.
fn grant_if_new(role: &RoleFacts, of: &Membership) -> String {
    let (old, new) = (grant(role, of, 0), grant(role, of, VERSION_16));
    format!(
        "IF EXISTS (SELECT FROM pg_temp.lifeboat_new_roles WHERE name = {}) THEN EXECUTE CASE WHEN \
         pg_catalog.current_setting('server_version_num')::pg_catalog.int4 >= {VERSION_16} \
         THEN {} ELSE {} END; END IF",
        literal(&of.role),
        literal(&new),
        literal(&old)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role() -> RoleFacts {
        RoleFacts {
            name: "a \"b\" 'c'\n\\! touch x".to_owned(),
            attributes: ["LOGIN", "SUPERUSER", "CREATEDB", "OF_TOMORROW; DROP"].map(str::to_owned).to_vec(),
            inherits: false,
            connection_limit: Some(5),
            valid_until: Some("2030-01-01 00:00:00+00".to_owned()),
            settings: vec!["work_mem=4MB".to_owned(), "search_path=\"$user\", 'x".to_owned(), "my.key=a\\b".to_owned()],
            member_of: vec![Membership { role: "g".to_owned(), admin: true, inherit: Some(false), set: None }],
        }
    }

    #[test]
    fn a_role_is_made_without_the_attributes_that_are_withheld() {
        let (role, name) = (role(), "\"a \"\"b\"\" 'c'\n\\! touch x\"");
        assert_eq!(
            create(&role),
            format!("CREATE ROLE {name} NOLOGIN NOINHERIT CONNECTION LIMIT 5 VALID UNTIL '2030-01-01 00:00:00+00'")
        );
        assert_eq!(
            alter(&role).into_iter().map(|(sql, _)| sql).collect::<Vec<_>>(),
            [
                format!("ALTER ROLE {name} CREATEDB"),
                format!("ALTER ROLE {name} SET work_mem TO '4MB'"),
                format!("ALTER ROLE {name} SET search_path TO '$user', '''x'"),
                format!("ALTER ROLE {name} SET \"my.key\" TO E'a\\\\b'"),
            ]
        );
        let of = &role.member_of[0];
        assert_eq!(grant(&role, of, 150_000), format!("GRANT g TO {name} WITH ADMIN OPTION"));
        assert_eq!(grant(&role, of, VERSION_16), format!("GRANT g TO {name} WITH ADMIN TRUE, INHERIT FALSE"));
        assert_eq!(withheld(&role), ["LOGIN", "SUPERUSER"]);
    }

    #[test]
    fn a_script_names_what_is_not_restored_and_psql_runs_nothing_of_it_by_itself() {
        let text = script(&[role()]).expect("psql reads each statement as one");
        let expected = "-- not restored: LOGIN, SUPERUSER of a \"b\" 'c'\\n\\! touch x\n\
            -- not done if g existed before: GRANT g TO \"a \"\"b\"\" 'c'\\n\\! touch x\" WITH ADMIN OPTION\n";
        assert!(text.ends_with(expected), "{text}");
        assert!(!text.contains("OF_TOMORROW"), "{text}");
    }
}
