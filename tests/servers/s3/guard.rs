//! `guard` with a store in S3: its lease, and the snapshots that it does not store because nothing has changed.

use super::helpers::Setup;
use crate::support::open;

on_every_server! {
    a_guard_stores_nothing_new_and_leaves_no_lease
}

fn a_guard_stores_nothing_new_and_leaves_no_lease(setup: &Setup) {
    let config = format!(
        "host = \"shop\"\n[[store]]\nurl = \"{}\"\n[[source]]\nname = \"app\"\nurl = \"app.db\"\n",
        setup.store
    );
    std::fs::write(setup.sandbox.path("lifeboat.toml"), config).unwrap();
    open(setup.sandbox.path("app.db")).execute_batch("CREATE TABLE a (b); INSERT INTO a VALUES (1)").unwrap();
    setup.ok(&["init"]);
    for _ in 0..3 {
        setup.run(&["guard", "--", "false"]).code(1);
    }
    assert_eq!(setup.ids(&setup.store).len(), 1);
    // While it runs, the lease of the guard is the third object. The other guard has no database.
    let script = "mv app.db away.db; \"$0\" guard --handover 1s -- true; code=$?; mv away.db app.db; exit $code";
    let run = setup.run(&["guard", "--", "sh", "-c", script, crate::support::LIFEBOAT]).code(3);
    assert!(run.stderr().contains("is still running"), "{}", run.transcript());
    std::fs::remove_file(setup.sandbox.path("app.db")).unwrap();
    let run = setup.run(&["guard", "--handover", "1s", "--", "true"]).code(0);
    assert!(
        !run.stderr().contains("is still running") && !run.stderr().contains("without its last"),
        "{}",
        run.transcript()
    );
    assert_eq!(setup.ids(&setup.store).len(), 1);
}
