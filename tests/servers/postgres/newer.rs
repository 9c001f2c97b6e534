//! Servers of a newer major version than those tested. No such server exists yet, so a proxy changes the version that a
//! server reports.

use std::os::unix::fs::PermissionsExt as _;

use lifeboat::engine::postgres::wire::majors::NEWEST;

use super::helpers::Setup;
use crate::support::postgres::servers;
use crate::support::proxy::Proxy;

#[test]
#[ignore = "needs PostgreSQL"]
fn a_newer_server_is_used_only_if_allowed_and_if_it_has_nothing_that_is_not_known() {
    let server = servers().pop().unwrap();
    let minor = server.version.split('.').nth(1).unwrap();
    let number = |major: u32| format!("{major}{minor:0>4}");
    let proxy = Proxy::start_replacing(server.port, &number(server.major), &number(NEWEST + 1));
    let url = |name: &str| {
        let url = server.url(name).replacen(&format!(":{}/", server.port), &format!(":{}/", proxy.port), 1);
        format!("{url}?sslmode=disable")
    };
    let setup = Setup::new(&server);
    let source = server.create_database("newer");
    source.psql("CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t VALUES (1), (2)");
    let version = format!("is PostgreSQL {}.{minor}, which this lifeboat was not tested with", NEWEST + 1);
    let snapshot = ["snapshot", &url(&source.name), "--name", "newer"];
    setup.run(&snapshot).code(2).says(&version).says("--allow-newer-server");
    let allowed = [&snapshot[..], &["--allow-newer-server"]].concat();
    setup.run(&allowed).code(0).says(&version);

    let new = server.reserve_database("newer_new");
    let restore = ["restore", "latest", "--to", &url(&new.name), "--create"];
    setup.run(&restore).code(2).says(&version).says("--allow-newer-server");
    setup.run(&[&restore[..], &["--allow-newer-server"]].concat()).code(0).says(&version);
    assert_eq!(new.value("SELECT count(*) FROM t"), "2");
    setup.run(&["drill", "latest", "--to", &url("postgres")]).code(2).says(&version);
    setup.run(&["drill", "latest", "--to", &url("postgres"), "--allow-newer-server"]).code(0);

    // Every command has the option.
    let config = format!(
        "[[store]]\nname = \"main\"\nurl = \"backups\"\n[[source]]\nname = \"newer\"\nurl = \"{}\"\n",
        url(&source.name)
    );
    let file = setup.sandbox.path("lifeboat.toml");
    std::fs::write(&file, config).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = setup.sandbox.command(arguments);
        command.env("PGPASSWORD", &server.password);
        setup.sandbox.finish(command)
    };
    let commands: [&[&str]; 6] = [
        &["check", "newer"],
        &["diff", "latest", "newer", "--source", "newer"],
        &["doctor", "newer"],
        &["predeploy", "newer"],
        &["postdeploy", "newer"],
        &["guard", "--", "true"],
    ];
    for command in commands {
        let refused = run(command);
        assert_ne!(refused.exit(), 0, "{}", refused.transcript());
        let shown = format!("{}{}", refused.stdout(), refused.stderr());
        assert!(shown.contains(&version) && shown.contains("--allow-newer-server"), "{}", refused.transcript());
        let allowed = [&["--allow-newer-server"], command].concat();
        run(&allowed).code(0);
    }
    std::fs::remove_file(&file).unwrap();

    // A catalog that is not known may be empty, but may not have rows.
    source.psql("SET allow_system_table_mods = on; CREATE TABLE pg_catalog.pg_propgraph_element (id integer)");
    setup.run(&allowed).code(0);
    source.psql("SET allow_system_table_mods = on; INSERT INTO pg_catalog.pg_propgraph_element VALUES (1)");
    setup.run(&allowed).code(1).says("the catalog pg_propgraph_element").says("property graphs");
    let replace = ["restore", "latest", "--replace", "--to", &url(&source.name), "--allow-newer-server"];
    setup.run(&replace).code(1).says("pg_propgraph_element").says("nothing was changed");
    source.psql("SET allow_system_table_mods = on; DROP TABLE pg_catalog.pg_propgraph_element");

    // A column that is not known may have values that objects of the system have, but no others.
    source.psql(
        "CREATE CONVERSION mine FOR 'LATIN1' TO 'UTF8' FROM pg_catalog.iso8859_1_to_utf8;
         SET allow_system_table_mods = on; ALTER TABLE pg_catalog.pg_conversion ADD COLUMN connew text;
         UPDATE pg_catalog.pg_conversion SET connew = 'as before'",
    );
    setup.run(&allowed).code(0);
    source.psql(
        "SET allow_system_table_mods = on; UPDATE pg_catalog.pg_conversion SET connew = 'x' WHERE conname = 'mine'",
    );
    setup.run(&allowed).code(1).says("the column pg_conversion.connew of the catalogs");
    setup.run(&[&allowed[..], &["--allow-partial"]].concat()).code(0).says("pg_conversion.connew");
}
