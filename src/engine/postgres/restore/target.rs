//! Databases on the server that a restore goes to: made under a scratch name, marked, renamed, exchanged, dropped.

use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::engine::postgres::restore::contents::contents;
use crate::engine::postgres::restore::create::Owners;
use crate::engine::postgres::schema::quote::{ident, literal};
use crate::engine::postgres::timescale;
use crate::engine::postgres::wire::params::Params;
use crate::engine::postgres::wire::session::Session;
use crate::engine::postgres::wire::settings;
use crate::platform::digest::Sha256;
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::snapshots::manifest::{DatabaseFacts, PostgresFacts};

/// What the comment of an unfinished database begins with.
const MARK: &str = "lifeboat: not finished ";

/// Of `a`, pg_stat_activity: what the server, or TimescaleDB, does not end itself where a database is renamed or dropped.
const OF_OTHERS: &str = "coalesce(a.backend_type, '') !~ '^(autovacuum worker$|TimescaleDB )'";

/// How long others' sessions are waited for when they were asked to end.
const LEAVE_WITHIN: Duration = Duration::from_secs(20);

/// Since when this process looks at servers: what carries its number and is older is of another that had it before, as
/// in containers, where it is often the same.
static BEGAN: LazyLock<DateTime<Utc>> = LazyLock::new(Utc::now);

/// Why a database that lifeboat makes is not finished, and who is at it; kept in the database's comment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// `restore` or `drill`.
    pub purpose: String,
    /// The snapshot that is restored.
    pub snapshot: String,
    /// The machine that does it.
    pub host: String,
    /// The process on it.
    pub process: u32,
    /// Since when.
    pub since: DateTime<Utc>,
}

impl Mark {
    /// A mark of this process.
    #[must_use]
    pub fn new(purpose: &str, snapshot: &str, host: &str) -> Self {
        let (purpose, snapshot, host) = (purpose.to_owned(), snapshot.to_owned(), host.to_owned());
        Mark { purpose, snapshot, host, process: std::process::id(), since: Utc::now() }
    }

    /// Reads a database's comment; None where it is no mark.
    #[must_use]
    pub fn read(comment: &str) -> Option<Self> {
        serde_json::from_str(comment.strip_prefix(MARK)?).ok()
    }

    /// The comment that says all this.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{MARK}{}", serde_json::to_string(self).expect("a mark has only string keys"))
    }

    /// Whether the process that made it is still at work, as far as this machine can tell.
    #[must_use]
    pub fn may_be_at_work(&self, host: &str) -> bool {
        self.host != host || lives(self.process, self.since)
    }
}

/// A connection to another database of the server than the one that is worked on.
pub struct Server {
    session: Session,
    params: Params,
}

/// What is known of a database that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Existing {
    /// Its comment.
    pub comment: Option<String>,
    /// Sessions of others in it.
    pub sessions: u64,
}

impl Server {
    /// Connects beside the database that `params` name.
    pub fn connect(params: &Params) -> Result<Self> {
        Self::connect_by(params, Session::connect)
    }

    /// The same for clearing up: a signal that asks to stop does not end it at once.
    pub fn connect_to_settle(params: &Params) -> Result<Self> {
        Self::connect_by(params, Session::connect_to_settle)
    }

    fn connect_by(params: &Params, connect: impl Fn(&Params) -> Result<Session>) -> Result<Self> {
        LazyLock::force(&BEGAN);
        let mut first = None;
        for name in ["postgres", "template1"] {
            if name == params.database() {
                continue;
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

    /// The connection.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Looks for a database.
    pub fn look(&mut self, name: &str) -> Result<Option<Existing>> {
        let rows = self.session.rows(&format!(
            "SELECT pg_catalog.shobj_description(d.oid, 'pg_database') AS comment,
                    (SELECT count(*) FROM pg_catalog.pg_stat_activity a
                      WHERE a.datid = d.oid AND a.pid <> pg_catalog.pg_backend_pid()
                        -- The server ends these itself.
                        AND {OF_OTHERS}) AS sessions
               FROM pg_catalog.pg_database d WHERE d.datname = {}",
            literal(name)
        ))?;
        rows.first()
            .map(|row| Ok(Existing { comment: row.owned("comment")?, sessions: row.number("sessions")? }))
            .transpose()
    }

    /// The roles of a snapshot that the server does not have.
    pub fn missing_roles(&mut self, facts: &PostgresFacts) -> Result<Vec<String>> {
        let known = self.session.rows("SELECT rolname AS name FROM pg_catalog.pg_roles")?;
        let known: Vec<&str> = known.iter().map(|row| row.text("name")).collect::<Result<_>>()?;
        Ok(facts.roles.iter().filter(|role| !known.contains(&role.as_str())).cloned().collect())
    }

    /// What stands against restoring here, each in words: an older server, roles and extensions that are missing.
    pub fn obstacles(&mut self, facts: &PostgresFacts, owners: Owners) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let (here, there) = (self.session.version() / 10_000, facts.version_num / 10_000);
        if here < there {
            found.push(format!(
                "the server is PostgreSQL {here}, and the snapshot came from {there}: restore it to {there} or newer"
            ));
        }
        if owners == Owners::Keep {
            let roles: Vec<String> = facts.roles.iter().map(|role| literal(role)).collect();
            let list = if roles.is_empty() { "NULL".to_owned() } else { roles.join(", ") };
            let known = self.session.rows(&format!(
                "SELECT rolname AS name, pg_catalog.pg_has_role(oid, 'MEMBER') AS member
                   FROM pg_catalog.pg_roles WHERE rolname IN ({list})"
            ))?;
            let mut names = Vec::new();
            for row in &known {
                let name = row.text("name")?.to_owned();
                if !row.flag("member")? {
                    found.push(format!(
                        "the role {} is not one that may act as {}",
                        self.session.about().user,
                        one_line(&name)
                    ));
                }
                names.push(name);
            }
            let missing = facts.roles.iter().filter(|role| !names.contains(role));
            found.extend(missing.map(|role| format!("the role {} is missing", one_line(role))));
        }
        for extension in &facts.extensions {
            let rows = self.session.rows(&format!(
                "SELECT 1 FROM pg_catalog.pg_available_extensions WHERE name = {}",
                literal(&extension.name)
            ))?;
            if rows.is_empty() {
                let (name, version) = (one_line(&extension.name), one_line(&extension.version));
                let plain = " (--plain-tables makes ordinary tables of what needs it)";
                let plain = if extension.name == timescale::EXTENSION { plain } else { "" };
                found.push(format!("the extension {name} (there {version}) is not installed on the server{plain}"));
            }
        }
        Ok(found)
    }

    /// Makes an empty, marked database like the one that was saved.
    pub fn create(&mut self, name: &str, like: &DatabaseFacts, mark: &Mark) -> Result<()> {
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
            error.context(format!("cannot create the database {}", one_line(name))).hint(
                "where it is for a locale that the server does not have: create an empty database yourself, \
                 and restore into that",
            )
        })?;
        self.session
            .execute(&format!("COMMENT ON DATABASE {} IS {}", ident(name), literal(&mark.text())))
            .inspect_err(|_| drop(self.session.execute(&format!("DROP DATABASE {}", ident(name)))))
    }

    /// Drops a database of lifeboat's own making; sessions in it are ended.
    ///
    /// Also after Ctrl-C, and over another connection where this one is broken.
    pub fn drop(&mut self, name: &str) -> Result<()> {
        let cannot = |error: Error| error.context(format!("cannot drop the database {}", one_line(name)));
        self.drop_subscriptions(name).map_err(cannot)?;
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", ident(name));
        self.session.settle();
        let mut dropped = self.session.execute(&sql);
        if dropped.as_ref().is_err_and(is_broken) {
            dropped = Server::connect_by(&self.params, Session::connect_to_settle)
                .and_then(|mut server| server.session.execute(&sql));
        }
        dropped.map_err(cannot)
    }

    /// Drops the subscriptions that a restored schema brought along: a database that has some is not dropped. They
    /// are off and have no slots, so nobody else is told.
    fn drop_subscriptions(&mut self, name: &str) -> Result<()> {
        // Anybody may read these columns.
        let found = self.session.rows(&format!(
            "SELECT s.subname AS name, s.subenabled AS enabled, s.subslotname AS slot
               FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid
              WHERE d.datname = {}",
            literal(name)
        ))?;
        if found.is_empty() {
            return Ok(());
        }
        let mut session = Session::connect(&self.params.with_database(name))?;
        settings::pin(&mut session)?;
        for row in &found {
            let subscription = row.text("name")?;
            if row.flag("enabled")? || row.get("slot")?.is_some() {
                return Err(Error::failed(format!(
                    "the subscription {} in the database {} is at work",
                    one_line(subscription),
                    one_line(name)
                )));
            }
            session.execute(&format!("DROP SUBSCRIPTION {}", ident(subscription)))?;
        }
        Ok(())
    }

    /// Drops what runs of this program on this machine that have died have left unfinished.
    pub fn drop_left_over(&mut self, host: &str) -> Result<Vec<String>> {
        let rows = self.session.rows(&format!(
            "SELECT d.datname AS name, pg_catalog.shobj_description(d.oid, 'pg_database') AS comment
               FROM pg_catalog.pg_database d
              WHERE pg_catalog.starts_with(d.datname, {})
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity a
                                 WHERE a.datid = d.oid AND {OF_OTHERS})",
            literal(SCRATCH)
        ))?;
        let mut dropped = Vec::new();
        for row in &rows {
            let name = row.text("name")?.to_owned();
            let is_left = match row.get("comment")? {
                Some(comment) => {
                    Mark::read(comment).is_some_and(|mark| mark.purpose != FILL && !mark.may_be_at_work(host))
                }
                // Its maker died before it could say so in the comment: the name says as much, and there is nothing in it.
                None => is_dead_scratch(&name, host) && self.is_empty(&name),
            };
            if !is_left {
                continue;
            }
            // Without force: whoever has connected meanwhile keeps it.
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
            contents(&mut session)
        });
        found.is_ok_and(|found| found.is_empty())
    }

    /// Sets the comment that a finished database has, in place of its mark; also after Ctrl-C.
    pub fn unmark(&mut self, name: &str, comment: Option<&str>) -> Result<()> {
        let comment = comment.map_or_else(|| "NULL".to_owned(), literal);
        let sql = format!("COMMENT ON DATABASE {} IS {comment}", ident(name));
        self.session.settle();
        let set = self.session.execute(&sql);
        if set.as_ref().is_err_and(is_broken) {
            return Server::connect_by(&self.params, Session::connect_to_settle)
                .and_then(|mut server| server.session.execute(&sql));
        }
        set
    }

    /// Marks a database that is there.
    pub fn mark(&mut self, name: &str, mark: &Mark) -> Result<()> {
        self.session
            .execute(&format!("COMMENT ON DATABASE {} IS {}", ident(name), literal(&mark.text())))
            .map_err(|error| error.context("cannot mark the database as unfinished"))
    }

    /// Gives a finished database its name, which must be free, and its comment.
    pub fn finish(&mut self, scratch: &str, name: &str, comment: Option<&str>) -> Result<()> {
        let comment = comment.map_or_else(|| "NULL".to_owned(), literal);
        let (from, to) = (ident(scratch), ident(name));
        self.in_transaction(&format!("COMMENT ON DATABASE {from} IS {comment}; ALTER DATABASE {from} RENAME TO {to}"))
            .or_else(|error| self.has_gone(scratch, error))
            .map_err(|error| error.context(format!("cannot name the restored database {}", one_line(name))))
    }

    /// Settles a lost reply to a renaming: it was done where the scratch name is no more. Else the error comes back.
    fn has_gone(&mut self, scratch: &str, error: Error) -> Result<()> {
        if !is_broken(&error) {
            return Err(error);
        }
        match Server::connect_by(&self.params, Session::connect_to_settle).and_then(|mut other| {
            other.session.settle();
            let is_there = other.look(scratch)?.is_some();
            self.session = other.session;
            Ok(is_there)
        }) {
            Ok(false) => Ok(()),
            Ok(true) => Err(error),
            Err(why) => {
                tracing::warn!("whether it was renamed in the end could not be found out: {}", why.whole());
                Err(error)
            }
        }
    }

    /// Puts a finished database in the place of another, which keeps its content under the name `aside`.
    ///
    /// Both names change in one transaction. The renaming locks the old database against new sessions, and waits some
    /// seconds for those in it to end; a second connection asks them to, where `disconnect` allows it.
    pub fn exchange(
        &mut self,
        scratch: &str,
        name: &str,
        aside: &str,
        comment: Option<&str>,
        disconnect: bool,
    ) -> Result<()> {
        let comment = comment.map_or_else(|| "NULL".to_owned(), literal);
        let (from, to, old) = (ident(scratch), ident(name), ident(aside));
        let sql = format!(
            "COMMENT ON DATABASE {from} IS {comment}; ALTER DATABASE {to} RENAME TO {old}; ALTER DATABASE {from} RENAME TO {to}"
        );
        let clock = Instant::now();
        loop {
            let result = if disconnect { self.exchange_disconnecting(&sql, name) } else { self.in_transaction(&sql) };
            let Err(error) = result.or_else(|error| self.has_gone(scratch, error)) else { return Ok(()) };
            // object_in_use: somebody came back in the moment before the lock.
            if !disconnect
                || crate::engine::postgres::wire::session::sqlstate(&error).as_deref() != Some("55006")
                || clock.elapsed() > LEAVE_WITHIN
            {
                let told = error.context(format!("cannot exchange the database {}: it is as it was", one_line(name)));
                return Err(if disconnect {
                    told
                } else {
                    told.hint("stop what uses it, or let this end their sessions with --disconnect")
                });
            }
        }
    }

    fn exchange_disconnecting(&mut self, sql: &str, name: &str) -> Result<()> {
        let mut second = Server::connect(&self.params)?;
        let done = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            let ender = scope.spawn(|| -> Result<()> {
                let end = format!(
                    "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
                      WHERE datname = {} AND pid <> pg_catalog.pg_backend_pid()",
                    literal(name)
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
            // It has an answer only when all before it has ended, one way or the other.
            self.session.settle();
            let _ = self.session.execute("ROLLBACK");
        })
    }
}

/// The purpose of a restore into a database that somebody else has made: it is never dropped.
pub const FILL: &str = "fill";

/// What the names of scratch databases begin with; their mark says what they are.
pub const SCRATCH: &str = "lifeboat_";

/// A name for a scratch database that nobody else takes: when, on which machine, by which process.
///
/// The server has no way to make a database and mark it at once; should this process die between, the name tells.
pub fn scratch_name(host: &str) -> Result<String> {
    let mut random = [0; 4];
    getrandom::fill(&mut random).map_err(|error| Error::failed("the system gives no random bytes").because(error))?;
    let since = Utc::now().format(SCRATCH_TIME);
    Ok(format!("{SCRATCH}{since}_{}_{}_{}", host_word(host), std::process::id(), hex::encode(random)))
}

const SCRATCH_TIME: &str = "%Y%m%d%H%M%S";

/// Eight digits for a machine's name.
fn host_word(host: &str) -> String {
    Sha256::of(host.as_bytes()).to_string()[..8].to_owned()
}

/// Whether a database's name is one that a process of this machine has given, and that process is no more.
fn is_dead_scratch(name: &str, host: &str) -> bool {
    let words: Vec<&str> = name.strip_prefix(SCRATCH).unwrap_or_default().split('_').collect();
    let [since, machine, process, random] = words[..] else { return false };
    let since = NaiveDateTime::parse_from_str(since, SCRATCH_TIME).map(|since| since.and_utc());
    match (since, process.parse()) {
        (Ok(since), Ok(process)) => machine == host_word(host) && random.len() == 8 && !lives(process, since),
        _ => false,
    }
}

/// Whether the process that had this number at that time runs on this machine, as far as can be told.
fn lives(process: u32, since: DateTime<Utc>) -> bool {
    if process == std::process::id() {
        // The name of a scratch database has whole seconds.
        return since.timestamp() >= BEGAN.timestamp();
    }
    let process = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    process.is_some_and(|process| !matches!(rustix::process::test_kill_process(process), Err(rustix::io::Errno::SRCH)))
}

/// Whether a failure is one of the connection, which another connection may not have.
fn is_broken(error: &Error) -> bool {
    matches!(error.kind, Kind::Unreachable | Kind::Interrupted)
}

/// Puts the mark back in the place of the comment that this transaction has given its own database; that comment.
pub fn exchange_comment(session: &mut Session, mark: &Mark) -> Result<Option<String>> {
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

/// An error that names what stands against a restore.
#[must_use]
pub fn cannot_restore(obstacles: &[String]) -> Error {
    Error::new(Kind::Failed, format!("the snapshot cannot be restored here: {}", obstacles.join("; ")))
        .hint("create the roles, or restore without owners and grants with --no-owner; install the extensions; nothing was changed")
}
