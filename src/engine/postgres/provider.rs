//! The providers of managed servers whose own objects are known. A database on such a server has schemas, event triggers
//! and default privileges that belong to the provider: it creates them in every database, and others may neither create
//! nor always read them.

use std::fmt;
use std::str::FromStr;

use crate::platform::error::{Error, Result};

/// A provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Supabase.
    Supabase,
    /// Neon.
    Neon,
    /// Amazon RDS and Aurora.
    Rds,
    /// Google Cloud SQL.
    CloudSql,
    /// Azure Database for PostgreSQL.
    Azure,
}

impl Provider {
    /// All providers.
    pub const ALL: [Provider; 5] =
        [Provider::Supabase, Provider::Neon, Provider::Rds, Provider::CloudSql, Provider::Azure];

    /// Returns the name, as the config and manifests have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Provider::Supabase => "supabase",
            Provider::Neon => "neon",
            Provider::Rds => "rds",
            Provider::CloudSql => "cloudsql",
            Provider::Azure => "azure",
        }
    }

    /// Returns the schemas that the provider creates, whoever owns them.
    pub(crate) fn schemas(self) -> &'static [&'static str] {
        match self {
            Provider::Supabase => &[
                "_analytics",
                "_realtime",
                "_supavisor",
                "auth",
                "etl",
                "graphql",
                "graphql_public",
                "pgbouncer",
                "pgsodium",
                "pgsodium_masks",
                "realtime",
                "storage",
                "supabase_functions",
                "vault",
            ],
            Provider::Neon => &["neon", "neon_migration"],
            Provider::Rds | Provider::CloudSql | Provider::Azure => &[],
        }
    }

    /// Returns the roles that the provider acts as itself. The schemas that they own, except `public`, and their event
    /// triggers and default privileges belong to the provider.
    pub(crate) fn roles(self) -> &'static [&'static str] {
        match self {
            Provider::Supabase => &[
                "pgbouncer",
                "supabase_admin",
                "supabase_auth_admin",
                "supabase_etl_admin",
                "supabase_functions_admin",
                "supabase_realtime_admin",
                "supabase_replication_admin",
                "supabase_storage_admin",
            ],
            Provider::Neon => &["cloud_admin", "neon_auth", "neon_service"],
            Provider::Rds => &["rdsadmin"],
            Provider::CloudSql => &["cloudsqladmin"],
            Provider::Azure => &["azuresu"],
        }
    }

    /// Returns the roles that the provider gives to its users as administrators. They own the schema `public` of a new
    /// database, as a role of the provider itself may.
    pub(crate) fn administrators(self) -> &'static [&'static str] {
        match self {
            Provider::Supabase => &["postgres"],
            Provider::Neon => &["neon_superuser"],
            Provider::Rds => &["rds_superuser"],
            Provider::CloudSql => &["cloudsqlsuperuser"],
            Provider::Azure => &["azure_pg_admin"],
        }
    }

    /// Returns the schemas of users in which the provider has objects too. Those that its roles own belong to it.
    pub(crate) fn shared_schemas(self) -> &'static [&'static str] {
        match self {
            Provider::Supabase => &["extensions"],
            Provider::Neon | Provider::Rds | Provider::CloudSql | Provider::Azure => &[],
        }
    }

    /// Returns the extensions that the provider creates outside of its schemas.
    pub(crate) fn extensions(self) -> &'static [&'static str] {
        match self {
            Provider::Azure => &["azure", "pgaadauth"],
            Provider::Supabase | Provider::Neon | Provider::Rds | Provider::CloudSql => &[],
        }
    }

    /// Returns true if a server with these roles may be of this provider: it has one of its own roles. Other servers have a
    /// role `postgres` or `pgbouncer` too.
    pub(crate) fn has_role_in(self, roles: &[&str]) -> bool {
        let own = self.roles().iter().chain(self.administrators());
        own.filter(|role| !["postgres", "pgbouncer"].contains(role)).any(|role| roles.contains(role))
    }

    /// Returns the provider of a server with these roles; `None` if they are of several: a database that moves from one
    /// provider to another brings roles with it.
    pub(crate) fn of_roles(roles: &[&str]) -> Option<Self> {
        let mut found = Provider::ALL.into_iter().filter(|provider| provider.has_role_in(roles));
        found.next().filter(|_| found.next().is_none())
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Provider {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Provider::ALL.into_iter().find(|provider| provider.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Provider::ALL.iter().map(|provider| provider.name()).collect();
            Error::usage(format!("'{text}' is not a known provider"))
                .hint(format!("it must be one of {}", names.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_of_the_provider_whose_roles_it_has() {
        assert_eq!(Provider::of_roles(&["postgres", "pgbouncer", "app"]), None);
        assert_eq!(Provider::of_roles(&["postgres", "supabase_auth_admin"]), Some(Provider::Supabase));
        assert_eq!(Provider::of_roles(&["rds_superuser"]), Some(Provider::Rds));
        assert_eq!(Provider::of_roles(&["app", "neon_superuser"]), Some(Provider::Neon));
        let of_two = ["rdsadmin", "supabase_auth_admin"];
        assert_eq!(Provider::of_roles(&of_two), None);
        assert!(Provider::Rds.has_role_in(&of_two) && !Provider::Neon.has_role_in(&of_two));
    }
}
