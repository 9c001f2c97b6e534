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
            Provider::Neon => &["cloud_admin"],
            Provider::Rds => &["rdsadmin"],
            Provider::CloudSql => &["cloudsqladmin"],
            Provider::Azure => &["azuresu"],
        }
    }

    /// Returns the provider of a server that has these roles.
    pub(crate) fn of_roles<'a>(mut roles: impl Iterator<Item = &'a str>) -> Option<Self> {
        roles.find_map(|role| {
            let telling = |provider: &Provider| match provider {
                Provider::Supabase => role == "supabase_admin",
                _ => provider.roles().contains(&role),
            };
            Provider::ALL.into_iter().find(telling)
        })
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
