//! The properties that an empty database has before it is filled, and that dropping what was restored does not put back: the
//! owner, comment and privileges of its schema public, and no default privileges.

use crate::engine::postgres::schema::database::reset_default_privileges;
use crate::engine::postgres::schema::gone_roles::GoneRoles;
use crate::engine::postgres::schema::quote::{ident, literal};
use crate::engine::postgres::schema::{Address, Item, Kind, Object, catalogs, grants};
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::Result;

/// The properties of a database before it is filled.
pub(super) struct Before {
    /// Those of the schema public. `None` if there is no such schema.
    public: Option<Public>,
}

/// The properties of the schema public.
#[derive(PartialEq, Eq)]
struct Public {
    owner: String,
    comment: Option<String>,
    acl: Vec<String>,
}

impl Public {
    fn read(session: &mut Session) -> Result<Option<Self>> {
        let rows = session.rows(
            "SELECT pg_catalog.pg_get_userbyid(n.nspowner) AS owner,
                    pg_catalog.obj_description(n.oid, 'pg_namespace') AS comment,
                    to_json(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))::text[]) AS acl
               FROM pg_catalog.pg_namespace n WHERE n.nspname = 'public'",
        )?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (owner, comment) = (row.text("owner")?.to_owned(), row.owned("comment")?);
        Ok(Some(Public { owner, comment, acl: row.list("acl")? }))
    }
}

impl Before {
    /// Reads the properties.
    pub(super) fn read(session: &mut Session) -> Result<Self> {
        Ok(Before { public: Public::read(session)? })
    }

    /// Puts the properties back. `changed` are the items whose statements were run. Fails if the role may not do so.
    pub(super) fn put_back(&self, session: &mut Session, changed: &[&Item]) -> Result<()> {
        let default_privileges: Vec<&Item> =
            changed.iter().copied().filter(|item| item.kind == Kind::DefaultPrivileges).collect();
        for statement in reset_default_privileges(session, &default_privileges)? {
            session.execute(&statement)?;
        }
        let (Some(before), Some(now)) = (&self.public, Public::read(session)?) else { return Ok(()) };
        if *before == now {
            return Ok(());
        }
        if before.owner != now.owner {
            session.execute(&format!("ALTER SCHEMA public OWNER TO {}", ident(&before.owner)))?;
        }
        if before.comment != now.comment {
            let comment = before.comment.as_deref().map_or_else(|| "NULL".to_owned(), literal);
            session.execute(&format!("COMMENT ON SCHEMA public IS {comment}"))?;
        }
        // A new owner has taken the privileges of the old one.
        let Some(now) = Public::read(session)? else { return Ok(()) };
        let mut object = Object::new(Address::new(catalogs::NAMESPACE, 0), Kind::Schema, None, "public");
        let target = grants::Target { word: "SCHEMA", name: "public", column: None, owner: &before.owner };
        for statement in grants::statements(&mut GoneRoles::default(), &mut object, &target, &before.acl, &now.acl)? {
            session.execute(&statement)?;
        }
        Ok(())
    }
}
