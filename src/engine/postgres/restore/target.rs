//! The databases that a restore creates on the server: created under a scratch name, marked, renamed, exchanged,
//! dropped.

use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::engine::postgres::restore::contents::contents;
use crate::engine::postgres::restore::create::Owners;
use crate::engine::postgres::restore::in_use::{self, InUse};
use crate::engine::postgres::restore::roles;
use crate::engine::postgres::restore::tied::{self, Tied};
use crate::engine::postgres::restore::undo::{Exchange, SCRATCH};
use crate::engine::postgres::schema::Item;
use crate::engine::postgres::schema::quote::{ident, literal};
use crate::engine::postgres::timescale;
use crate::engine::postgres::wire::params::Params;
use crate::engine::postgres::wire::session::{INSUFFICIENT_PRIVILEGE, Row, Session, sqlstate};
use crate::engine::postgres::wire::settings;
use crate::platform::digest::Sha256;
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::snapshots::manifest::{DatabaseFacts, PostgresFacts};

/// The prefix of the comment of an unfinished database.
const MARK: &str = "lifeboat: not finished ";

/// A condition on `a`, pg_stat_activity: the processes that the server, or TimescaleDB, does not end itself when a
/// database is renamed or dropped.
const NOT_ENDED_BY_SERVER: &str = "coalesce(a.backend_type, '') !~ '^(autovacuum worker$|TimescaleDB )'";

/// The maximum time to wait for the sessions of others to end after they were asked to.
const SESSION_END_TIMEOUT: Duration = Duration::from_secs(20);

/// The time from which this process uses servers. A mark with this process's number and an earlier time belongs to an
/// earlier process with the same number, which is common in containers.
static STARTED_AT: LazyLock<DateTime<Utc>> = LazyLock::new(Utc::now);

/// The mark of an unfinished database: why and by which process it is created. It is stored in the database's comment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// `restore` or `drill`.
    pub purpose: String,
    /// The snapshot that is restored.
    pub snapshot: String,
    /// The machine that runs the restore.
    pub host: String,
    /// The process on that machine.
    pub process: u32,
    /// The time at which the mark was made.
    pub since: DateTime<Utc>,
    /// Set if the database already has the name of another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<Exchange>,
}

/// The state in which a database gets its final name.
#[derive(Clone, Copy)]
pub(crate) enum Finish<'a> {
    /// It is complete, and has this comment.
    Complete(Option<&'a str>),
    /// Something is created in it under that name. Until then it has this mark, and accepts sessions of superusers only.
    Incomplete(&'a Mark),
}

impl Finish<'_> {
    /// Returns the statements that set it for a database. Only a superuser can connect to a database without connections.
    fn statements(self, database: &str, is_superuser: bool) -> String {
        let comment = match self {
            Finish::Complete(comment) => comment.map(str::to_owned),
            Finish::Incomplete(mark) => Some(mark.text()),
        };
        let comment = comment.as_deref().map_or_else(|| "NULL".to_owned(), literal);
        let set = format!("COMMENT ON DATABASE {database} IS {comment}");
        match self {
            Finish::Incomplete(_) if is_superuser => format!("{set}; ALTER DATABASE {database} CONNECTION LIMIT 0"),
            _ => set,
        }
    }
}

impl Mark {
    /// Returns a mark of this process.
    #[must_use]
    pub(crate) fn new(purpose: &str, snapshot: &str, host: &str) -> Self {
        let (purpose, snapshot, host) = (purpose.to_owned(), snapshot.to_owned(), host.to_owned());
        Mark { purpose, snapshot, host, process: std::process::id(), since: Utc::now(), exchange: None }
    }

    /// Returns the same mark for a database that is exchanged.
    #[must_use]
    pub(crate) fn after(&self, exchange: Exchange) -> Self {
        Mark { exchange: Some(exchange), ..self.clone() }
    }

    /// Parses a database's comment. Returns `None` if it is not a mark.
    #[must_use]
    pub(crate) fn read(comment: &str) -> Option<Self> {
        serde_json::from_str(comment.strip_prefix(MARK)?).ok()
    }

    /// Returns the comment that stores the mark.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        format!("{MARK}{}", serde_json::to_string(self).expect("a mark has only string keys"))
    }

    /// Returns true if the process that made the mark may still be running. A process on another machine always may be.
    #[must_use]
    pub(crate) fn may_be_running(&self, host: &str) -> bool {
        self.host != host || is_running(self.process, self.since)
    }
}

/// Returns the error for a database that has a mark.
pub(super) fn incomplete(shown: &str) -> Error {
    Error::usage(format!("the database {shown} is incomplete: a restore or a drill in it is running, or ended early"))
        .hint("wait until it ends; or drop the database, and create it again")
}

/// A connection to the server, in another database than the one that is restored.
pub(crate) struct Server {
    session: Session,
    params: Params,
}

/// The state of an existing database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Existing {
    /// Its comment.
    pub comment: Option<String>,
    /// The number of sessions of others in it.
    pub sessions: u64,
}

impl Server {
    /// Connects to another database than the one that `params` names; to that one if the role may connect to no other.
    pub(crate) fn connect(params: &Params) -> Result<Self> {
        Self::connect_by(params, Session::connect)
    }

    /// Connects in the same way, for clean-up: a signal that asks to stop does not end the session at once.
    pub(crate) fn connect_for_cleanup(params: &Params) -> Result<Self> {
        Self::connect_by(params, Session::connect_for_cleanup)
    }

    fn connect_by(params: &Params, connect: impl Fn(&Params) -> Result<Session>) -> Result<Self> {
        LazyLock::force(&STARTED_AT);
        let mut first = None;
        let others = ["postgres", "template1"].into_iter().filter(|name| *name != params.database());
        for name in others.chain([params.database()]) {
            // A server that has not answered would not answer for its own database either.
            if name == params.database() && first.as_ref().is_some_and(|error| sqlstate(error).is_none()) {
                break;
            }
            match connect(&params.with_database(name)) {
                Ok(mut session) => {
                    settings::pin(&mut session)?;
                    return Ok(Server { session, params: params.clone() });
                }
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| Error::failed("there is no database to connect to")))
    }

    /// Returns the role that statements run as.
    pub(crate) fn user(&self) -> &str {
        &self.session.about().user
    }

    /// Returns true if that role is a superuser.
    pub(crate) fn is_superuser(&self) -> bool {
        self.session.about().is_superuser
    }

    /// Returns true if that role may create databases.
    pub(crate) fn may_create_databases(&mut self) -> Result<bool> {
        let sql = "SELECT rolcreatedb OR rolsuper AS may FROM pg_catalog.pg_roles WHERE rolname = current_user";
        self.session.row(sql)?.flag("may")
    }

    /// Fails if this session is in the database of that name, which could then not be renamed.
    pub(crate) fn require_other_database(&self, name: &str) -> Result<()> {
        if self.session.about().database != name {
            return Ok(());
        }
        let user = one_line(self.user());
        Err(Error::failed(format!(
            "the role {user} may connect to no other database, from which this one is exchanged"
        ))
        .hint("GRANT CONNECT ON DATABASE postgres allows it; nothing was changed"))
    }

    /// Fails if the server is a standby, on which nothing can be restored.
    pub(crate) fn require_primary(&self) -> Result<()> {
        if !self.session.about().in_recovery {
            return Ok(());
        }
        let url = one_line(&self.params.shown());
        Err(Error::usage(format!("{url} is on a standby, which accepts no changes"))
            .hint("name a database on a primary server with --to postgres://user@host/database"))
    }

    /// Returns the parameters of its own connection.
    pub(super) fn params(&self) -> Params {
        self.params.with_database(&self.session.about().database)
    }

    /// Returns the session.
    pub(super) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Reads the state of a database. Returns `None` if it does not exist.
    pub(crate) fn find_database(&mut self, name: &str) -> Result<Option<Existing>> {
        let rows = self.session.rows(&format!(
            "SELECT pg_catalog.shobj_description(d.oid, 'pg_database') AS comment,
                    (SELECT count(*) FROM pg_catalog.pg_stat_activity a
                      WHERE a.datid = d.oid AND a.pid <> pg_catalog.pg_backend_pid()
                        -- The server ends these itself.
                        AND {NOT_ENDED_BY_SERVER}) AS sessions
               FROM pg_catalog.pg_database d WHERE d.datname = {}",
            literal(name)
        ))?;
        rows.first()
            .map(|row| Ok(Existing { comment: row.owned("comment")?, sessions: row.number("sessions")? }))
            .transpose()
    }

    /// Returns the roles of a snapshot that do not exist on the server.
    pub(crate) fn missing_roles(&mut self, facts: &PostgresFacts) -> Result<Vec<String>> {
        let known = self.session.rows("SELECT rolname AS name FROM pg_catalog.pg_roles")?;
        let known: Vec<&str> = known.iter().map(|row| row.text("name")).collect::<Result<_>>()?;
        Ok(facts.roles.iter().filter(|role| !known.contains(&role.as_str())).cloned().collect())
    }

    /// Returns the obstacles to a restore of `items` to this server, as messages: an older server, missing roles or
    /// memberships, missing extensions. `with_database` is true if the owner of the database itself is restored too.
    pub(crate) fn obstacles(
        &mut self,
        facts: &PostgresFacts,
        items: &[Item],
        owners: Owners,
        with_database: bool,
    ) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let (here, there) = (self.session.version() / 10_000, facts.version_num / 10_000);
        if here < there {
            found.push(format!(
                "the server is PostgreSQL {here}, but the snapshot came from {there}: restore it to {there} or newer"
            ));
        }
        if owners == Owners::Keep {
            found.extend(roles::obstacles(&mut self.session, items, with_database)?);
            let missing = self.missing_roles(facts)?;
            found.extend(missing.iter().map(|role| format!("the role {} is missing", one_line(role))));
        }
        for extension in &facts.extensions {
            let rows = self.session.rows(&format!(
                "SELECT 1 FROM pg_catalog.pg_available_extensions WHERE name = {}",
                literal(&extension.name)
            ))?;
            if rows.is_empty() {
                let (name, version) = (one_line(&extension.name), one_line(&extension.version));
                let plain = " (--plain-tables restores ordinary tables instead)";
                let plain = if extension.name == timescale::EXTENSION { plain } else { "" };
                found.push(format!("the extension {name} (version {version}) is not installed on the server{plain}"));
            }
        }
        Ok(found)
    }

    /// Returns the extensions of a snapshot that the server allows in one database only.
    pub(super) fn tied(&mut self, facts: &PostgresFacts) -> Result<Vec<Tied>> {
        tied::find(&mut self.session, facts)
    }

    /// Creates an empty, marked database with the properties of the one that was saved.
    pub(crate) fn create(&mut self, name: &str, like: &DatabaseFacts, mark: &Mark) -> Result<()> {
        let mut sql = format!(
            "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}",
            ident(name),
            literal(&like.encoding),
            literal(&like.collate),
            literal(&like.ctype)
        );
        let version = self.session.version();
        if version >= 150_000 {
            sql.push_str(&format!(" LOCALE_PROVIDER {}", ident(&like.provider)));
            if let Some(locale) = &like.locale {
                let word = if like.provider == "builtin" { "BUILTIN_LOCALE" } else { "ICU_LOCALE" };
                sql.push_str(&format!(" {word} {}", literal(locale)));
            }
            if let Some(rules) = &like.icu_rules {
                sql.push_str(&format!(" ICU_RULES {}", literal(rules)));
            }
        }
        self.session.execute(&sql).map_err(|error| {
            error
                .context(format!("cannot create the database {}", one_line(name)))
                .hint("if the server does not have the locale: create an empty database yourself, and restore into it")
        })?;
        self.session
            .execute(&format!("COMMENT ON DATABASE {} IS {}", ident(name), literal(&mark.text())))
            .inspect_err(|_| drop(self.session.execute(&format!("DROP DATABASE {}", ident(name)))))
    }

    /// Drops a database that Lifeboat created. The sessions in it are ended.
    ///
    /// This works after Ctrl-C too, and uses another connection if this one is broken.
    pub(crate) fn drop(&mut self, name: &str) -> Result<()> {
        let cannot = |error: Error| error.context(format!("cannot drop the database {}", one_line(name)));
        let plain = format!("DROP DATABASE IF EXISTS {}", ident(name));
        let sql = format!("{plain} WITH (FORCE)");
        self.session.defer_interrupts();
        let mut dropped = match self.drop_subscriptions(name) {
            Ok(()) => self.session.execute(&sql),
            Err(error) if is_broken(&error) => Err(error),
            Err(error) => return Err(cannot(error)),
        };
        // The role may not end a session of the server, such as one of autovacuum, or of the login if this session acts as
        // another role. Without FORCE, the server ends its own, and waits for the others.
        if dropped.as_ref().is_err_and(|error| sqlstate(error).as_deref() == Some(INSUFFICIENT_PRIVILEGE)) {
            dropped = self.session.execute(&plain);
        }
        // If this connection is broken, the database may still be dropped over another one.
        if dropped.as_ref().is_err_and(is_broken) {
            dropped = Server::connect_by(&self.params, Session::connect_for_cleanup).and_then(|mut server| {
                server.drop_subscriptions(name)?;
                server.session.execute(&sql)
            });
        }
        dropped.map_err(cannot)
    }

    /// Drops the subscriptions of a restored schema: a database that has subscriptions cannot be dropped. They are
    /// disabled and have no slots, so no other server is contacted. Fails if somebody has enabled one or given it a slot.
    fn drop_subscriptions(&mut self, name: &str) -> Result<()> {
        // Every role may read these columns.
        let found = self.session.rows(&format!(
            "SELECT s.subname AS name, s.subenabled OR s.subslotname IS NOT NULL AS is_used
               FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid
              WHERE d.datname = {}",
            literal(name)
        ))?;
        if found.is_empty() {
            return Ok(());
        }
        for row in &found {
            if row.flag("is_used")? {
                return Err(Error::failed(format!(
                    "the subscription {} in the database {} is enabled, or has a replication slot",
                    one_line(row.text("name")?),
                    one_line(name)
                )));
            }
        }
        // A database that was not complete under its own name is closed.
        let open =
            format!("SELECT datallowconn AS is_open FROM pg_catalog.pg_database WHERE datname = {}", literal(name));
        if !self.session.row(&open)?.flag("is_open")? {
            self.session.execute(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", ident(name)))?;
        }
        let mut params = self.params.with_database(name);
        if self.session.version() >= 170_000 && self.session.about().is_superuser {
            // An event trigger that fires at login could refuse this session.
            params = params.without_event_triggers();
        }
        let mut session = Session::connect_for_cleanup(&params)?;
        settings::pin(&mut session)?;
        let triggers =
            session.rows("SELECT evtname AS name FROM pg_catalog.pg_event_trigger WHERE evtenabled <> 'D'")?;
        let names =
            |rows: &[Row]| rows.iter().map(|row| row.text("name").map(str::to_owned)).collect::<Result<Vec<_>>>();
        let (triggers, found) = (names(&triggers)?, names(&found)?);
        let statements =
            in_use::drop_subscriptions(triggers.iter().map(String::as_str), found.iter().map(String::as_str));
        statements.iter().try_for_each(|statement| session.execute(statement))
    }

    /// Reads what uses a database, and what outlives its replacement, except its event triggers.
    pub(crate) fn in_use(&mut self, name: &str) -> Result<InUse> {
        InUse::read(&mut self.session, name)
    }

    /// Drops the unfinished databases of Lifeboat processes on this machine that have died. Returns their names.
    pub(crate) fn drop_left_over(&mut self, host: &str) -> Result<Vec<String>> {
        let rows = self.session.rows(&format!(
            "SELECT d.datname AS name, pg_catalog.shobj_description(d.oid, 'pg_database') AS comment
               FROM pg_catalog.pg_database d
              WHERE pg_catalog.starts_with(d.datname, {})
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity a
                                 WHERE a.datid = d.oid AND {NOT_ENDED_BY_SERVER})",
            literal(SCRATCH)
        ))?;
        let mut dropped = Vec::new();
        for row in &rows {
            let name = row.text("name")?.to_owned();
            let is_left = match row.get("comment")? {
                Some(comment) => {
                    Mark::read(comment).is_some_and(|mark| mark.purpose != FILL && !mark.may_be_running(host))
                }
                // The process that created it died before it set the comment. The name shows this, and the database is
                // empty.
                None => is_dead_scratch(&name, host) && self.is_empty(&name),
            };
            if !is_left {
                continue;
            }
            // Without FORCE: if a session has connected in the meantime, the database is kept.
            if self.drop_subscriptions(&name).is_ok()
                && self.session.execute(&format!("DROP DATABASE IF EXISTS {}", ident(&name))).is_ok()
            {
                dropped.push(name);
            }
        }
        Ok(dropped)
    }

    fn is_empty(&self, name: &str) -> bool {
        let found = Session::connect(&self.params.with_database(name)).and_then(|mut session| {
            settings::pin(&mut session)?;
            contents(&mut session, None)
        });
        found.is_ok_and(|found| found.is_empty())
    }

    /// Replaces the mark with the comment of the finished database. This works after Ctrl-C too.
    pub(crate) fn unmark(&mut self, name: &str, comment: Option<&str>) -> Result<()> {
        let comment = comment.map_or_else(|| "NULL".to_owned(), literal);
        let sql = format!("COMMENT ON DATABASE {} IS {comment}", ident(name));
        self.session.defer_interrupts();
        let set = self.session.execute(&sql);
        if set.as_ref().is_err_and(is_broken) {
            return Server::connect_by(&self.params, Session::connect_for_cleanup)
                .and_then(|mut server| server.session.execute(&sql));
        }
        set
    }

    /// Marks an existing database.
    pub(crate) fn mark(&mut self, name: &str, mark: &Mark) -> Result<()> {
        self.session
            .execute(&format!("COMMENT ON DATABASE {} IS {}", ident(name), literal(&mark.text())))
            .map_err(|error| error.context("cannot mark the database as unfinished"))
    }

    /// Renames a database to its final name, which must not be in use.
    pub(crate) fn finish(&mut self, scratch: &str, name: &str, finish: Finish) -> Result<()> {
        let (from, to) = (ident(scratch), ident(name));
        let set = finish.statements(&from, self.is_superuser());
        self.end_sessions(scratch, None)?;
        self.in_transaction(&format!("{set}; ALTER DATABASE {from} RENAME TO {to}"))
            .or_else(|error| self.accept_if_renamed(scratch, error))
            .map_err(|error| error.context(format!("cannot rename the restored database to {}", one_line(name))))
    }

    /// Ends the sessions of clients in a database, except the one of process `kept`. Returns the number of those that the role
    /// may not end. In a scratch database, which nobody else uses, a pooler keeps those open that this program has closed.
    fn end_sessions(&mut self, name: &str, kept: Option<i32>) -> Result<usize> {
        let rows = self.session.rows(&format!(
            "SELECT pid FROM pg_catalog.pg_stat_activity
              WHERE datname = {} AND coalesce(backend_type, 'client backend') = 'client backend'
                AND pid NOT IN (pg_catalog.pg_backend_pid(), {})",
            literal(name),
            kept.unwrap_or(0)
        ))?;
        let mut left = 0;
        for row in &rows {
            let pid: i32 = row.number("pid")?;
            if let Err(error) = self.session.rows(&format!("SELECT pg_catalog.pg_terminate_backend({pid})")) {
                tracing::debug!("{}", error.full_message());
                left += 1;
            }
        }
        Ok(left)
    }

    /// Handles a lost reply to a rename: the rename was done if the scratch name no longer exists. Otherwise the error
    /// is returned.
    fn accept_if_renamed(&mut self, scratch: &str, error: Error) -> Result<()> {
        if !is_broken(&error) {
            return Err(error);
        }
        match Server::connect_by(&self.params, Session::connect_for_cleanup).and_then(|mut other| {
            other.session.defer_interrupts();
            let still_exists = other.find_database(scratch)?.is_some();
            self.session = other.session;
            Ok(still_exists)
        }) {
            Ok(false) => Ok(()),
            Ok(true) => Err(error),
            Err(why) => {
                tracing::warn!("cannot determine whether {scratch} was renamed: {}", why.full_message());
                Err(error)
            }
        }
    }

    /// Returns the limit of sessions of a database, as `ALTER DATABASE ... CONNECTION LIMIT` takes it.
    pub(super) fn connection_limit(&mut self, name: &str) -> Result<i32> {
        let sql = format!("SELECT datconnlimit AS most FROM pg_catalog.pg_database WHERE datname = {}", literal(name));
        self.session.row(&sql)?.number("most")
    }

    /// Closes a database to new sessions, and ends those of others: only the session of process `pid` stays.
    pub(super) fn close_to_others(&mut self, name: &str, pid: i32) -> Result<()> {
        self.session.execute(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", ident(name)))?;
        let left = self.end_sessions(name, Some(pid))?;
        if left > 0 {
            tracing::warn!("{left} sessions in {} began before it was closed, and cannot be ended", one_line(name));
        }
        Ok(())
    }

    /// Puts a database in the place of the one with this name, which is renamed and keeps its content.
    ///
    /// Both names change in one transaction. The rename locks the old database against new sessions, and waits some
    /// seconds for its sessions to end. If `disconnect` is true, a second connection terminates them.
    pub(crate) fn exchange(&mut self, name: &str, names: &Exchange, finish: Finish, disconnect: bool) -> Result<()> {
        let Exchange { aside, scratch } = names;
        let (from, to, old) = (ident(scratch), ident(name), ident(aside));
        let set = finish.statements(&from, self.is_superuser());
        let sql = format!("{set}; ALTER DATABASE {to} RENAME TO {old}; ALTER DATABASE {from} RENAME TO {to}");
        self.end_sessions(scratch, None)?;
        let clock = Instant::now();
        loop {
            let result =
                if disconnect { self.exchange_disconnecting(&sql, [name, scratch]) } else { self.in_transaction(&sql) };
            let Err(error) = result.or_else(|error| self.accept_if_renamed(scratch, error)) else { return Ok(()) };
            // object_in_use: a session connected again in the moment before the lock.
            if !disconnect || sqlstate(&error).as_deref() != Some("55006") || clock.elapsed() > SESSION_END_TIMEOUT {
                let error = error.context(format!("cannot exchange the database {}; it is unchanged", one_line(name)));
                return Err(if disconnect {
                    error
                } else {
                    error.hint("stop the programs that use it, or end their sessions with --disconnect")
                });
            }
        }
    }

    fn exchange_disconnecting(&mut self, sql: &str, names: [&str; 2]) -> Result<()> {
        // An exchange is undone after Ctrl-C too.
        let mut second = Server::connect_for_cleanup(&self.params)?;
        let done = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            let ender = scope.spawn(|| -> Result<()> {
                let end = format!(
                    "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
                      WHERE datname IN ({}, {}) AND pid <> pg_catalog.pg_backend_pid()",
                    literal(names[0]),
                    literal(names[1])
                );
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    second.session.rows(&end)?;
                    thread::sleep(Duration::from_millis(50));
                }
                Ok(())
            });
            let result = self.in_transaction(sql);
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            let ended = ender.join().unwrap_or_else(|_| Err(Error::failed("a thread has died")));
            match (result, ended) {
                (Err(error), Err(why)) => Err(why.context(error.message)),
                (result, _) => result,
            }
        })
    }

    fn in_transaction(&mut self, sql: &str) -> Result<()> {
        self.session.execute(&format!("BEGIN; {sql}; COMMIT")).inspect_err(|_| {
            // The ROLLBACK is answered only after the statements before it have ended, committed or not.
            self.session.defer_interrupts();
            let _ = self.session.execute("ROLLBACK");
        })
    }
}

/// The purpose of a restore into a database that Lifeboat did not create: such a database is never dropped.
pub(crate) const FILL: &str = "fill";

/// Returns a unique name for a scratch database, made of the time, the machine and the process.
///
/// The server cannot create and mark a database in one step. If this process dies in between, the name identifies it.
pub(crate) fn scratch_name(host: &str) -> Result<String> {
    let mut random = [0; 4];
    getrandom::fill(&mut random)
        .map_err(|error| Error::failed("cannot get random numbers from the system").because(error))?;
    let since = Utc::now().format(SCRATCH_TIME);
    Ok(format!("{SCRATCH}{since}_{}_{}_{}", host_hash(host), std::process::id(), hex::encode(random)))
}

const SCRATCH_TIME: &str = "%Y%m%d%H%M%S";

/// Returns eight hex digits for the name of a machine.
fn host_hash(host: &str) -> String {
    Sha256::of(host.as_bytes()).to_string()[..8].to_owned()
}

/// Returns true if a database has a scratch name from a process of this machine, and that process is no longer running.
fn is_dead_scratch(name: &str, host: &str) -> bool {
    let words: Vec<&str> = name.strip_prefix(SCRATCH).unwrap_or_default().split('_').collect();
    let [since, machine, process, random] = words[..] else { return false };
    let since = NaiveDateTime::parse_from_str(since, SCRATCH_TIME).map(|since| since.and_utc());
    match (since, process.parse()) {
        (Ok(since), Ok(process)) => machine == host_hash(host) && random.len() == 8 && !is_running(process, since),
        _ => false,
    }
}

/// Returns true if the process with this number, at that time, seems to be running on this machine.
fn is_running(process: u32, since: DateTime<Utc>) -> bool {
    if process == std::process::id() {
        // The name of a scratch database has whole seconds.
        return since.timestamp() >= STARTED_AT.timestamp();
    }
    let process = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    process.is_some_and(|process| !matches!(rustix::process::test_kill_process(process), Err(rustix::io::Errno::SRCH)))
}

/// Returns true if the connection failed, so that another connection may succeed.
fn is_broken(error: &Error) -> bool {
    matches!(error.kind, Kind::Unreachable | Kind::Interrupted)
}

/// Replaces the comment that this transaction has set on its own database with the mark. Returns the replaced comment.
pub(crate) fn exchange_comment(session: &mut Session, mark: &Mark) -> Result<Option<String>> {
    let row = session.row(
        "SELECT d.datname AS name, pg_catalog.shobj_description(d.oid, 'pg_database') AS comment
           FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()",
    )?;
    let comment = row.owned("comment")?.filter(|text| Mark::read(text).is_none());
    if comment.is_some() {
        session.execute(&format!("COMMENT ON DATABASE {} IS {}", ident(row.text("name")?), literal(&mark.text())))?;
    }
    Ok(comment)
}

/// Returns an error that names the obstacles to a restore, with a hint about missing roles.
#[must_use]
pub(crate) fn cannot_restore(obstacles: &[String], roles: &str) -> Error {
    Error::new(Kind::Failed, format!("the snapshot cannot be restored here: {}", obstacles.join("; "))).hint(format!(
        "{roles}, or restore without owners and grants with --no-owner; install the extensions; nothing was changed"
    ))
}
