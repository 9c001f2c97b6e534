//! The properties that an empty database has before it is filled, and that dropping what was restored does not put back: the
//! owner and comment of its schema public, the privileges on its schemas, on objects of the system and of extensions, and its
//! default privileges.

use crate::engine::postgres::schema::Item;
use crate::engine::postgres::schema::database::DefaultPrivileges;
use crate::engine::postgres::schema::privileges::ExistingPrivileges;
use crate::engine::postgres::schema::quote::{ident, literal};
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::Result;

/// The properties of a database before it is filled.
pub(super) struct Before {
    /// Those of the schema public. `None` if there is no such schema.
    public: Option<Public>,
    privileges: ExistingPrivileges,
    default_privileges: DefaultPrivileges,
}

/// The properties of the schema public, except its privileges.
struct Public {
    owner: String,
    comment: Option<String>,
}

impl Public {
    fn read(session: &mut Session) -> Result<Option<Self>> {
        let rows = session.rows(
            "SELECT pg_catalog.pg_get_userbyid(n.nspowner) AS owner,
                    pg_catalog.obj_description(n.oid, 'pg_namespace') AS comment
               FROM pg_catalog.pg_namespace n WHERE n.nspname = 'public'",
        )?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(Public { owner: row.text("owner")?.to_owned(), comment: row.owned("comment")? }))
    }
}

impl Before {
    /// Reads the properties that a restore of the items may change.
    pub(super) fn read(session: &mut Session, items: &[Item]) -> Result<Self> {
        let public = Public::read(session)?;
        let privileges = ExistingPrivileges::read(session, items)?;
        Ok(Before { public, privileges, default_privileges: DefaultPrivileges::read(session)? })
    }

    /// Puts the properties back. `changed` are the items whose statements were run, of all `items`. Fails if the role may not
    /// do so.
    pub(super) fn put_back(&self, session: &mut Session, items: &[Item], changed: &[&Item]) -> Result<()> {
        let now = DefaultPrivileges::read(session)?;
        let mut statements = self.default_privileges.put_back(&now, changed)?;
        if let (Some(before), Some(now)) = (&self.public, Public::read(session)?) {
            if before.owner != now.owner {
                statements.push(format!("ALTER SCHEMA public OWNER TO {}", ident(&before.owner)));
            }
            if before.comment != now.comment {
                let comment = before.comment.as_deref().map_or_else(|| "NULL".to_owned(), literal);
                statements.push(format!("COMMENT ON SCHEMA public IS {comment}"));
            }
        }
        for statement in statements {
            session.execute(&statement)?;
        }
        // A new owner has taken the privileges of the old one.
        let now = ExistingPrivileges::read(session, items)?;
        for statement in self.privileges.put_back(&now)? {
            session.execute(&statement)?;
        }
        Ok(())
    }
}
