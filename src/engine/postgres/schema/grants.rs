//! Privileges as GRANT and REVOKE.
//!
//! A list of privileges is compared with the default privileges of a new object (`acldefault`), or, for objects that
//! belong to the system or to an extension, with the initial privileges (pg_init_privs).

use crate::engine::postgres::schema::gone_roles::GoneRoles;
use crate::engine::postgres::schema::object::Object;
use crate::engine::postgres::schema::quote;
use crate::engine::postgres::wire::session::Row;
use crate::platform::error::{Error, Result};

/// One entry of a list of privileges: a role, its privileges, and the role that granted them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    /// The role; empty for PUBLIC.
    grantee: String,
    /// The letters of the privileges without grant option.
    plain: Vec<char>,
    /// The letters of the privileges with grant option.
    with_grant: Vec<char>,
    /// The role that granted the privileges.
    grantor: String,
}

/// Returns the two columns of a query that [`add`] reads: `acl` and `acl_base`. `class` is the letter for acldefault():
/// r table, s sequence, f function, l language, L large object, n schema, F foreign data wrapper, S server, T type, d
/// database, c column.
#[must_use]
pub fn columns(class: char, acl: &str, owner: &str) -> String {
    format!("to_json({acl}::text[]) AS acl, to_json(acldefault('{class}', {owner})::text[]) AS acl_base")
}

/// Adds the grants of an object whose row has the [`columns`]. `word` is the kind as GRANT names it (`TABLE`,
/// `SEQUENCE`, `FUNCTION`, `TYPE`, ...), `name` the qualified and quoted name.
pub fn add(gone: &mut GoneRoles, object: &mut Object, row: &Row, word: &str, name: &str) -> Result<()> {
    if row.get("acl")?.is_none() {
        return Ok(());
    }
    let owner = object.owner.clone().unwrap_or_default();
    let target = Target { word, name, column: None, owner: &owner };
    let statements = statements(gone, object, &target, &row.list("acl")?, &row.list("acl_base")?)?;
    object.grants.extend(statements);
    Ok(())
}

/// An object, or a column of a table, that has privileges.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The kind of object as GRANT names it.
    pub word: &'a str,
    /// The qualified and quoted name.
    pub name: &'a str,
    /// The quoted name of a column, for `GRANT SELECT(column) ON TABLE name`; its base is the empty list.
    pub column: Option<&'a str>,
    /// The role that owns the object.
    pub owner: &'a str,
}

/// Returns the statements that change the privileges `base` to `acl`. The roles that they name are added to `object`;
/// those that do not exist are left out, and recorded in `gone`.
pub fn statements(
    gone: &mut GoneRoles,
    object: &mut Object,
    target: &Target<'_>,
    acl: &[String],
    base: &[String],
) -> Result<Vec<String>> {
    let Target { word, name, column, owner } = *target;
    let (mut entries, mut base) = (parse_all(acl)?, parse_all(base)?);
    remove_gone(gone, &mut entries, target);
    base.retain(|entry| !gone.is_gone(&entry.grantee) && !gone.is_gone(&entry.grantor));
    let every: Vec<char> = base
        .iter()
        .filter(|entry| entry.grantee == owner)
        .max_by_key(|entry| entry.plain.len())
        .map(|entry| entry.plain.clone())
        .unwrap_or_default();
    let part = column.map(|column| format!("({column})")).unwrap_or_default();
    let mut statements = Vec::new();
    for revoked in base.iter().filter(|entry| !entries.contains(entry)) {
        // REVOKE ALL, not single privileges: the objects of a newer server may start with privileges that this server
        // does not know.
        statements.push(format!("REVOKE ALL{part} ON {word} {name} FROM {}", grantee(&revoked.grantee)));
        object.role(&revoked.grantee);
    }
    for entry in entries.iter().filter(|entry| !base.contains(entry)) {
        let is_other_grantor = !entry.grantor.is_empty() && entry.grantor != owner;
        if is_other_grantor {
            statements.push(format!("SET ROLE {}", quote::ident(&entry.grantor)));
            object.role(&entry.grantor);
        }
        for (letters, suffix) in [(&entry.plain, ""), (&entry.with_grant, " WITH GRANT OPTION")] {
            if letters.is_empty() {
                continue;
            }
            let rights = rights(letters, &every, &part)?;
            statements.push(format!("GRANT {rights} ON {word} {name} TO {}{suffix}", grantee(&entry.grantee)));
        }
        object.role(&entry.grantee);
        if is_other_grantor {
            statements.push("RESET ROLE".to_owned());
        }
    }
    Ok(statements)
}

/// Removes the entries for roles that do not exist. What such a role granted to another role is still in effect, so it is
/// granted by the owner.
fn remove_gone(gone: &mut GoneRoles, entries: &mut Vec<Entry>, target: &Target<'_>) {
    let word = target.word.to_lowercase();
    let shown = match target.name {
        // Default privileges name no object.
        "" => format!("new {word}"),
        // The name of the database is left open.
        "\u{1}" => format!("the {word}"),
        name => format!("{word} {name}"),
    };
    for entry in entries.iter_mut() {
        let (is_gone, is_granted_by_gone) = (gone.is_gone(&entry.grantee), gone.is_gone(&entry.grantor));
        if is_gone {
            gone.record(&entry.grantee, &shown);
        } else if is_granted_by_gone {
            gone.record(&entry.grantor, &shown);
            entry.grantor = target.owner.to_owned();
        }
    }
    entries.retain(|entry| !gone.is_gone(&entry.grantee));
}

/// Returns the statements of `ALTER DEFAULT PRIVILEGES ...` for a list of default privileges. They name no object.
pub fn default_statements(
    gone: &mut GoneRoles,
    object: &mut Object,
    prefix: &str,
    (word, owner): (&str, &str),
    acl: &[String],
    base: &[String],
) -> Result<Vec<String>> {
    let plain = statements(gone, object, &Target { word, name: "", column: None, owner }, acl, base)?;
    Ok(plain
        .into_iter()
        .filter(|statement| statement.starts_with("GRANT") || statement.starts_with("REVOKE"))
        .map(|statement| {
            format!("{prefix} {}", statement.replacen(&format!(" ON {word}  "), &format!(" ON {word} "), 1))
        })
        .collect())
}

fn grantee(name: &str) -> String {
    if name.is_empty() { "PUBLIC".to_owned() } else { quote::ident(name) }
}

/// Returns the words for the letters; `ALL` if the letters are all that the object has.
fn rights(letters: &[char], every: &[char], part: &str) -> Result<String> {
    if !every.is_empty() && letters.len() == every.len() && every.iter().all(|letter| letters.contains(letter)) {
        return Ok(format!("ALL{part}"));
    }
    let mut words = Vec::with_capacity(letters.len());
    for letter in letters {
        words.push(format!("{}{part}", word(*letter)?));
    }
    Ok(words.join(", "))
}

/// Returns the word for the letter of a privilege.
fn word(letter: char) -> Result<&'static str> {
    Ok(match letter {
        'r' => "SELECT",
        'w' => "UPDATE",
        'a' => "INSERT",
        'd' => "DELETE",
        'D' => "TRUNCATE",
        'x' => "REFERENCES",
        't' => "TRIGGER",
        'm' => "MAINTAIN",
        'X' => "EXECUTE",
        'U' => "USAGE",
        'C' => "CREATE",
        'T' => "TEMPORARY",
        'c' => "CONNECT",
        's' => "SET",
        'A' => "ALTER SYSTEM",
        other => return Err(Error::failed(format!("the server returned the unknown privilege '{other}'"))),
    })
}

fn parse_all(items: &[String]) -> Result<Vec<Entry>> {
    items.iter().map(|item| parse(item)).collect()
}

/// Parses `grantee=letters/grantor`. A star follows the letter of a privilege with grant option.
fn parse(item: &str) -> Result<Entry> {
    let invalid = || Error::failed(format!("the server returned the invalid privileges '{item}'"));
    let (grantee, rest) = role(item).ok_or_else(invalid)?;
    let rest = rest.strip_prefix('=').ok_or_else(invalid)?;
    let (letters, grantor) = rest.split_once('/').ok_or_else(invalid)?;
    let (grantor, _) = role(grantor).ok_or_else(invalid)?;
    let mut entry = Entry { grantee, plain: Vec::new(), with_grant: Vec::new(), grantor };
    for letter in letters.chars() {
        if letter == '*' {
            let last = entry.plain.pop().ok_or_else(invalid)?;
            entry.with_grant.push(last);
        } else {
            entry.plain.push(letter);
        }
    }
    Ok(entry)
}

/// Returns the role's name at the start of `text`, and the text that follows it.
fn role(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut quoted = false;
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' if quoted && letters.peek().is_some_and(|(_, next)| *next == '"') => {
                letters.next();
                name.push('"');
            }
            '"' => quoted = !quoted,
            '=' | '/' if !quoted => return Some((name, &text[at..])),
            _ => name.push(letter),
        }
    }
    (!quoted).then_some((name, ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::postgres::schema::object::{Address, Kind};

    fn run(owner: &str, acl: &[&str], base: &[&str]) -> Vec<String> {
        let mut object = Object::new(Address::default(), Kind::Table, None, "t");
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        let target = Target { word: "TABLE", name: "public.t", column: None, owner };
        let mut gone = GoneRoles::default();
        statements(&mut gone, &mut object, &target, &list(acl), &list(base)).expect("valid lists")
    }

    #[test]
    fn roles_that_do_not_exist_are_left_out_and_what_they_granted_is_kept() {
        assert_eq!(
            run("o", &["o=arwdDxt/o", "16999=r/o", "x=r/16999"], &["o=arwdDxt/o", "16998=r/o"]),
            ["GRANT SELECT ON TABLE public.t TO x"]
        );
    }

    #[test]
    fn equal_lists_need_no_statement() {
        assert!(run("o", &["o=arwdDxt/o"], &["o=arwdDxt/o"]).is_empty());
    }

    #[test]
    fn grants_and_revokes_in_order() {
        assert_eq!(
            run("o", &["o=r/o", "\"A \"\"b=\"=r*w/o", "=r/g"], &["o=arwdDxt/o"]),
            [
                "REVOKE ALL ON TABLE public.t FROM o",
                "GRANT SELECT ON TABLE public.t TO o",
                "GRANT UPDATE ON TABLE public.t TO \"A \"\"b=\"",
                "GRANT SELECT ON TABLE public.t TO \"A \"\"b=\" WITH GRANT OPTION",
                "SET ROLE g",
                "GRANT SELECT ON TABLE public.t TO PUBLIC",
                "RESET ROLE",
            ]
        );
    }

    #[test]
    fn all_privileges_are_granted_as_all() {
        assert_eq!(run("o", &["o=arw/o", "x=arw/o"], &["o=arw/o"]), ["GRANT ALL ON TABLE public.t TO x"]);
    }
}
