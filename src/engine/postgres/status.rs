//! How we stand with a server: as whom we are there, what extensions it has, what the role may do, how many may still connect.
//!
//! Only public views and functions are asked, so that any role can; each question by itself, since a server that speaks the
//! protocol need not answer all of them.

use crate::engine::postgres::Params;
use crate::engine::postgres::wire::about::ServerAbout;
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::Result;

/// How we stand with a server.
pub struct Standing {
    session: Session,
}

/// An extension of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Its name.
    pub name: String,
    /// The version that the database has.
    pub installed: Option<String>,
    /// The version that the server would install; None where it has none.
    pub available: Option<String>,
}

/// What a role may create, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Schemas, and extensions that any owner may install.
    pub in_database: bool,
    /// Schemas that it may create in.
    pub in_schemas: Vec<String>,
    /// Schemas that it may not create in.
    pub not_in_schemas: Vec<String>,
}

/// How many connections a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// As many more as this role may open, this one not counted.
    pub free: i64,
    /// Those that are open.
    pub used: i64,
    /// All that the server lets in.
    pub most: i64,
    /// Those kept for superusers and roles that were given them.
    pub reserved: i64,
    /// As many as this database, and this role, may have; None where they are not limited.
    pub limit: Option<i64>,
}

impl Standing {
    /// Connects.
    pub fn open(params: &Params) -> Result<Self> {
        let mut session = Session::connect(params)?;
        session.execute("SET statement_timeout = '30s'")?;
        Ok(Standing { session })
    }

    /// What the server is, and as whom we are there.
    #[must_use]
    pub fn about(&self) -> &ServerAbout {
        self.session.about()
    }

    /// Whether transactions are read-only at this moment, whatever the reason.
    pub fn is_read_only(&mut self) -> Result<bool> {
        let sql = "SELECT pg_catalog.current_setting('transaction_read_only') = 'on' AS read_only";
        self.session.row(sql)?.flag("read_only")
    }

    /// The extensions of the database, and TimescaleDB where the server has it.
    pub fn extensions(&mut self) -> Result<Vec<Extension>> {
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

    /// What the role may create.
    pub fn rights(&mut self) -> Result<Rights> {
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

    /// How many connections there are, and how many more there may be.
    pub fn connections(&mut self) -> Result<Connections> {
        // What others' sessions are for is not every role's to see; their number is.
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
            // Superusers are not held to these, and -1 is none.
            let most = number(most)?;
            if most >= 0 && !is_superuser {
                limit = Some(limit.map_or(most, |limit| limit.min(most)));
                free = free.min(most - number(used)?);
            }
        }
        Ok(Connections { free: free.max(0), used, most, reserved, limit })
    }
}
