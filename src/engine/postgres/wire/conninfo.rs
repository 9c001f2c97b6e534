//! Parses connection strings as libpq reads them: a URL, or keywords with values (PostgreSQL's documentation,
//! "Connection Strings").
//!
//! This module handles syntax only; [`crate::engine::postgres::wire::params`] interprets the keywords. No message
//! quotes a value, or any text that may belong to a password that the user forgot to encode.

use percent_encoding::percent_decode_str;

use crate::engine::postgres::wire::hosted;
use crate::platform::error::{Error, Result};

/// Keywords and their values in the order in which they were written; a later one overrides an earlier one.
pub(in crate::engine::postgres) type Pairs = Vec<(String, String)>;

/// Every keyword that libpq knows, with its environment variable.
pub(in crate::engine::postgres) const KEYWORDS: &[(&str, Option<&str>)] = &[
    ("application_name", Some("PGAPPNAME")),
    ("channel_binding", Some("PGCHANNELBINDING")),
    ("client_encoding", Some("PGCLIENTENCODING")),
    ("connect_timeout", Some("PGCONNECT_TIMEOUT")),
    ("dbname", Some("PGDATABASE")),
    ("fallback_application_name", None),
    ("gssdelegation", Some("PGGSSDELEGATION")),
    ("gssencmode", Some("PGGSSENCMODE")),
    ("gsslib", Some("PGGSSLIB")),
    ("host", Some("PGHOST")),
    ("hostaddr", Some("PGHOSTADDR")),
    ("keepalives", None),
    ("keepalives_count", None),
    ("keepalives_idle", None),
    ("keepalives_interval", None),
    ("krbsrvname", Some("PGKRBSRVNAME")),
    ("load_balance_hosts", Some("PGLOADBALANCEHOSTS")),
    ("max_protocol_version", Some("PGMAXPROTOCOLVERSION")),
    ("min_protocol_version", Some("PGMINPROTOCOLVERSION")),
    ("options", Some("PGOPTIONS")),
    ("passfile", Some("PGPASSFILE")),
    ("password", Some("PGPASSWORD")),
    ("port", Some("PGPORT")),
    ("replication", None),
    ("require_auth", Some("PGREQUIREAUTH")),
    ("requirepeer", Some("PGREQUIREPEER")),
    ("service", Some("PGSERVICE")),
    ("servicefile", Some("PGSERVICEFILE")),
    ("ssl_max_protocol_version", Some("PGSSLMAXPROTOCOLVERSION")),
    ("ssl_min_protocol_version", Some("PGSSLMINPROTOCOLVERSION")),
    ("sslcert", Some("PGSSLCERT")),
    ("sslcertmode", Some("PGSSLCERTMODE")),
    ("sslcompression", Some("PGSSLCOMPRESSION")),
    ("sslcrl", Some("PGSSLCRL")),
    ("sslcrldir", Some("PGSSLCRLDIR")),
    ("sslkey", Some("PGSSLKEY")),
    ("sslmode", Some("PGSSLMODE")),
    ("sslnegotiation", Some("PGSSLNEGOTIATION")),
    ("sslpassword", None),
    ("sslrootcert", Some("PGSSLROOTCERT")),
    ("sslsni", Some("PGSSLSNI")),
    ("target_session_attrs", Some("PGTARGETSESSIONATTRS")),
    ("tcp_user_timeout", None),
    ("user", Some("PGUSER")),
];

/// A parameter of Prisma, which is true for a pool in transaction mode. Here, false means that each client has a session of its
/// own, where that cannot be found out.
pub(in crate::engine::postgres) const PGBOUNCER: &str = "pgbouncer";

/// Parameters that other programs put into their URLs for their own use, and the names of these programs.
const FOREIGN: &[(&str, &[&str])] = &[
    (
        "SQLAlchemy and its drivers",
        &[
            "async_creator_fn",
            "async_fallback",
            "charset",
            "command_timeout",
            "direct_tls",
            "echo",
            "executemany_mode",
            "max_overflow",
            "pool_pre_ping",
            "pool_recycle",
            "pool_size",
            "prepared_statement_cache_size",
            "prepared_statement_name_func",
            "server_settings",
            "ssl_context",
            "statement_cache_size",
            "timeout",
            "use_native_unicode",
        ],
    ),
    ("Prisma", &["connection_limit", PGBOUNCER, "pool_timeout", "schema", "socket_timeout", "sslaccept"]),
    (
        "the JDBC driver",
        &["ApplicationName", "currentSchema", "loginTimeout", "reWriteBatchedInserts", "socketTimeout", "sslfactory"],
    ),
    ("Go's drivers", &["default_query_exec_mode", "pool_max_conns", "pool_min_conns", "search_path", "TimeZone"]),
];

/// Returns true if `text` is a PostgreSQL connection string: a URL, or keywords with values.
#[must_use]
pub fn looks_like(text: &str) -> bool {
    let text = text.trim_start();
    if let Some((scheme, _)) = text.split_once("://") {
        return is_scheme(scheme);
    }
    match text.split_once('=') {
        Some((word, _)) => KEYWORDS.iter().any(|(name, _)| *name == word.trim_end()),
        None => false,
    }
}

/// Returns true if a URL with this scheme is for PostgreSQL. SQLAlchemy adds its driver's name after a plus sign.
fn is_scheme(scheme: &str) -> bool {
    let base = scheme.split('+').next().unwrap_or(scheme);
    base.eq_ignore_ascii_case("postgres") || base.eq_ignore_ascii_case("postgresql")
}

/// Splits `text` into keywords and values. Returns only keywords that libpq knows.
pub(in crate::engine::postgres) fn split(text: &str) -> Result<Pairs> {
    if text.contains('\0') {
        return Err(Error::usage("the connection string contains a zero byte"));
    }
    let text = text.trim();
    match text.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => url(rest),
        _ => keywords(text),
    }
}

/// The hint for characters that must be percent-encoded in a URL.
const ENCODE: &str = "in a user name or password, write %40 for @, %2F for /, %3A for :, %3F for ?, %25 for %";

/// Parses the URL form, without the scheme and `://`.
fn url(text: &str) -> Result<Pairs> {
    let mut pairs = Pairs::new();
    let mut rest = text;
    // libpq looks for the end of the user part only before the first slash.
    if let Some(end) = rest.find(['@', '/']).filter(|end| rest[*end..].starts_with('@')) {
        let (user, password) = match rest[..end].split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (&rest[..end], None),
        };
        if !user.is_empty() {
            pairs.push(("user".to_owned(), decode(user, "user")?));
        }
        if let Some(password) = password.filter(|password| !password.is_empty()) {
            pairs.push(("password".to_owned(), decode(password, "password")?));
        }
        rest = &rest[end + 1..];
    }
    let (hosts, ports, rest) = hosts_and_ports(rest)?;
    if hosts.iter().any(|host| !host.is_empty()) {
        pairs.push(("host".to_owned(), hosts.join(",")));
    }
    if ports.iter().any(|port| !port.is_empty()) {
        pairs.push(("port".to_owned(), ports.join(",")));
    }
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, query),
        None => (rest, ""),
    };
    let database = path.strip_prefix('/').unwrap_or(path);
    if database.contains('@') {
        return Err(Error::usage("the PostgreSQL URL has an @ after its host").hint(ENCODE));
    }
    if !database.is_empty() {
        pairs.push(("dbname".to_owned(), decode(database, "database")?));
    }
    parameters(query, &mut pairs)?;
    Ok(pairs)
}

/// Parses the hosts and ports at the start of `rest`, and returns the text that follows them.
fn hosts_and_ports(mut rest: &str) -> Result<(Vec<String>, Vec<String>, &str)> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    loop {
        let host = match rest.strip_prefix('[') {
            Some(inside) => {
                let (address, after) = inside
                    .split_once(']')
                    .ok_or_else(|| Error::usage("the PostgreSQL URL has a '[' without a matching ']'").hint(ENCODE))?;
                if !(after.is_empty() || after.starts_with([':', '/', '?', ','])) {
                    return Err(Error::usage("the PostgreSQL URL has unexpected text after the ']' of an address"));
                }
                rest = after;
                address
            }
            None => {
                let (host, after) = rest.split_at(rest.find([':', '/', '?', ',']).unwrap_or(rest.len()));
                rest = after;
                host
            }
        };
        // The rest of a password with a raw @ or / in it must not be taken for a host or a port, and then shown.
        if host.contains('@') {
            return Err(Error::usage("the PostgreSQL URL has more than one @ before its host").hint(ENCODE));
        }
        hosts.push(decode(host, "host")?);
        let mut port = "";
        if let Some(after) = rest.strip_prefix(':') {
            (port, rest) = after.split_at(after.find(['/', '?', ',']).unwrap_or(after.len()));
            if !port.chars().all(|digit| digit.is_ascii_digit()) {
                return Err(Error::usage("the PostgreSQL URL has a port that is not a number").hint(ENCODE));
            }
        }
        ports.push(port.to_owned());
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None => break,
        }
    }
    Ok((hosts, ports, rest))
}

/// Adds the parameters that follow the `?`.
fn parameters(query: &str, pairs: &mut Pairs) -> Result<()> {
    let mut names = Vec::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let Some((name, value)) = part.split_once('=') else {
            return Err(
                Error::usage("the PostgreSQL URL has a parameter without '='").hint("in a value, write %26 for &")
            );
        };
        let (name, value) = foreign_ssl(decode(name, "parameter")?, decode(value, "parameter")?);
        refuse_pooler(&name, &value, pairs)?;
        if (name.as_str(), value.as_str()) != (PGBOUNCER, "false") {
            require_known(&name, pairs)?;
        }
        if names.contains(&name) {
            return Err(Error::usage(format!("the PostgreSQL URL has the parameter {name} twice")));
        }
        names.push(name.clone());
        pairs.push((name, value));
    }
    Ok(())
}

/// Refuses a URL that says that it leads to a pool in transaction mode, as Prisma needs to know.
fn refuse_pooler(name: &str, value: &str, pairs: &Pairs) -> Result<()> {
    if name != PGBOUNCER || value != "true" {
        return Ok(());
    }
    let first = |keyword: &str| {
        let found = pairs.iter().find(|(name, _)| name == keyword);
        found.and_then(|(_, value)| value.split(',').next()).unwrap_or_default()
    };
    let way = hosted::way_around_pooler(first("host"), first("port").parse().unwrap_or(5432));
    Err(Error::usage("the PostgreSQL URL is of a pooler in transaction mode: it has pgbouncer=true")
        .hint(format!("{way}; and remove pgbouncer=true")))
}

/// Translates `ssl=...` of JDBC and asyncpg to libpq's `sslmode`.
fn foreign_ssl(name: String, value: String) -> (String, String) {
    if name != "ssl" {
        return (name, value);
    }
    let mode = match value.as_str() {
        "true" | "True" | "1" => "require".to_owned(),
        "false" | "False" | "0" => "disable".to_owned(),
        _ => value,
    };
    ("sslmode".to_owned(), mode)
}

/// Decodes percent-encoded text.
fn decode(text: &str, part: &str) -> Result<String> {
    let bad = || Error::usage(format!("the {part} in the PostgreSQL URL is not percent-encoded correctly"));
    let mut after = text.split('%');
    after.next();
    let encoded = |piece: &str| {
        piece.len() >= 2 && piece.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit) && &piece[..2] != "00"
    };
    if !after.all(encoded) {
        return Err(bad().hint("write %25 for a %"));
    }
    percent_decode_str(text).decode_utf8().map(|text| text.into_owned()).map_err(|_| bad().hint("it must be UTF-8"))
}

/// Parses the keyword form: `host=db dbname='a b'`.
fn keywords(text: &str) -> Result<Pairs> {
    const QUOTE: &str = "put single quotes around a value with spaces, and a backslash before each ' and \\ in it";
    let mut pairs = Pairs::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|character: char| character == '=' || character.is_whitespace()).unwrap_or(rest.len());
        let name = &rest[..end];
        let Some(after) = rest[end..].trim_start().strip_prefix('=') else {
            return Err(Error::usage("the connection string has a word without '=' after it").hint(QUOTE));
        };
        require_known(name, &pairs)?;
        rest = after.trim_start();
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let quoted = rest.starts_with('\'');
        if quoted {
            characters.next();
        }
        let mut end = rest.len();
        let mut closed = !quoted;
        while let Some((index, character)) = characters.next() {
            match character {
                '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
                '\'' if quoted => {
                    (end, closed) = (index + 1, true);
                    break;
                }
                space if !quoted && space.is_whitespace() => {
                    end = index;
                    break;
                }
                other => value.push(other),
            }
        }
        if !closed {
            return Err(Error::usage("the connection string has a quote that is not closed").hint(QUOTE));
        }
        pairs.push((name.to_owned(), value));
        rest = rest[end..].trim_start();
    }
    Ok(pairs)
}

/// Refuses a keyword that libpq does not know. After a password, the name may be a part of the password and is not
/// shown.
fn require_known(name: &str, before: &Pairs) -> Result<()> {
    if KEYWORDS.iter().any(|(known, _)| *known == name) {
        return Ok(());
    }
    if let Some((owner, _)) = FOREIGN.iter().find(|(_, names)| names.contains(&name)) {
        return Err(Error::usage(format!("'{name}' is an option of {owner}, not of PostgreSQL"))
            .hint(format!("remove '{name}' from the connection string")));
    }
    if before.last().is_some_and(|(name, _)| name == "password") {
        return Err(Error::usage("there is an unknown parameter after the password")
            .hint("if the password contains a space or &, put quotes around it; in a URL, write %20 and %26"));
    }
    let hint = match name {
        "database" | "db" => "the parameter for the database is 'dbname'",
        "username" => "the parameter for the user is 'user'",
        "pass" | "passwd" | "pwd" => "the parameter for the password is 'password'",
        _ => "use the parameters of libpq: host, port, dbname, user, sslmode and so on",
    };
    Err(Error::usage(format!("PostgreSQL connections have no parameter '{name}'")).hint(hint))
}

/// Encodes `text` for use in a URL: everything but letters, digits and `-._~` is percent-encoded.
pub(in crate::engine::postgres) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_alphanumeric() || "-._~".contains(character) {
            encoded.push(character);
        } else {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                encoded.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn shown(text: &str) -> String {
        let pairs = split(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }

    /// The examples of libpq's own test (src/interfaces/libpq/t/001_uri.pl), and some additional ones.
    #[test]
    fn urls_are_read_as_libpq_reads_them() {
        for (url, pairs) in [
            (
                "postgresql://uri-user:secret@host:12345/db",
                "user=uri-user password=secret host=host port=12345 dbname=db",
            ),
            ("postgresql://uri-user@host:12345/db", "user=uri-user host=host port=12345 dbname=db"),
            ("postgresql://uri-user@host/db", "user=uri-user host=host dbname=db"),
            ("postgresql://host:12345/db", "host=host port=12345 dbname=db"),
            ("postgresql://uri-user@host:12345/", "user=uri-user host=host port=12345"),
            ("postgresql://uri-user@", "user=uri-user"),
            ("postgresql://host:12345", "host=host port=12345"),
            ("postgresql://", ""),
            ("postgresql:///", ""),
            ("postgresql:///db", "dbname=db"),
            ("postgresql://uri-user@/db", "user=uri-user dbname=db"),
            ("postgresql://?host=uri-host", "host=uri-host"),
            ("postgresql://uri-user@host?sslmode=require", "user=uri-user host=host sslmode=require"),
            ("postgres://[::1]:5433/db", "host=::1 port=5433 dbname=db"),
            ("postgres://[2001:db8::1234]/", "host=2001:db8::1234"),
            ("postgres://[::1]?host=other", "host=::1 host=other"),
            ("postgres://h1:1,h2,[::3]:3/db", "host=h1,h2,::3 port=1,,3 dbname=db"),
            ("postgres://%2Fvar%2Flib%2Fpg/dbname", "host=/var/lib/pg dbname=dbname"),
            ("postgresql:///mydb?host=/tmp&port=5433", "dbname=mydb host=/tmp port=5433"),
            ("postgres://us%65r:p%40ss%2Fword@host", "user=user password=p@ss/word host=host"),
            ("postgres://user:a:b@host", "user=user password=a:b host=host"),
            ("postgres://user:pa?ss@host/db", "user=user password=pa?ss host=host dbname=db"),
            ("postgres://user:@host", "user=user host=host"),
            ("postgres://:pw@host", "password=pw host=host"),
            ("postgres://host/d%C3%BCb", "host=host dbname=düb"),
            ("postgresql+psycopg2://u:p@h:1/d", "user=u password=p host=h port=1 dbname=d"),
            ("postgresql+asyncpg://u@h/d?ssl=require", "user=u host=h dbname=d sslmode=require"),
            ("postgres://h/d?ssl=true", "host=h dbname=d sslmode=require"),
            ("POSTGRES://h/d", "host=h dbname=d"),
            ("postgres://h/d?options=-c%20search_path%3Da&", "host=h dbname=d options=-c search_path=a"),
            ("postgres://h/d?options=-cx=y", "host=h dbname=d options=-cx=y"),
            ("postgres://h/a/b", "host=h dbname=a/b"),
        ] {
            assert_eq!(shown(url), pairs, "{url}");
        }
    }

    #[test]
    fn keywords_are_read_as_libpq_reads_them() {
        for (text, pairs) in [
            ("host=db dbname=app", "host=db dbname=app"),
            ("  host = db   port=5433 ", "host=db port=5433"),
            ("dbname='a b' user=x", "dbname=a b user=x"),
            (r"password='it\'s \\ ok' user=x", r"password=it's \ ok user=x"),
            (r"password=a\ b\\c user=x", r"password=a b\c user=x"),
            ("password='' user=x", "password= user=x"),
            ("user= dbname=x", "user=dbname=x"),
            ("service=prod", "service=prod"),
            ("host=a,b port=1,2", "host=a,b port=1,2"),
            ("dbname='a'user=b", "dbname=a user=b"),
            ("dbname=a'b", "dbname=a'b"),
            ("", ""),
        ] {
            assert_eq!(shown(text), pairs, "{text}");
        }
    }

    #[test]
    fn bad_text_is_refused_and_never_repeated() {
        for text in [
            "postgres://u:s3cr@t@host/db",
            "postgres://u:s3c/r@t@host/db",
            "postgres://u:1/s3cr@t@host/db",
            "postgres://u:s3crt/x@host/db",
            "postgres://u:s3cr%t@host/db",
            "postgres://u:s3cr%00t@host/db",
            "postgres://u:s3cr%fft@host/db",
            "postgres://h/db?password=s3c&rt=1",
            "postgres://h/db?password=s3c&rt",
            "postgres://h/db?user=a&user=s3c",
            "postgres://[s3c/db",
            "postgres://[s3c]rt/db",
            "postgres://h:s3c/db",
            "password=s3c rt user=x",
            "password=s3c rt=x",
            "password='s3c rt",
            "password=s3c 'rt'",
        ] {
            let error = split(text).map(drop).expect_err(text);
            let printed = format!("{error:?} {} {:?}", error.full_message(), error.hint);
            assert!(!printed.contains("s3c") && !printed.contains("rt="), "{text}: {printed}");
            assert_eq!(error.kind, crate::platform::error::Kind::Usage);
        }
    }

    #[test]
    fn an_option_of_another_program_is_reported_with_its_program() {
        let error = split("postgresql+asyncpg://h/d?prepared_statement_cache_size=0").map(drop).unwrap_err();
        assert!(error.message.contains("SQLAlchemy"), "{error}");
        let error = split("postgres://h/d?schema=public").map(drop).unwrap_err();
        assert!(error.message.contains("Prisma"), "{error}");
        let error = split("postgres://u:s3c@x-pooler.eu.aws.neon.tech/d?pgbouncer=true").map(drop).unwrap_err();
        assert!(error.message.contains("pooler in transaction mode"), "{error}");
        assert!(error.hint.as_deref().unwrap().contains("x.eu.aws.neon.tech"), "{error:?}");
        let error = split("host=h database=d").map(drop).unwrap_err();
        assert!(error.hint.as_deref().unwrap().contains("dbname"), "{error:?}");
    }

    #[test]
    fn connection_strings_are_recognized_among_paths_and_names() {
        for text in [
            "postgres://h/d",
            "postgresql+psycopg2://h/d",
            "POSTGRESQL://h",
            "host=x dbname=y",
            "service=prod",
            " dbname = y",
        ] {
            assert!(looks_like(text), "{text}");
        }
        for text in
            ["app.db", "./host=x", "sqlite:///x.db", "mysql://h/d", "app", "", "a=b", "data/dbname=1.db", "postgres"]
        {
            assert!(!looks_like(text), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".*", tail in "[a-z:@/%?&=,'\\\\\\[\\] ü]*") {
            let _ = looks_like(&text);
            let _ = split(&text);
            let _ = split(&format!("postgres://{tail}"));
            let _ = split(&format!("host={tail}"));
        }

        #[test]
        fn an_encoded_or_quoted_password_is_read_unchanged(password in "[^\0]+") {
            let url = split(&format!("postgres://u:{}@h/d", encode(&password))).unwrap();
            proptest::prop_assert_eq!(&url[1].1, &password);
            let quoted = password.replace('\\', "\\\\").replace('\'', "\\'");
            let words = split(&format!("password='{quoted}' host=h")).unwrap();
            proptest::prop_assert_eq!(&words[0].1, &password);
        }
    }

    #[test]
    fn encoded_text_decodes_to_the_original() {
        for text in ["plain", "a b", "ü/@:?#[]%", "日本", "..", "'\"\\"] {
            assert_eq!(decode(&encode(text), "test").unwrap(), text);
        }
        assert_eq!(encode("/var/run"), "%2Fvar%2Frun");
    }
}
