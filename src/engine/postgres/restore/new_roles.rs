//! Makes the roles that a snapshot needs and the server lacks, for `--create-roles`.
//!
//! They cannot log in and are no superusers, and no role that exists is changed.

use crate::engine::postgres::restore::target::Server;
use crate::engine::postgres::schema::quote::ident;
use crate::engine::postgres::schema::roles;
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::{Kind, Result, one_line};
use crate::snapshots::manifest::{PostgresFacts, RoleFacts};

/// The roles that a restore has made, and drops again if it fails.
#[derive(Debug, Default)]
pub(super) struct NewRoles {
    names: Vec<String>,
}

/// Returns the definitions of the missing roles that can be made.
fn makeable<'a>(facts: &'a PostgresFacts, missing: &[String]) -> Vec<&'a RoleFacts> {
    facts.role_definitions.iter().filter(|role| missing.contains(&role.name)).collect()
}

/// Returns the names of the missing roles that can be made.
pub(super) fn names(server: &mut Server, facts: &PostgresFacts) -> Result<Vec<String>> {
    let missing = server.missing_roles(facts)?;
    Ok(makeable(facts, &missing).into_iter().map(|role| role.name.clone()).collect())
}

impl NewRoles {
    /// Makes the missing roles in one transaction. Attributes, settings and memberships that the server does not let this
    /// role give are left out, and a warning names them.
    pub(super) fn create(server: &mut Server, facts: &PostgresFacts) -> Result<Self> {
        let missing = server.missing_roles(facts)?;
        let definitions = makeable(facts, &missing);
        let names: Vec<String> = definitions.iter().map(|role| role.name.clone()).collect();
        if names.is_empty() {
            return Ok(NewRoles::default());
        }
        let session = server.session();
        session.execute("BEGIN")?;
        let created = create_all(session, &definitions);
        let created = created.and_then(|()| session.execute("COMMIT")).inspect_err(|_| {
            session.defer_interrupts();
            let _ = session.execute("ROLLBACK");
        });
        created.map_err(|error| {
            error
                .context("cannot make the roles")
                .hint("--create-roles needs a role with CREATEROLE; nothing was changed")
        })?;
        warn_about_memberships(facts, &names);
        Ok(NewRoles { names })
    }

    /// Drops the roles again. Those that are in use by now are kept, and a warning names them.
    pub(super) fn drop(&self, server: &mut Server) {
        let session = server.session();
        session.defer_interrupts();
        for name in &self.names {
            if let Err(error) = session.execute(&format!("DROP ROLE {}", ident(name))) {
                tracing::warn!("the new role {} is left on the server: {}", one_line(name), error.full_message());
            }
        }
    }

    /// Returns a message about the roles, for the report. Returns `None` if there are none.
    pub(super) fn note(&self) -> Option<String> {
        let names: Vec<String> = self.names.iter().map(|name| one_line(&ident(name))).collect();
        (!names.is_empty()).then(|| {
            format!("made the roles {}, which cannot log in: ALTER ROLE ... LOGIN PASSWORD allows it", names.join(", "))
        })
    }
}

fn create_all(session: &mut Session, definitions: &[&RoleFacts]) -> Result<()> {
    let (version, user) = (session.version(), session.about().user.clone());
    for role in definitions {
        session.execute(&roles::create(role))?;
        if !session.about().is_superuser {
            // A role that is no superuser can make another one the owner of an object only if it is a member of it.
            let options = if version >= 160_000 { " WITH INHERIT TRUE, SET TRUE" } else { "" };
            session.execute(&format!("GRANT {} TO {}{options}", ident(&role.name), ident(&user)))?;
        }
        for statement in roles::alter(role) {
            try_statement(session, &statement)?;
        }
        let withheld: Vec<&str> = roles::withheld(role).into_iter().filter(|word| *word != "LOGIN").collect();
        if !withheld.is_empty() {
            tracing::warn!("the role {} was made without {}", one_line(&role.name), withheld.join(", "));
        }
    }
    for role in definitions {
        for of in &role.member_of {
            try_statement(session, &roles::grant(role, of, version))?;
        }
    }
    Ok(())
}

/// Runs a statement. If the server rejects it, a warning is logged and nothing is changed.
fn try_statement(session: &mut Session, statement: &str) -> Result<()> {
    session.execute("SAVEPOINT lifeboat_role")?;
    match session.execute(statement) {
        Ok(()) => session.execute("RELEASE SAVEPOINT lifeboat_role"),
        Err(error) if error.kind == Kind::Failed => {
            tracing::warn!("not done: {}: {}", one_line(statement), error.full_message());
            session.execute("ROLLBACK TO SAVEPOINT lifeboat_role")
        }
        Err(error) => Err(error),
    }
}

/// Warns about the memberships of existing roles in new ones: existing roles are not changed.
fn warn_about_memberships(facts: &PostgresFacts, new: &[String]) {
    for role in facts.role_definitions.iter().filter(|role| !new.contains(&role.name)) {
        for of in role.member_of.iter().filter(|of| new.contains(&of.role)) {
            tracing::warn!(
                "the role {} exists, and was not made a member of the new role {}: GRANT {} TO {} does it",
                one_line(&role.name),
                one_line(&of.role),
                one_line(&ident(&of.role)),
                one_line(&ident(&role.name))
            );
        }
    }
}
