//! The tables in which tools for migrations record what they did. They say nothing about the data.

use super::names::split;

/// Their names, without schema and quotes, in lower case.
const NAMES: [&str; 40] = [
    "__diesel_schema_migrations",
    "__drizzle_migrations",
    "__efmigrationshistory",
    "__efmigrationslock",
    "_migrations",
    "_prisma_migrations",
    "_sqlx_migrations",
    "_yoyo_log",
    "_yoyo_migration",
    "_yoyo_version",
    "aerich",
    "alembic_version",
    "applied_migrations",
    "ar_internal_metadata",
    "atlas_schema_revisions",
    "d1_migrations",
    "databasechangelog",
    "databasechangeloglock",
    "django_migrations",
    "doctrine_migration_versions",
    "flyway_schema_history",
    "goose_db_version",
    "knex_migrations",
    "knex_migrations_lock",
    "kysely_migration",
    "kysely_migration_lock",
    "migration_versions",
    "migrations",
    "mikro_orm_migrations",
    "peewee_migrate",
    "pgmigrations",
    "phinxlog",
    "refinery_schema_history",
    "schema_history",
    "schema_info",
    "schema_migrations",
    "schema_version",
    "sequelizemeta",
    "typeorm_metadata",
    "yoyo_lock",
];

/// Returns true if a table, by the name that manifests use, is the record of a tool for migrations.
pub(crate) fn is_of_migrations(name: &str) -> bool {
    NAMES.contains(&split(name).1.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_of_a_migration_is_known_by_its_name() {
        for name in ["alembic_version", "public.schema_migrations", "public.\"__EFMigrationsHistory\"", "SequelizeMeta"]
        {
            assert!(is_of_migrations(name), "{name}");
        }
        assert!(!is_of_migrations("accounts") && !is_of_migrations("migrations_of_birds"));
    }
}
