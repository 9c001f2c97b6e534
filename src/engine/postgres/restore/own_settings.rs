//! The settings that sessions of a database have by themselves. Statements that fail with the settings of a restore are
//! tried again with them.
//!
//! A restore sets an empty `search_path`, so that nobody can put a function in front of another. Functions that find their
//! helpers by `search_path`, in indexes, checks, generated columns and materialized views, then fail. `pg_catalog` always
//! comes first here, so that the statements of the restore mean the same.
//!
//! Code that runs with the rights of the session, or of a superuser, must not call functions of other roles that it finds
//! by `search_path`: `obstacle` says which role owns something in these schemas.

use std::collections::BTreeSet;

use crate::engine::postgres::restore::create::Owners;
use crate::engine::postgres::schema::quote::{ident, literal};
use crate::engine::postgres::schema::setting_text::list;
use crate::engine::postgres::schema::{Item, Kind};
use crate::engine::postgres::wire::session::{Session, sqlstate};
use crate::engine::postgres::wire::settings;
use crate::platform::error::Result;

/// The settings, besides `search_path`, that change what functions return.
const OTHERS: [&str; 4] = ["TimeZone", "DateStyle", "IntervalStyle", "default_text_search_config"];

/// A setting of a database or a role.
#[derive(Clone, Debug)]
struct Setting {
    /// The role, if it is not for all roles.
    role: Option<String>,
    /// True if it is for the database, false if it is for a role in all databases.
    of_database: bool,
    name: String,
    value: String,
}

/// The settings of a database for its sessions.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnSettings(Vec<Setting>);

/// The settings of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// The schemas in which functions are found, after `pg_catalog`.
    schemas: Vec<String>,
    others: Vec<(String, String)>,
}

impl OwnSettings {
    /// Reads the settings that the database had when it was saved, and those that the server has for its roles.
    pub(super) fn read(session: &mut Session, items: &[Item]) -> Result<Self> {
        let in_transaction = session.is_in_transaction();
        session.execute(if in_transaction { "SAVEPOINT lifeboat_settings" } else { "BEGIN" })?;
        let read = Self::read_in_transaction(session, items);
        session.execute(if in_transaction { "ROLLBACK TO SAVEPOINT lifeboat_settings" } else { "ROLLBACK" })?;
        read
    }

    /// Reads the settings. The server itself splits the statements of the archive, in a transaction that is rolled back.
    fn read_in_transaction(session: &mut Session, items: &[Item]) -> Result<Self> {
        let of_sessions =
            |item: &&Item| item.kind == Kind::DatabaseSetting && item.name.to_lowercase().starts_with("settings");
        for statement in items.iter().filter(of_sessions).flat_map(|item| item.create.iter().chain(&item.set_owner)) {
            session.execute("SAVEPOINT lifeboat_setting")?;
            match session.execute(statement) {
                // A role may be missing, or the session may not be allowed to set it.
                Err(error) if sqlstate(&error).is_some() => {
                    session.execute("ROLLBACK TO SAVEPOINT lifeboat_setting")?;
                }
                done => done?,
            }
        }
        let rows = session.rows(
            "SELECT r.rolname AS role, s.setdatabase <> 0 AS of_database, c.setting
               FROM pg_catalog.pg_db_role_setting s LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
              CROSS JOIN LATERAL unnest(s.setconfig) WITH ORDINALITY c (setting, place)
              WHERE s.setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
              ORDER BY s.setdatabase, s.setrole, c.place",
        )?;
        let modules = session.rows(
            "SELECT name FROM pg_catalog.pg_available_extensions UNION SELECT lanname FROM pg_catalog.pg_language",
        )?;
        let modules: BTreeSet<&str> = modules.iter().map(|row| row.text("name")).collect::<Result<_>>()?;
        let is_read = |name: &str| match name.split_once('.') {
            // Settings of an application. Those of modules can run code.
            Some((prefix, _)) => !modules.contains(prefix) && !prefix.starts_with("pl"),
            None => name == "search_path" || OTHERS.iter().any(|other| other.eq_ignore_ascii_case(name)),
        };
        let mut found = Vec::new();
        for row in &rows {
            let (name, value) = row.text("setting")?.split_once('=').unwrap_or_default();
            if is_read(name) {
                let (name, value) = (name.to_owned(), value.to_owned());
                found.push(Setting { role: row.owned("role")?, of_database: row.flag("of_database")?, name, value });
            }
        }
        Ok(OwnSettings(found))
    }

    /// Returns the settings to try for code of a role: those of its sessions, those of the database, and the default.
    pub(super) fn of(&self, role: &str) -> Vec<Settings> {
        let own = |setting: &Setting| setting.role.as_deref() == Some(role);
        let for_all = |setting: &Setting| setting.role.is_none();
        // A later setting replaces an earlier one.
        let ranked = [
            self.merge(
                role,
                &[&for_all, &|setting| own(setting) && !setting.of_database, &|setting| {
                    own(setting) && setting.of_database
                }],
            ),
            self.merge(role, &[&for_all]),
            self.merge(role, &[]),
        ];
        let mut all: Vec<Settings> = Vec::new();
        for settings in ranked {
            if !all.contains(&settings) {
                all.push(settings);
            }
        }
        all
    }

    fn merge(&self, role: &str, layers: &[&dyn Fn(&Setting) -> bool]) -> Settings {
        let mut path = vec!["$user".to_owned(), "public".to_owned()];
        let mut others: Vec<(String, String)> = Vec::new();
        for setting in layers.iter().flat_map(|layer| self.0.iter().filter(move |setting| layer(setting))) {
            if setting.name == "search_path" {
                path = list(&setting.value);
            } else {
                others.retain(|(name, _)| *name != setting.name);
                others.push((setting.name.clone(), setting.value.clone()));
            }
        }
        let named = |schema: String| if schema == "$user" { role.to_owned() } else { schema };
        let is_last = |schema: &String| !schema.is_empty() && !["pg_catalog", "pg_temp"].contains(&schema.as_str());
        Settings { schemas: path.into_iter().map(named).filter(is_last).collect(), others }
    }
}

impl Settings {
    /// Returns the value of `search_path`.
    pub(super) fn path(&self) -> String {
        let names = ["pg_catalog"].into_iter().chain(self.schemas.iter().map(String::as_str)).chain(["pg_temp"]);
        names.map(ident).collect::<Vec<_>>().join(", ")
    }

    /// Runs `work` with these settings, and then sets those of a restore again. The session itself gets `search_path` only
    /// with `in_session`: code that runs with fewer rights gets it where it runs, because the statements of the session must
    /// not find operators and functions of others.
    pub(super) fn run<T>(
        &self,
        session: &mut Session,
        in_session: bool,
        work: impl FnOnce(&mut Session) -> Result<T>,
    ) -> Result<T> {
        let done = self.set(session, in_session).and_then(|()| work(session));
        // The savepoint or the transaction that failed has reset the settings itself.
        match done {
            Err(error) if session.is_in_transaction() => Err(error),
            done => Self::set_back(session, &self.others).and(done),
        }
    }

    /// Sets them in the session. The value of a setting of an application may be one that the server does not accept.
    fn set(&self, session: &mut Session, in_session: bool) -> Result<()> {
        if in_session {
            session.execute(&format!("SET search_path = {}", self.path()))?;
        }
        // A restore fixes these. Otherwise, they have the default of the server.
        for name in OTHERS {
            if !self.others.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
                session.execute(&format!("SET {name} TO DEFAULT"))?;
            }
        }
        for (name, value) in &self.others {
            let value = literal(value);
            session.execute(&format!("SELECT pg_catalog.set_config({}, {value}, false)", literal(name)))?;
        }
        Ok(())
    }

    fn set_back(session: &mut Session, others: &[(String, String)]) -> Result<()> {
        for (name, _) in others.iter().filter(|(name, _)| name.contains('.')) {
            let name: Vec<String> = name.split('.').map(ident).collect();
            session.execute(&format!("RESET {}", name.join(".")))?;
        }
        settings::pin_again(session)?;
        session.execute("SET search_path = ''; SET default_text_search_config TO DEFAULT")
    }

    /// Returns the role whose functions, operators, views or domains the code could call that runs with the rights of
    /// `role`, although it should not: it has fewer rights. Returns `None` if there is none.
    pub(super) fn obstacle(
        &self,
        session: &mut Session,
        role: &str,
        owner: Option<&str>,
        items: &[Item],
        owners: Owners,
    ) -> Result<Option<String>> {
        if owners == Owners::Leave {
            // Everything belongs to the session: the owners in the source count.
            let is_code = |item: &&Item| {
                let kinds =
                    [Kind::Function, Kind::Procedure, Kind::Aggregate, Kind::Operator, Kind::View, Kind::Domain];
                kinds.contains(&item.kind) && item.schema.as_ref().is_some_and(|schema| self.schemas.contains(schema))
            };
            let others = items.iter().filter(is_code).filter_map(|item| item.owner.as_deref());
            return Ok(others.into_iter().find(|other| Some(*other) != owner).map(str::to_owned));
        }
        let schemas: Vec<String> = self.schemas.iter().map(|schema| literal(schema)).collect();
        let schemas = if schemas.is_empty() { "NULL".to_owned() } else { schemas.join(", ") };
        let role = literal(role);
        let rows = session.rows(&format!(
            "WITH schemas AS (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname IN ({schemas})), owners AS (
                 SELECT proowner AS oid FROM pg_catalog.pg_proc WHERE pronamespace IN (SELECT oid FROM schemas)
                  UNION SELECT oprowner FROM pg_catalog.pg_operator WHERE oprnamespace IN (SELECT oid FROM schemas)
                  UNION SELECT relowner FROM pg_catalog.pg_class
                         WHERE relkind IN ('v', 'f') AND relnamespace IN (SELECT oid FROM schemas)
                  UNION SELECT typowner FROM pg_catalog.pg_type
                         WHERE typtype = 'd' AND typnamespace IN (SELECT oid FROM schemas))
             SELECT r.rolname AS name FROM owners o JOIN pg_catalog.pg_roles r ON r.oid = o.oid
              WHERE NOT r.rolsuper AND r.rolname <> {role}
                AND ({role} = current_user OR (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = {role}))
              ORDER BY 1 LIMIT 1"
        ))?;
        rows.first().map(|row| Ok(row.text("name")?.to_owned())).transpose()
    }
}
