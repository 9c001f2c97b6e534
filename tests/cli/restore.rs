use crate::support::{Sandbox, content, sample};

#[test]
fn restore_brings_every_row_back_to_a_new_file() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 20, "delete");
    sandbox.snapshot("app.db");
    sandbox.ok(&["restore", "latest", "--store", "backups", "--to", "copy.db"]);
    assert_eq!(content(sandbox.path("app.db")), content(sandbox.path("copy.db")));
}
