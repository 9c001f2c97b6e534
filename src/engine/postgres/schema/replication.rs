//! Publications, subscriptions and event triggers.

use crate::engine::postgres::schema::object::catalogs;
use crate::engine::postgres::schema::schemas::function_name;
use crate::engine::postgres::schema::{Address, Kind, Object, Reader, Section, quote};
use crate::engine::postgres::wire::majors::VERSION_16;
use crate::platform::error::Result;

/// Reads the publications and their members.
pub(super) fn publications(reader: &mut Reader) -> Result<()> {
    let generated = reader.since(180_000, "p.pubgencols", "'n'");
    let rows = reader.rows(&format!(
        "SELECT p.oid, p.pubname AS name, pg_catalog.pg_get_userbyid(p.pubowner) AS owner, p.puballtables AS all, \
         p.pubinsert AS insert, p.pubupdate AS update, p.pubdelete AS delete, p.pubtruncate AS truncate, \
         p.pubviaroot AS via_root, {generated} AS generated FROM pg_catalog.pg_publication p"
    ))?;
    for row in rows {
        let name = row.text("name")?;
        let address = Address::new(catalogs::PUBLICATION, row.number("oid")?);
        let mut object = Object::new(address, Kind::Publication, None, name).at(Section::Post);
        object.identity = format!("PUBLICATION {}", quote::ident(name));
        let mut operations = Vec::new();
        for word in ["insert", "update", "delete", "truncate"] {
            if row.flag(word)? {
                operations.push(word);
            }
        }
        let mut options = format!("publish = '{}'", operations.join(", "));
        if row.flag("via_root")? {
            options.push_str(", publish_via_partition_root = true");
        }
        match row.text("generated")? {
            "n" => {}
            "s" => options.push_str(", publish_generated_columns = stored"),
            other => reader.refused.push(format!("the publication {name}: publish_generated_columns is '{other}'")),
        }
        let all = if row.flag("all")? { " FOR ALL TABLES" } else { "" };
        object.create.push(format!("CREATE {}{all} WITH ({options})", object.identity));
        object.own(row.text("owner")?);
        reader.add(object);
    }
    publication_tables(reader)?;
    if reader.version() >= 150_000 { publication_schemas(reader) } else { Ok(()) }
}

fn publication_tables(reader: &mut Reader) -> Result<()> {
    let columns = reader.since(
        150_000,
        "pg_catalog.pg_get_expr(r.prqual, r.prrelid) AS condition, \
         (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY k.place) \
         FROM pg_catalog.unnest(r.prattrs::int2[]) WITH ORDINALITY k (number, place) \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = r.prrelid AND a.attnum = k.number) AS columns",
        "NULL AS condition, NULL AS columns",
    );
    let rows = reader.rows(&format!(
        "SELECT r.oid, p.oid AS publication_oid, p.pubname AS publication, n.nspname AS schema, c.oid AS table_oid, \
         c.relname AS table, {columns} FROM pg_catalog.pg_publication_rel r \
         JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid JOIN pg_catalog.pg_class c ON c.oid = r.prrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    ))?;
    for row in rows {
        let (publication, schema, table) = (row.text("publication")?, row.text("schema")?, row.text("table")?);
        let address = Address::new(catalogs::PUBLICATION_REL, row.number("oid")?);
        let name = format!("{publication} {table}");
        let mut object = Object::new(address, Kind::PublicationTable, Some(schema), &name).at(Section::Post);
        let table = Address::new(catalogs::CLASS, row.number("table_oid")?);
        object.table = Some(table);
        object.needs = vec![Address::new(catalogs::PUBLICATION, row.number("publication_oid")?), table];
        let mut create = format!(
            "ALTER PUBLICATION {} ADD TABLE ONLY {}",
            quote::ident(publication),
            quote::qualified(schema, row.text("table")?)
        );
        if let Some(columns) = row.get("columns")? {
            create.push_str(&format!(" ({columns})"));
        }
        if let Some(condition) = row.get("condition")? {
            create.push_str(&format!(" WHERE ({condition})"));
        }
        object.create.push(create);
        reader.add(object);
    }
    Ok(())
}

fn publication_schemas(reader: &mut Reader) -> Result<()> {
    let rows = reader.rows(
        "SELECT r.oid, p.oid AS publication_oid, p.pubname AS publication, n.oid AS schema_oid, n.nspname AS schema \
         FROM pg_catalog.pg_publication_namespace r JOIN pg_catalog.pg_publication p ON p.oid = r.pnpubid \
         JOIN pg_catalog.pg_namespace n ON n.oid = r.pnnspid",
    )?;
    for row in rows {
        let (publication, schema) = (row.text("publication")?, row.text("schema")?);
        let address = Address::new(catalogs::PUBLICATION_NAMESPACE, row.number("oid")?);
        let name = format!("{publication} {schema}");
        let mut object = Object::new(address, Kind::PublicationTable, Some(schema), &name).at(Section::Post);
        object.needs = vec![
            Address::new(catalogs::PUBLICATION, row.number("publication_oid")?),
            Address::new(catalogs::NAMESPACE, row.number("schema_oid")?),
        ];
        object.create.push(format!(
            "ALTER PUBLICATION {} ADD TABLES IN SCHEMA {}",
            quote::ident(publication),
            quote::ident(schema)
        ));
        reader.add(object);
    }
    Ok(())
}

/// Reads the subscriptions. They are restored disabled and without their slot: the source's subscription still uses the
/// slot, and dropping a copy that has the slot's name would drop the slot at the publisher.
pub(super) fn subscriptions(reader: &mut Reader) -> Result<()> {
    let in_database = "subdbid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())";
    let readable = reader
        .session
        .row("SELECT pg_catalog.has_column_privilege('pg_catalog.pg_subscription', 'subconninfo', 'SELECT') AS may")?;
    if !readable.flag("may")? {
        let names = format!("SELECT subname AS name FROM pg_catalog.pg_subscription WHERE {in_database}");
        for row in reader.rows(&names)? {
            let name = row.text("name")?;
            reader.refused.push(format!("the subscription {name}: only a superuser may read it"));
        }
        return Ok(());
    }
    let version = reader.version();
    let since = |since: u32, column: &'static str, otherwise: &'static str| {
        if version >= since { column } else { otherwise }
    };
    let rows = reader.rows(&format!(
        "SELECT s.oid, s.subname AS name, pg_catalog.pg_get_userbyid(s.subowner) AS owner, \
         s.subconninfo AS connection, s.subslotname AS slot, s.subsynccommit AS commit, \
         to_json(s.subpublications) AS publications, {} AS binary, {} AS streaming, {} AS two_phase, \
         {} AS disable_on_error, {} AS password_required, {} AS run_as_owner, {} AS origin, {} AS failover \
         FROM pg_catalog.pg_subscription s WHERE s.{in_database}",
        since(140_000, "s.subbinary", "false"),
        since(140_000, "s.substream::text", "'f'"),
        since(150_000, "s.subtwophasestate", "'d'"),
        since(150_000, "s.subdisableonerr", "false"),
        since(VERSION_16, "s.subpasswordrequired", "true"),
        since(VERSION_16, "s.subrunasowner", "false"),
        since(VERSION_16, "s.suborigin", "'any'"),
        since(170_000, "s.subfailover", "false"),
    ))?;
    for row in rows {
        let name = row.text("name")?;
        let address = Address::new(catalogs::SUBSCRIPTION, row.number("oid")?);
        let mut object = Object::new(address, Kind::Subscription, None, name).at(Section::Post);
        object.identity = format!("SUBSCRIPTION {}", quote::ident(name));
        let (connection, had_password) = without_password(row.text("connection")?);
        if had_password {
            reader.notes.push(format!("the subscription {name}: the password of its connection was left out"));
        }
        if let Some(slot) = row.get("slot")? {
            reader.notes.push(format!(
                "the subscription {name}: it is restored disabled and without its replication slot '{slot}', \
                 because the original subscription still uses it"
            ));
        }
        let mut options = vec!["connect = false".to_owned(), "slot_name = NONE".to_owned()];
        let mut put = |wanted: bool, option: &str| {
            if wanted {
                options.push(option.to_owned());
            }
        };
        put(row.flag("binary")?, "binary = true");
        let streaming = row.text("streaming")?;
        // The option is always written, because its default changed in version 18.
        put(version >= 140_000 && matches!(streaming, "f" | "false"), "streaming = off");
        put(matches!(streaming, "t" | "true"), "streaming = on");
        put(streaming == "p", "streaming = parallel");
        put(row.text("two_phase")? != "d", "two_phase = on");
        put(row.flag("disable_on_error")?, "disable_on_error = true");
        put(!row.flag("password_required")?, "password_required = false");
        put(row.flag("run_as_owner")?, "run_as_owner = true");
        put(row.flag("failover")?, "failover = true");
        let origin = row.text("origin")?;
        put(origin != "any", &format!("origin = {}", quote::literal(origin)));
        let commit = row.text("commit")?;
        put(commit != "off", &format!("synchronous_commit = {}", quote::literal(commit)));
        let publications: Vec<String> =
            row.list("publications")?.iter().map(|publication| quote::ident(publication)).collect();
        object.create.push(format!(
            "CREATE {} CONNECTION {} PUBLICATION {} WITH ({})",
            object.identity,
            quote::literal(&connection),
            publications.join(", "),
            options.join(", ")
        ));
        object.own(row.text("owner")?);
        reader.add(object);
    }
    Ok(())
}

/// Returns a libpq connection string without its passwords, and true if it had any.
fn without_password(connection: &str) -> (String, bool) {
    if connection.starts_with("postgres://") || connection.starts_with("postgresql://") {
        return url_without_password(connection);
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut had_password = false;
    let mut rest = connection.trim_start();
    while !rest.is_empty() {
        let length = setting_length(rest);
        let (setting, next) = rest.split_at(length);
        let name = setting.split('=').next().unwrap_or_default().trim();
        if matches!(name, "password" | "sslpassword") {
            had_password = true;
        } else {
            kept.push(setting.trim_end());
        }
        rest = next.trim_start();
    }
    (if had_password { kept.join(" ") } else { connection.to_owned() }, had_password)
}

/// Returns the length of the `name = value` at the start of `text`. The value may be quoted.
fn setting_length(text: &str) -> usize {
    let Some(equals) = text.find('=') else { return text.len() };
    let value = text[equals + 1..].trim_start();
    let start = text.len() - value.len();
    let quoted = value.starts_with('\'');
    let mut escaped = false;
    for (at, letter) in value.char_indices().skip(usize::from(quoted)) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\'' if quoted => return start + at + 1,
            letter if !quoted && letter.is_whitespace() => return start + at,
            _ => {}
        }
    }
    text.len()
}

fn url_without_password(url: &str) -> (String, bool) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (address, query) = rest.split_once('?').map_or((rest, None), |(address, query)| (address, Some(query)));
    let end = address.find('/').unwrap_or(address.len());
    let (authority, path) = address.split_at(end);
    let mut had_password = false;
    let authority = match authority.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((user, _)) => {
                had_password = true;
                format!("{user}@{host}")
            }
            None => authority.to_owned(),
        },
        None => authority.to_owned(),
    };
    let kept: Option<Vec<&str>> = query.map(|query| {
        let is_secret = |part: &&str| part.starts_with("password=") || part.starts_with("sslpassword=");
        had_password |= query.split('&').any(|part| is_secret(&part));
        query.split('&').filter(|part| !is_secret(part)).collect()
    });
    let query = kept.filter(|kept| !kept.is_empty()).map(|kept| format!("?{}", kept.join("&"))).unwrap_or_default();
    (format!("{scheme}://{authority}{path}{query}"), had_password)
}

/// Reads the event triggers. They are created last, so that they do not fire while a schema is restored.
pub(super) fn event_triggers(reader: &mut Reader) -> Result<()> {
    let rows = reader.rows(&format!(
        "SELECT e.oid, e.evtname AS name, e.evtevent AS event, pg_catalog.pg_get_userbyid(e.evtowner) AS owner, \
         {} AS function, e.evtenabled AS enabled, to_json(e.evttags) AS tags FROM pg_catalog.pg_event_trigger e",
        function_name("e.evtfoid")
    ))?;
    for row in rows {
        // Without its function, the check that nothing was missed notes it.
        let Some(function) = row.get("function")? else { continue };
        let name = row.text("name")?;
        let address = Address::new(catalogs::EVENT_TRIGGER, row.number("oid")?);
        let mut object = Object::new(address, Kind::EventTrigger, None, name).at(Section::Last);
        object.identity = format!("EVENT TRIGGER {}", quote::ident(name));
        let mut create = format!("CREATE {} ON {}", object.identity, quote::ident(row.text("event")?));
        let tags: Vec<String> = row.list("tags")?.iter().map(|tag| quote::literal(tag)).collect();
        if !tags.is_empty() {
            create.push_str(&format!("\n    WHEN TAG IN ({})", tags.join(", ")));
        }
        create.push_str(&format!("\n    EXECUTE FUNCTION {function}()"));
        object.create.push(create);
        let state = match row.text("enabled")? {
            "D" => Some("DISABLE"),
            "A" => Some("ENABLE ALWAYS"),
            "R" => Some("ENABLE REPLICA"),
            _ => None,
        };
        if let Some(state) = state {
            object.create.push(format!("ALTER {} {state}", object.identity));
        }
        object.own(row.text("owner")?);
        reader.add(object);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::engine::postgres::schema::replication::without_password;

    #[test]
    fn passwords_are_removed_from_connection_strings() {
        for (with, without) in [
            ("host=a password=b dbname=c", "host=a dbname=c"),
            ("password = 'it\\'s a b' host = a", "host = a"),
            ("host=a user='x y'", "host=a user='x y'"),
            ("postgres://u:p@h:5/d?sslmode=require&password=q", "postgres://u@h:5/d?sslmode=require"),
            ("postgresql://u@h/d?password=q", "postgresql://u@h/d"),
        ] {
            assert_eq!(without_password(with), (without.to_owned(), with != without), "{with}");
        }
    }
}
