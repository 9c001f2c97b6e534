use crate::support::{Sandbox, sample};

#[test]
fn snapshot_of_a_database_is_listed() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 20, "wal");
    let id = sandbox.snapshot("app.db");
    assert_eq!(sandbox.ids(), [id]);
}
