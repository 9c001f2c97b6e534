//! The PostgreSQL services of a compose file (<https://docs.docker.com/reference/compose-file/services/>).

use std::path::Path;

use crate::ops::init::yaml::{self, Node};
use crate::platform::disk::read_bounded;

/// The names of a compose file; the first that exists is used.
const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
/// The maximum size of a compose file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Parts of the names of images that contain PostgreSQL.
const IMAGES: [&str; 6] = ["postgres", "postgis", "timescale", "pgvector", "paradedb", "pgrouting"];
/// Parts of the names of images that only work with PostgreSQL.
const TOOLS: [&str; 9] =
    ["postgrest", "exporter", "pgadmin", "backup", "bouncer", "pgpool", "postgraphile", "operator", "adminer"];

/// A value of a compose file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    /// A text.
    Text(String),
    /// A variable, and its default if it has one.
    Variable(String, Option<String>),
}

/// A PostgreSQL server in a compose file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ComposeServer {
    /// The file's name.
    pub(super) file: &'static str,
    /// The name of the service, which is its host for other services.
    pub(super) service: String,
    /// The port on this machine; `None` if the server can be reached only from other services.
    pub(super) port: Option<Setting>,
    pub(super) user: Setting,
    pub(super) database: Setting,
    /// The variable with the password; `None` if the server needs none.
    pub(super) password: Option<String>,
    /// True if the password is written in the compose file itself.
    pub(super) has_plain_password: bool,
}

/// Returns the PostgreSQL servers of the project's compose file.
pub(super) fn servers(folder: &Path) -> Vec<ComposeServer> {
    let found = NAMES.iter().find_map(|name| {
        let bytes = read_bounded(&folder.join(name), MAX_BYTES).ok()??;
        Some((*name, String::from_utf8(bytes).ok()?))
    });
    found.map(|(name, text)| read(name, &text)).unwrap_or_default()
}

fn read(file: &'static str, text: &str) -> Vec<ComposeServer> {
    let root = yaml::parse(text);
    let services = root.get("services").map(|services| services.children.as_slice()).unwrap_or_default();
    services.iter().filter_map(|service| server(file, service)).collect()
}

fn server(file: &'static str, service: &Node) -> Option<ComposeServer> {
    let image = service.get("image")?.value.to_ascii_lowercase();
    // The registry and the tag say nothing about what is in the image.
    let name = image.rsplit('/').next()?.split('@').next()?;
    let has = |words: &[&str]| words.iter().any(|word| image.contains(word));
    if !has(&IMAGES) || TOOLS.iter().any(|word| name.contains(word)) {
        return None;
    }
    let environment = service.get("environment").map(Node::pairs).unwrap_or_default();
    let get = |names: &[&'static str]| {
        let found = environment.iter().rev().find_map(|(name, value)| {
            let known = names.iter().find(|known| *known == name)?;
            Some(match value {
                Some(value) => setting(value),
                // A name alone passes the variable of the same name on.
                None => Setting::Variable((*known).to_owned(), None),
            })
        });
        found.filter(|found| *found != Setting::Text(String::new()))
    };
    let user = get(&["POSTGRES_USER", "POSTGRESQL_USERNAME"]).unwrap_or(Setting::Text("postgres".to_owned()));
    let password = get(&["POSTGRES_PASSWORD", "POSTGRESQL_PASSWORD"]);
    let trusts = get(&["POSTGRES_HOST_AUTH_METHOD"]) == Some(Setting::Text("trust".to_owned()));
    Some(ComposeServer {
        file,
        service: service.key.clone(),
        port: service.get("ports").into_iter().flat_map(Node::items).find_map(published),
        database: get(&["POSTGRES_DB", "POSTGRESQL_DATABASE"]).unwrap_or_else(|| user.clone()),
        user,
        has_plain_password: matches!(password, Some(Setting::Text(_))),
        password: match password {
            Some(Setting::Variable(name, _)) => Some(name),
            None if trusts => None,
            _ => Some("POSTGRES_PASSWORD".to_owned()),
        },
    })
}

/// Returns the port of this machine that leads to the server's port 5432.
fn published(port: &Node) -> Option<Setting> {
    if let Some(target) = port.get("target") {
        return port.get("published").filter(|_| target.value == "5432").map(|port| setting(&port.value));
    }
    // `[IP:]HOST:CONTAINER[/PROTOCOL]`; the host's port may be a variable with a default.
    let text = port.value.strip_suffix("/tcp").unwrap_or(&port.value).strip_suffix(":5432")?;
    let host = match text.rfind("${") {
        Some(start) => &text[start..],
        None => text.rsplit(':').next()?,
    };
    (!host.is_empty()).then(|| setting(host))
}

/// Reads a value with at most one variable. A text around a variable cannot be used, and counts as the variable.
fn setting(text: &str) -> Setting {
    let Some((_, rest)) = text.split_once('$').filter(|(_, rest)| !rest.starts_with('$')) else {
        return Setting::Text(text.replace("$$", "$"));
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let Some(inside) = rest.strip_prefix('{').and_then(|rest| rest.split('}').next()) else {
        let name: String = rest.chars().take_while(|c| is_name(*c)).collect();
        return Setting::Variable(name, None);
    };
    let name: String = inside.chars().take_while(|c| is_name(*c)).collect();
    let operator = &inside[name.len()..];
    let default = operator.strip_prefix(":-").or_else(|| operator.strip_prefix('-'));
    Setting::Variable(name, default.map(str::to_owned).filter(|default| !default.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Setting {
        Setting::Text(text.to_owned())
    }

    #[test]
    fn servers_are_read_in_every_form() {
        let servers = read(
            "compose.yaml",
            "services:\n  db:\n    image: postgres:16\n    environment:\n      POSTGRES_DB: shop\n      POSTGRES_PASSWORD: \
             hunter2\n    ports: [\"127.0.0.1:5433:5432\"]\n  metrics:\n    image: timescale/timescaledb:latest-pg16\n    \
             environment:\n      - POSTGRES_USER=${DB_USER:-ada}\n      - POSTGRES_PASSWORD=${DB_PASSWORD:?set it}\n    ports:\n      \
             - ${DB_PORT:-5432}:5432\n  vectors:\n    image: pgvector/pgvector:pg17\n    environment:\n      \
             POSTGRES_HOST_AUTH_METHOD: trust\n    ports:\n      - target: 5432\n        published: \"6000\"\n  \
             exporter:\n    image: quay.io/prometheuscommunity/postgres-exporter\n  admin:\n    image: dpage/pgadmin4\n  \
             web:\n    image: ghcr.io/a/web\n    environment:\n      POSTGRES_PASSWORD: x\n",
        );
        assert_eq!(servers.iter().map(|one| one.service.as_str()).collect::<Vec<_>>(), ["db", "metrics", "vectors"]);
        let [db, metrics, vectors] = servers.as_slice() else { panic!("{servers:?}") };
        assert_eq!((&db.port, &db.user, &db.database), (&Some(text("5433")), &text("postgres"), &text("shop")));
        assert_eq!((db.password.as_deref(), db.has_plain_password), (Some("POSTGRES_PASSWORD"), true));
        let user = Setting::Variable("DB_USER".to_owned(), Some("ada".to_owned()));
        assert_eq!((&metrics.user, &metrics.database), (&user, &user));
        assert_eq!(metrics.port, Some(Setting::Variable("DB_PORT".to_owned(), Some("5432".to_owned()))));
        assert_eq!((metrics.password.as_deref(), metrics.has_plain_password), (Some("DB_PASSWORD"), false));
        assert_eq!((&vectors.port, &vectors.password), (&Some(text("6000")), &None));
    }

    #[test]
    fn a_port_that_is_not_published_is_none() {
        for port in ["5432", "\"8080:80\"", "\"5432:6543\"", "\":5432\""] {
            let text = format!("services:\n  db:\n    image: postgres\n    ports:\n      - {port}\n");
            assert_eq!(read("compose.yaml", &text)[0].port, None, "{port}");
        }
    }
}
