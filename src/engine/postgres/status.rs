//! The status of a server: the role that is connected, the extensions, the rights of the role, and the free
//! connections.
//!
//! Only public views and functions are queried, so that any role can do it. Each query is separate, because a server
//! that supports the protocol need not support all of them.

use crate::engine::postgres::Params;
use crate::engine::postgres::wire::about::ServerAbout;
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::Result;

/// A session that reads the status of a server.
pub(crate) struct ServerState {
    session: Session,
}

/// An extension of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extension {
    /// Its name.
    pub name: String,
    /// The version that the database has.
    pub installed: Option<String>,
    /// The version that the server would install. `None` if the extension is not available.
    pub available: Option<String>,
}

/// The database and the schemas in which a role may create objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    /// True if it may create schemas and trusted extensions in the database.
    pub in_database: bool,
    /// The schemas that it may create objects in.
    pub in_schemas: Vec<String>,
    /// The schemas that it may not create objects in.
    pub not_in_schemas: Vec<String>,
}

/// The numbers of a server's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connections {
    /// The connections that this role may still open, in addition to this one.
    pub free: i64,
    /// The connections that are open.
    pub used: i64,
    /// The connections that the server allows in total.
    pub most: i64,
    /// The connections that are reserved for superusers and for roles with that privilege.
    pub reserved: i64,
    /// The lower of the limits of this database and this role. `None` if they are not limited.
    pub limit: Option<i64>,
}

impl ServerState {
    /// Connects.
    pub(crate) fn open(params: &Params) -> Result<Self> {
        let mut session = Session::connect(params)?;
        session.execute("SET statement_timeout = '30s'; SET search_path = ''")?;
        Ok(ServerState { session })
    }

    /// Returns the facts about the server and the connected role.
    #[must_use]
    pub(crate) fn about(&self) -> &ServerAbout {
        self.session.about()
    }

    /// Returns true if transactions are read-only now, for any reason.
    pub(crate) fn is_read_only(&mut self) -> Result<bool> {
        let sql = "SELECT pg_catalog.current_setting('transaction_read_only') = 'on' AS read_only";
        self.session.row(sql)?.flag("read_only")
    }

    /// Reads the extensions of the database, and TimescaleDB if it is available on the server.
    pub(crate) fn extensions(&mut self) -> Result<Vec<Extension>> {
        let rows = self.session.rows(
            "SELECT coalesce(e.extname, a.name) AS name, e.extversion AS installed, a.default_version AS available
               FROM pg_catalog.pg_extension e
               FULL JOIN (SELECT name::pg_catalog.text, default_version FROM pg_catalog.pg_available_extensions) a
                 ON a.name = e.extname::pg_catalog.text
              WHERE e.extname IS NOT NULL OR a.name = 'timescaledb' ORDER BY 1",
        )?;
        let read = |row: &crate::engine::postgres::wire::session::Row| {
            Ok(Extension {
                name: row.text("name")?.to_owned(),
                installed: row.owned("installed")?,
                available: row.owned("available")?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Reads the rights of the role to create objects.
    pub(crate) fn rights(&mut self) -> Result<Rights> {
        let database = self
            .session
            .row("SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') AS may")?;
        let rows = self.session.rows(
            "SELECT n.nspname AS name, pg_catalog.has_schema_privilege(n.oid, 'CREATE') AS may
               FROM pg_catalog.pg_namespace n
              WHERE n.nspname !~ '^(pg_|_timescaledb|timescaledb_)' AND n.nspname <> 'information_schema' ORDER BY 1",
        )?;
        let mut rights =
            Rights { in_database: database.flag("may")?, in_schemas: Vec::new(), not_in_schemas: Vec::new() };
        for row in &rows {
            let list = if row.flag("may")? { &mut rights.in_schemas } else { &mut rights.not_in_schemas };
            list.push(row.text("name")?.to_owned());
        }
        Ok(rights)
    }

    /// Reads how many connections are open, and how many more are allowed.
    pub(crate) fn connections(&mut self) -> Result<Connections> {
        // Not every role may see the details of other sessions, but every role may see their number.
        let row = self.session.row(
            "SELECT pg_catalog.current_setting('max_connections')::pg_catalog.int8 AS most,
                    pg_catalog.current_setting('superuser_reserved_connections')::pg_catalog.int8
                        + coalesce(pg_catalog.current_setting('reserved_connections', true), '0')::pg_catalog.int8 AS reserved,
                    (SELECT coalesce(pg_catalog.sum(numbackends), 0)::pg_catalog.int8
                       FROM pg_catalog.pg_stat_database) AS used,
                    (SELECT numbackends FROM pg_catalog.pg_stat_database
                      WHERE datname = pg_catalog.current_database())::pg_catalog.int8 AS used_here,
                    (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity
                      WHERE usename = current_user AND datname IS NOT NULL) AS used_by_role,
                    (SELECT datconnlimit FROM pg_catalog.pg_database
                      WHERE datname = pg_catalog.current_database())::pg_catalog.int8 AS database_limit,
                    (SELECT rolconnlimit FROM pg_catalog.pg_roles WHERE rolname = current_user)::pg_catalog.int8 AS role_limit",
        )?;
        let number = |column: &str| row.number::<i64>(column);
        let (most, used) = (number("most")?, number("used")?);
        let is_superuser = self.session.about().is_superuser;
        let reserved = number("reserved")?;
        let mut free = most - used - if is_superuser { 0 } else { reserved };
        let mut limit: Option<i64> = None;
        for (most, used) in [("database_limit", "used_here"), ("role_limit", "used_by_role")] {
            // These limits do not apply to superusers, and -1 means no limit.
            let most = number(most)?;
            if most >= 0 && !is_superuser {
                limit = Some(limit.map_or(most, |limit| limit.min(most)));
                free = free.min(most - number(used)?);
            }
        }
        Ok(Connections { free: free.max(0), used, most, reserved, limit })
    }
}
