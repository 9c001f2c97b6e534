//! The prepared transactions, logical replication slots, subscriptions and event triggers by which an existing database is in
//! use: they prevent its replacement, or stay with the old database. They are named before anything is built.

use crate::engine::postgres::restore::undo::sql_command_in;
use crate::engine::postgres::schema::quote::{ident, literal};
use crate::engine::postgres::schema::{Item, Kind};
use crate::engine::postgres::wire::params::Params;
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::{Error, Result, one_line};

/// An event trigger that is enabled.
#[derive(Clone, Debug, PartialEq, Eq)]
struct EnabledTrigger {
    name: String,
    /// The words of `ALTER EVENT TRIGGER` that enable it as it is enabled.
    enable: &'static str,
}

/// The parts of a database that prevent its replacement, or stay with the old database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InUse {
    /// The identifiers of the prepared transactions.
    prepared: Vec<String>,
    /// The logical replication slots.
    slots: Vec<String>,
    /// The subscriptions that are enabled.
    subscriptions: Vec<String>,
    /// The event triggers that are enabled.
    event_triggers: Vec<EnabledTrigger>,
}

impl InUse {
    /// Reads them, in a session of any database; event triggers are seen only in their own database.
    pub(super) fn read(session: &mut Session, database: &str) -> Result<Self> {
        let name = literal(database);
        let rows = session.rows(&format!(
            "SELECT 'prepared' AS kind, gid AS name FROM pg_catalog.pg_prepared_xacts WHERE database = {name}
              UNION ALL SELECT 'slot', slot_name FROM pg_catalog.pg_replication_slots WHERE database = {name}
              UNION ALL SELECT 'subscription', s.subname FROM pg_catalog.pg_subscription s
                          JOIN pg_catalog.pg_database d ON d.oid = s.subdbid WHERE d.datname = {name} AND s.subenabled
              ORDER BY 1, 2"
        ))?;
        let mut found = InUse::default();
        for row in &rows {
            let list = match row.text("kind")? {
                "prepared" => &mut found.prepared,
                "slot" => &mut found.slots,
                _ => &mut found.subscriptions,
            };
            list.push(row.text("name")?.to_owned());
        }
        Ok(found)
    }

    /// Adds the event triggers of the session's database.
    pub(super) fn add_event_triggers(&mut self, session: &mut Session) -> Result<()> {
        let sql = "SELECT evtname AS name, evtenabled::text AS state FROM pg_catalog.pg_event_trigger
                    WHERE evtenabled <> 'D' ORDER BY 1";
        for row in &session.rows(sql)? {
            let enable = match row.text("state")? {
                "A" => "ENABLE ALWAYS",
                "R" => "ENABLE REPLICA",
                _ => "ENABLE",
            };
            self.event_triggers.push(EnabledTrigger { name: row.text("name")?.to_owned(), enable });
        }
        Ok(())
    }

    /// Fails if the database is certain to be in use when it is to be exchanged.
    pub(super) fn require_exchangeable(&self, shown: &str, disconnect: bool) -> Result<()> {
        let list = |names: &[String]| one_line(&names.join(", "));
        if !self.prepared.is_empty() {
            return Err(Error::failed(format!(
                "{shown} has prepared transactions ({}): a database that has any cannot be exchanged",
                list(&self.prepared)
            ))
            .hint("end them in that database with COMMIT PREPARED or ROLLBACK PREPARED; nothing was changed"));
        }
        if !self.subscriptions.is_empty() && !disconnect {
            return Err(Error::failed(format!(
                "{shown} has enabled subscriptions ({}): a database in use cannot be exchanged",
                list(&self.subscriptions)
            ))
            .hint(
                "disable each with ALTER SUBSCRIPTION ... DISABLE, or end their sessions with --disconnect; nothing was \
                 changed",
            ));
        }
        Ok(())
    }

    /// Returns messages about the parts that stay with a database when another takes its name. `items` create that other
    /// database.
    pub(super) fn warnings_about_swap(&self, items: &[Item]) -> Vec<String> {
        let mut messages = Vec::new();
        for slot in self.slots.iter().map(|slot| one_line(slot)) {
            messages.push(format!(
                "the replication slot {slot} stays with the old database: its consumers get no changes of the new one, and \
                 the server keeps its WAL files until the slot is dropped"
            ));
        }
        for name in self.subscriptions.iter().map(|name| one_line(name)) {
            messages.push(format!(
                "the subscription {name} stays with the old database, and goes on writing to it; in the new database, \
                 subscriptions are disabled"
            ));
        }
        let is_restored =
            |name: &&String| !items.iter().any(|item| item.kind == Kind::EventTrigger && item.name == **name);
        for name in self.event_triggers.iter().map(|trigger| &trigger.name).filter(is_restored) {
            messages.push(format!(
                "the event trigger {} stays with the old database: the snapshot does not contain it",
                one_line(name)
            ));
        }
        messages
    }

    /// Returns messages about the parts that act on the rows of a database, or keep them locked, while they are replaced.
    pub(super) fn warnings_about_replacement(&self) -> Vec<String> {
        let mut messages = Vec::new();
        for gid in self.prepared.iter().map(|gid| one_line(gid)) {
            messages.push(format!(
                "the prepared transaction '{gid}' is open in the database: rows of the tables that it has changed cannot \
                 be replaced before COMMIT PREPARED or ROLLBACK PREPARED"
            ));
        }
        for slot in self.slots.iter().map(|slot| one_line(slot)) {
            messages.push(format!("the consumers of the replication slot {slot} get the replaced rows as changes"));
        }
        for name in self.subscriptions.iter().map(|name| one_line(name)) {
            messages.push(format!(
                "the subscription {name} is enabled: it goes on from its present position, so that changes which it has \
                 made since the snapshot are not made again"
            ));
        }
        for name in self.event_triggers.iter().map(|trigger| one_line(&trigger.name)) {
            messages.push(format!("the event trigger {name} fires for the statements of the restore"));
        }
        messages
    }

    /// Encloses the command that gives two databases their earlier names in commands that disable the subscriptions of the
    /// old one, which is now named `aside`, and enable them again: a database in use cannot be renamed. Event triggers,
    /// which could prevent that, are disabled in the same transaction and for that time only.
    pub(super) fn enclose_undo(&self, undo: String, params: &Params, aside: &str) -> String {
        if self.subscriptions.is_empty() {
            return undo;
        }
        let statements = |word: &str| -> Vec<String> {
            let triggers = |enable: bool| {
                self.event_triggers.iter().map(move |trigger| {
                    let state = if enable { trigger.enable } else { "DISABLE" };
                    format!("ALTER EVENT TRIGGER {} {state}", ident(&trigger.name))
                })
            };
            let each = self.subscriptions.iter().map(|name| format!("ALTER SUBSCRIPTION {} {word}", ident(name)));
            triggers(false).chain(each).chain(triggers(true)).collect()
        };
        let before = sql_command_in(params, aside, &statements("DISABLE"));
        let after = sql_command_in(params, params.database(), &statements("ENABLE"));
        format!("{before} && {undo} && {after}")
    }
}

/// Returns the statements that drop the subscriptions among `names`, in a database that is about to be dropped: a database
/// with subscriptions cannot be. No publisher is contacted if they have no slots. Event triggers are disabled first, because
/// they could prevent it.
pub(super) fn drop_subscriptions<'a>(
    event_triggers: impl Iterator<Item = &'a str>,
    names: impl Iterator<Item = &'a str>,
) -> Vec<String> {
    let mut statements: Vec<String> =
        event_triggers.map(|name| format!("ALTER EVENT TRIGGER {} DISABLE", ident(name))).collect();
    statements.extend(names.map(|name| format!("DROP SUBSCRIPTION {}", ident(name))));
    statements
}

/// Returns the command that drops a database which was made from `items`.
pub(super) fn drop_command(params: &Params, items: &[Item]) -> String {
    let named = |kind: Kind| items.iter().filter(move |item| item.kind == kind && !item.create.is_empty());
    let names = |kind: Kind| named(kind).map(|item| item.name.as_str());
    let drop =
        sql_command_in(params, "postgres", &[format!("DROP DATABASE {} WITH (FORCE)", ident(params.database()))]);
    if named(Kind::Subscription).next().is_none() {
        return drop;
    }
    let statements = drop_subscriptions(names(Kind::EventTrigger), names(Kind::Subscription));
    let before = sql_command_in(params, params.database(), &statements);
    // An event trigger that fires at login could prevent that too.
    let options = if items.iter().any(fires_at_login) { "PGOPTIONS='-c event_triggers=off' " } else { "" };
    format!("{options}{before} && {drop}")
}

/// Returns messages about what the command of [`drop_command`] does not do.
pub(super) fn drop_notes(items: &[Item]) -> impl Iterator<Item = String> {
    let subscriptions = items.iter().filter(|item| item.kind == Kind::Subscription && !item.create.is_empty());
    subscriptions.map(|item| {
        format!(
            "the undo drops the subscription {}; if that has a replication slot by then, the undo fails or drops the slot on \
             the publisher too, which would keep its WAL files otherwise",
            one_line(&item.name)
        )
    })
}

/// Returns the parameters for a session in a database with these items: without event triggers if one of them fires at
/// login, because its function may refuse the session or write rows. Only a superuser can create such a trigger.
pub(super) fn without_login_triggers(params: &Params, items: &[Item]) -> Params {
    if items.iter().any(fires_at_login) { params.without_event_triggers() } else { params.clone() }
}

/// Returns true if an item is an event trigger that fires when a session begins.
fn fires_at_login(item: &Item) -> bool {
    item.kind == Kind::EventTrigger && item.create.iter().any(|statement| statement.contains(" ON login"))
}
