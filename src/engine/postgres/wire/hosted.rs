//! The hosts of providers of managed servers: the names that always lead to a pool in transaction mode, and the way to reach
//! the server itself.

/// Returns true if a host is a pool in transaction mode, by the names and ports that its provider documents.
pub(in crate::engine::postgres) fn is_shared_pool(host: &str, port: u16) -> bool {
    let host = host.to_ascii_lowercase();
    is_supabase_pooler(&host) && port == 6543 || is_neon_pooler(&host)
}

fn is_supabase_pooler(host: &str) -> bool {
    host.ends_with(".pooler.supabase.com")
}

/// Returns true for hosts such as `ep-cool-darkness-123456-pooler.us-east-2.aws.neon.tech`.
fn is_neon_pooler(host: &str) -> bool {
    host.ends_with(".neon.tech") && host.split('.').next().is_some_and(|label| label.ends_with("-pooler"))
}

/// Returns the way to reach the server behind a pooler.
pub(in crate::engine::postgres) fn way_around_pooler(host: &str, port: u16) -> String {
    let name = host.to_ascii_lowercase();
    if is_supabase_pooler(&name) {
        return "use Supabase's session pooler (the same host with port 5432), or the direct host db.PROJECT.supabase.co"
            .to_owned();
    }
    if is_neon_pooler(&name) {
        return format!("use Neon's host without '-pooler': {}", name.replacen("-pooler.", ".", 1));
    }
    let has_own_port = name.ends_with(".supabase.co") || name.ends_with(".postgres.database.azure.com");
    if has_own_port && port != 5432 {
        return format!("use the server's own port: {host}:5432");
    }
    "connect to the server's own host and port, or set pool_mode = session for this database in the pooler (PgBouncer)"
        .to_owned()
}

/// Returns the hint for a host that has only IPv6 addresses and cannot be reached.
pub(in crate::engine::postgres) fn ipv6_hint(host: &str) -> String {
    let name = host.to_ascii_lowercase();
    let reason = "the host has only an IPv6 address, which this machine or its network may not reach";
    if name.starts_with("db.") && name.ends_with(".supabase.co") {
        return format!(
            "{reason}: use Supabase's session pooler, which has an IPv4 address (port 5432 of the host \
             REGION.pooler.supabase.com that the project's page 'Connect' shows)"
        );
    }
    format!("{reason}: enable IPv6 (also for containers), or use a host name with an IPv4 address")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_pools_lead_to_the_server() {
        for (host, port, way) in [
            ("aws-0-eu-central-1.pooler.supabase.com", 6543, "the same host with port 5432"),
            ("ep-cool-darkness-123456-pooler.us-east-2.aws.neon.tech", 5432, "ep-cool-darkness-123456.us-east-2.aws"),
            ("EP-X-POOLER.c-2.eu-central-1.aws.neon.tech", 5432, "ep-x.c-2.eu-central-1.aws.neon.tech"),
        ] {
            assert!(is_shared_pool(host, port), "{host}");
            assert!(way_around_pooler(host, port).contains(way), "{host}");
        }
        for (host, port, way) in [
            ("aws-0-eu-central-1.pooler.supabase.com", 5432, "db.PROJECT.supabase.co"),
            ("db.abc.supabase.co", 6543, "db.abc.supabase.co:5432"),
            ("srv.postgres.database.azure.com", 6432, "srv.postgres.database.azure.com:5432"),
            ("ep-cool-darkness-123456.us-east-2.aws.neon.tech", 5432, "pool_mode = session"),
            ("my-pooler.example.org", 6543, "pool_mode = session"),
        ] {
            assert!(!is_shared_pool(host, port), "{host}");
            assert!(way_around_pooler(host, port).contains(way), "{host}");
        }
        assert!(ipv6_hint("db.abc.supabase.co").contains("session pooler"));
        assert!(!ipv6_hint("db.example.org").contains("Supabase"));
    }
}
