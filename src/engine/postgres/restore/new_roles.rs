//! Makes the roles that a snapshot needs and the server lacks, for `--create-roles`.
//!
//! They cannot log in and have no power over the server, and no role that exists is changed.

use std::collections::BTreeSet;

use crate::engine::postgres::restore::target::Server;
use crate::engine::postgres::schema::quote::ident;
use crate::engine::postgres::schema::roles;
use crate::engine::postgres::wire::majors::VERSION_16;
use crate::engine::postgres::wire::session::{Session, sqlstate};
use crate::platform::error::{Kind, Result, one_line};
use crate::snapshots::manifest::{PostgresFacts, RoleFacts};

/// The roles that a restore has made, and drops again if it fails.
#[derive(Debug, Default)]
pub(super) struct NewRoles {
    names: Vec<String>,
    /// The role that restores, and those of the new roles that it was made a member of.
    member: Option<(String, Vec<String>)>,
}

/// Returns the names of the missing roles that can be made.
pub(super) fn names(server: &mut Server, facts: &PostgresFacts) -> Result<Vec<String>> {
    let missing = server.missing_roles(facts)?;
    let makeable = facts.role_definitions.iter().filter(|role| missing.contains(&role.name));
    Ok(makeable.map(|role| role.name.clone()).collect())
}

impl NewRoles {
    /// Makes those of the roles in `wanted` that are missing, in one transaction. Attributes, settings and memberships that
    /// the server does not let this role give are left out, and a warning names them. `acting` are the roles that the
    /// restore acts as.
    pub(super) fn create(
        server: &mut Server,
        all: &[RoleFacts],
        wanted: &[String],
        acting: &BTreeSet<String>,
    ) -> Result<Self> {
        let definitions: Vec<&RoleFacts> = all.iter().filter(|role| wanted.contains(&role.name)).collect();
        let mut made = NewRoles { names: definitions.iter().map(|role| role.name.clone()).collect(), member: None };
        if made.names.is_empty() {
            return Ok(made);
        }
        let session = server.session();
        if !session.about().is_superuser {
            // A role that is no superuser can make another one the owner of an object only if it is a member of it.
            let owners: Vec<String> = made.names.iter().filter(|name| acting.contains(*name)).cloned().collect();
            made.member = (!owners.is_empty()).then(|| (session.about().user.clone(), owners));
        }
        session.execute("BEGIN")?;
        let created = made.create_all(session, &definitions);
        let created = created.and_then(|()| session.execute("COMMIT")).inspect_err(|_| {
            session.defer_interrupts();
            let _ = session.execute("ROLLBACK");
        });
        created.map_err(|error| {
            error
                .context("cannot make the roles")
                .hint("--create-roles needs a role with CREATEROLE; nothing was changed")
        })?;
        made.warn_about_memberships(all);
        Ok(made)
    }

    fn create_all(&self, session: &mut Session, definitions: &[&RoleFacts]) -> Result<()> {
        let version = session.version();
        for role in definitions {
            session.execute(&roles::create(role))?;
            if let Some((user, _)) = self.member.as_ref().filter(|(_, owners)| owners.contains(&role.name)) {
                let options = if version >= VERSION_16 { " WITH INHERIT TRUE, SET TRUE" } else { "" };
                session.execute(&format!("GRANT {} TO {}{options}", ident(&role.name), ident(user)))?;
            }
            for (statement, words) in roles::alter(role) {
                try_statement(session, &statement, &words)?;
            }
            let withheld: Vec<&str> = roles::withheld(role).into_iter().filter(|word| *word != "LOGIN").collect();
            if !withheld.is_empty() {
                tracing::warn!("the role {} was made without {}", one_line(&role.name), withheld.join(", "));
            }
        }
        for role in definitions {
            for of in role.member_of.iter().filter(|of| self.names.contains(&of.role)) {
                let statement = roles::grant(role, of, version);
                try_statement(session, &statement, &statement)?;
            }
        }
        Ok(())
    }

    /// Warns about the memberships between new and other roles. Other roles are not changed, and may have any rights on
    /// this server.
    fn warn_about_memberships(&self, all: &[RoleFacts]) {
        let is_new = |name: &String| self.names.contains(name);
        for (role, of) in all.iter().flat_map(|role| role.member_of.iter().map(move |of| (role, of))) {
            if is_new(&role.name) != is_new(&of.role) {
                let existing = if is_new(&role.name) { &of.role } else { &role.name };
                tracing::warn!(
                    "the role {} was not made a member of {}, because {} was not made by this restore: {} does it",
                    one_line(&role.name),
                    one_line(&of.role),
                    one_line(existing),
                    one_line(&roles::grant(role, of, 0))
                );
            }
        }
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

    /// Returns messages about the roles, for the report.
    pub(super) fn notes(&self) -> Vec<String> {
        let list = |names: &[String]| names.iter().map(|name| one_line(&ident(name))).collect::<Vec<_>>().join(", ");
        let mut notes = Vec::new();
        if !self.names.is_empty() {
            let names = list(&self.names);
            notes.push(format!("made the roles {names}, which cannot log in: ALTER ROLE ... LOGIN PASSWORD allows it"));
        }
        if let Some((user, owners)) = &self.member {
            let (user, owners) = (one_line(&ident(user)), list(owners));
            notes.push(format!(
                "the role {user} is a member of the new roles {owners}, because it gave objects to them: REVOKE {owners} \
                 FROM {user} ends it, and the undo needs it"
            ));
        }
        notes
    }
}

/// Runs a statement. If the server rejects it, a warning is logged and nothing is changed. If the statement has a value that
/// may be a secret, `words` has not, and the server's message is not printed either.
fn try_statement(session: &mut Session, statement: &str, words: &str) -> Result<()> {
    session.execute("SAVEPOINT lifeboat_role")?;
    match session.execute(statement) {
        Ok(()) => session.execute("RELEASE SAVEPOINT lifeboat_role"),
        Err(error) if error.kind == Kind::Failed => {
            let reason = match sqlstate(&error) {
                Some(code) if words != statement => format!("the server rejects it (SQLSTATE {code})"),
                _ => error.full_message(),
            };
            tracing::warn!("not done: {}: {reason}", one_line(words));
            session.execute("ROLLBACK TO SAVEPOINT lifeboat_role")
        }
        Err(error) => Err(error),
    }
}
