//! Root creates a folder in the folder of another user, who exchanges that one for a link at this instant.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::common::prepare;
use crate::strace::can_trace;
use crate::support::{LIFEBOAT, Sandbox, sample};

const OTHER: u32 = 12345;

#[test]
fn no_folder_is_created_beyond_a_link_that_was_put_there_at_this_instant() {
    if !rustix::process::geteuid().is_root() || !can_trace() {
        return;
    }
    for (arguments, name) in [
        (&["extract", "latest", "--to", "data/place/new", "--store", "backups"][..], ".lifeboat-extract-"),
        (&["drill", "latest", "--scratch", "data/place", "--store", "backups"], "lifeboat-scratch-"),
    ] {
        let sandbox = Sandbox::new();
        fs::set_permissions(sandbox.root(), fs::Permissions::from_mode(0o755)).unwrap();
        sample(sandbox.path("app.db"), 3, "delete");
        sandbox.snapshot("app.db");
        for folder in ["data", "data/place", "private"] {
            fs::create_dir(sandbox.path(folder)).unwrap();
        }
        symlink(sandbox.path("private"), sandbox.path("data/link")).unwrap();
        for owned in ["data", "data/place", "data/link"] {
            lchown(sandbox.path(owned), Some(OTHER), Some(OTHER)).unwrap();
        }
        // Also if the folder is removed at the end.
        let changed_at = || fs::metadata(sandbox.path("private")).unwrap().modified().unwrap();
        let before = changed_at();

        let log = sandbox.path("strace.log");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o"]).arg(&log).args(["-e", "trace=mkdir,mkdirat"]);
        command.args(["-e", "inject=mkdir,mkdirat:delay_enter=1000000"]).arg(LIFEBOAT).args(arguments);
        prepare(&mut command, sandbox.root());
        let running = sandbox.start_command(command);
        let start = Instant::now();
        // The call is in the log as soon as it begins, and its end follows a second later.
        while !fs::read_to_string(&log).is_ok_and(|text| text.contains(name)) {
            assert!(start.elapsed() < Duration::from_secs(60), "no folder {name} is created");
            std::thread::sleep(Duration::from_millis(5));
        }
        let (place, link) = (sandbox.path("data/place"), sandbox.path("data/link"));
        renameat_with(CWD, &place, CWD, &link, RenameFlags::EXCHANGE).unwrap();
        let run = running.finish();
        assert_eq!(changed_at(), before, "{}", run.transcript());
        assert!(matches!(run.exit(), 1..=3), "{}", run.transcript());
    }
}
