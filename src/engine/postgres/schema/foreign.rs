//! Foreign data wrappers, servers and user mappings. Passwords are never written to an archive.

use crate::engine::postgres::schema::object::catalogs;
use crate::engine::postgres::schema::schemas::function_name;
use crate::engine::postgres::schema::{Address, FIRST_NORMAL_OID, Kind, Object, Reader, grants, quote};
use crate::platform::error::Result;

/// Reads the foreign data wrappers.
pub(super) fn wrappers(reader: &mut Reader) -> Result<()> {
    let rows = reader.rows(&format!(
        "SELECT w.oid, w.fdwname AS name, pg_catalog.pg_get_userbyid(w.fdwowner) AS owner, {} AS handler, \
         {} AS validator, to_json(w.fdwoptions) AS options, {} \
         FROM pg_catalog.pg_foreign_data_wrapper w WHERE w.oid >= {FIRST_NORMAL_OID}",
        function_name("w.fdwhandler"),
        function_name("w.fdwvalidator"),
        grants::columns('F', "w.fdwacl", "w.fdwowner")
    ))?;
    for row in rows {
        let name = row.text("name")?;
        let address = Address::new(catalogs::FOREIGN_DATA_WRAPPER, row.number("oid")?);
        if reader.is_member(address) {
            continue;
        }
        let mut object = Object::new(address, Kind::ForeignDataWrapper, None, name);
        let quoted = quote::ident(name);
        object.identity = format!("FOREIGN DATA WRAPPER {quoted}");
        let mut create = format!("CREATE {}", object.identity);
        for (word, column) in [("HANDLER", "handler"), ("VALIDATOR", "validator")] {
            if let Some(function) = row.get(column)? {
                create.push_str(&format!(" {word} {function}"));
            }
        }
        create.push_str(&options(reader, &row.list("options")?, &format!("the foreign data wrapper {quoted}")));
        object.create.push(create);
        object.own(row.text("owner")?);
        grants::add(&mut reader.gone_roles, &mut object, &row, "FOREIGN DATA WRAPPER", &quoted)?;
        reader.add(object);
    }
    Ok(())
}

/// Reads the foreign servers.
pub(super) fn servers(reader: &mut Reader) -> Result<()> {
    let rows = reader.rows(&format!(
        "SELECT s.oid, s.srvname AS name, pg_catalog.pg_get_userbyid(s.srvowner) AS owner, s.srvtype AS type, \
         s.srvversion AS version, w.fdwname AS wrapper, to_json(s.srvoptions) AS options, {} \
         FROM pg_catalog.pg_foreign_server s JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw \
         WHERE s.oid >= {FIRST_NORMAL_OID}",
        grants::columns('S', "s.srvacl", "s.srvowner")
    ))?;
    for row in rows {
        let name = row.text("name")?;
        let address = Address::new(catalogs::FOREIGN_SERVER, row.number("oid")?);
        if reader.is_member(address) {
            continue;
        }
        let mut object = Object::new(address, Kind::ForeignServer, None, name);
        let quoted = quote::ident(name);
        object.identity = format!("SERVER {quoted}");
        let mut create = format!("CREATE SERVER {quoted}");
        for (word, column) in [("TYPE", "type"), ("VERSION", "version")] {
            if let Some(value) = row.get(column)? {
                create.push_str(&format!(" {word} {}", quote::literal(value)));
            }
        }
        create.push_str(&format!(" FOREIGN DATA WRAPPER {}", quote::ident(row.text("wrapper")?)));
        create.push_str(&options(reader, &row.list("options")?, &format!("the foreign server {quoted}")));
        object.create.push(create);
        object.own(row.text("owner")?);
        grants::add(&mut reader.gone_roles, &mut object, &row, "FOREIGN SERVER", &quoted)?;
        reader.add(object);
    }
    Ok(())
}

/// Reads the user mappings.
pub(super) fn user_mappings(reader: &mut Reader) -> Result<()> {
    // The view shows a mapping's options only to roles that may use them. Without the view, not even a superuser of a
    // hosted server could read any. The view's rule is repeated here to distinguish missing options from hidden ones.
    let rows = reader.rows(
        "SELECT m.umid AS oid, m.umuser AS user, m.usename AS name, m.srvname AS server, \
         to_json(m.umoptions) AS options, m.umoptions IS NOT NULL \
         OR (m.umuser <> 0 AND m.usename = current_user AND (pg_catalog.pg_has_role(s.srvowner, 'USAGE') \
         OR pg_catalog.has_server_privilege(s.oid, 'USAGE'))) \
         OR (m.umuser = 0 AND pg_catalog.pg_has_role(s.srvowner, 'USAGE')) \
         OR (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user) AS visible \
         FROM pg_catalog.pg_user_mappings m JOIN pg_catalog.pg_foreign_server s ON s.oid = m.srvid",
    )?;
    for row in rows {
        let server = row.text("server")?;
        let public = row.text("user")? == "0";
        let Some(name) = row.get("name")? else {
            let number = row.text("user")?;
            reader.notes.push(format!(
                "the user mapping for the server {} was left out: its role {number} does not exist",
                quote::ident(server)
            ));
            continue;
        };
        let user = if public { "PUBLIC".to_owned() } else { quote::ident(name) };
        let what = format!("FOR {user} SERVER {}", quote::ident(server));
        if !row.flag("visible")? {
            reader.refused.push(format!("the user mapping {what}: the role may not read its options"));
            continue;
        }
        let address = Address::new(catalogs::USER_MAPPING, row.number("oid")?);
        let mut object = Object::new(address, Kind::UserMapping, None, &format!("{name} {server}"));
        if !public {
            object.role(name);
        }
        let options = options(reader, &row.list("options")?, &format!("the user mapping {what}"));
        object.create.push(format!("CREATE USER MAPPING {what}{options}"));
        reader.add(object);
    }
    Ok(())
}

/// Returns the options as a clause. Options whose name marks them as secrets are left out and noted.
pub(super) fn options(reader: &mut Reader, options: &[String], subject: &str) -> String {
    let mut clauses = Vec::new();
    for option in options {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        if is_secret(name) {
            reader.notes.push(format!("{subject}: the option {name} is a secret and was left out"));
        } else {
            clauses.push(format!("{} {}", quote::ident(name), quote::literal(value)));
        }
    }
    if clauses.is_empty() { String::new() } else { format!(" OPTIONS (\n    {}\n)", clauses.join(",\n    ")) }
}

/// Returns true if an option of this name holds a secret.
fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    let ends = ["password", "passwd", "passphrase", "pwd", "secret", "token", "secret_key", "private_key", "api_key"];
    ends.iter().any(|end| name.ends_with(end)) || name == "passcode" || name == "aws_secret_access_key"
}

#[cfg(test)]
mod tests {
    use crate::engine::postgres::schema::foreign::is_secret;

    #[test]
    fn secrets_are_recognized_by_name() {
        assert!(is_secret("password") && is_secret("sslpassword") && is_secret("Secret"));
        assert!(!is_secret("user") && !is_secret("password_required") && !is_secret("host"));
    }
}
