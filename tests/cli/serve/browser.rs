//! The status page in a real browser: Debian's chromium, headless. LIFEBOAT_TEST_ARTIFACTS can name a folder in which
//! the screenshots are kept.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::helpers::{ServeProcess, app, sql};
use crate::support::{Sandbox, have};

/// Returns the command that starts the browser with this folder for its profile, for at most 100 seconds.
fn chromium(profile: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.args([
        "100",
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
    ]);
    command.args(["--hide-scrollbars", "--enable-logging=stderr", "--v=0", "--allow-file-access-from-files"]);
    command.arg(format!("--user-data-dir={}", profile.display())).env("HOME", profile);
    command
}

/// Runs the browser. It sometimes crashes at its start in a container, whatever the page is: then it ends with an error,
/// or prints nothing, and is started again, at most twice. What it prints about the page is left to the caller.
fn browse(command: &mut Command, is_complete: impl Fn(&Output) -> bool) -> Output {
    let mut run = command.output().unwrap();
    for _ in 0..2 {
        if run.status.success() && is_complete(&run) {
            break;
        }
        run = command.output().unwrap();
    }
    assert!(run.status.success() && is_complete(&run), "{command:?}: {}", String::from_utf8_lossy(&run.stderr));
    run
}

/// Returns the page as the browser has rendered it, and its messages.
fn rendered(profile: &Path, arguments: &[&str]) -> (String, String) {
    let is_complete = |run: &Output| String::from_utf8_lossy(&run.stdout).contains("</html>");
    let run = browse(chromium(profile).arg("--dump-dom").args(arguments), is_complete);
    (String::from_utf8_lossy(&run.stdout).into_owned(), String::from_utf8_lossy(&run.stderr).into_owned())
}

fn artifacts(sandbox: &Sandbox) -> PathBuf {
    let folder = std::env::var_os("LIFEBOAT_TEST_ARTIFACTS").map_or_else(|| sandbox.path("artifacts"), PathBuf::from);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Creates a source with five snapshots, the newest of which was drilled.
fn with_history() -> Sandbox {
    let sandbox = app();
    for number in 0..4 {
        sql(&sandbox, "app.db", &format!("INSERT INTO log VALUES ('{number}')"));
        sandbox.ok(&["snapshot", "--quiet"]);
    }
    sandbox.ok(&["drill", "--quiet"]);
    sandbox
}

#[test]
fn the_page_renders_without_an_error_and_its_plots_have_all_points() {
    if !have(&["chromium"]) {
        return;
    }
    let sandbox = with_history();
    let serve = ServeProcess::start(&sandbox);
    serve.wait_for_health(200, |_| true);
    let id = serve.get("/snapshots").json()["snapshots"][0]["id"].as_str().unwrap().to_owned();
    for path in ["/".to_owned(), format!("/snapshots/{id}"), "/snapshots/app-20200101T000000Z-0000".to_owned()] {
        let url = format!("http://{}{path}", serve.address);
        let (dom, log) = rendered(&sandbox.path("profile"), &[&url]);
        // The third page does not exist, and the browser logs its status 404 as an error.
        let errors = log.lines().filter(|line| line.contains("CONSOLE") && !line.contains("404 (Not Found)"));
        let errors: Vec<_> = errors.collect();
        assert!(errors.is_empty(), "{path}: {errors:?}");
        if path == "/" {
            assert_eq!(dom.matches("<circle").count(), 3 * 5, "three plots of five snapshots: {dom}");
            assert_eq!(dom.matches("<rect class=\"day").count(), 90);
            assert_eq!(dom.matches("<figure class=\"plot\">").count(), 3);
            assert!(dom.contains("1 days with good snapshots, 0 with failures, 0 without a full snapshot"), "{dom}");
        }
    }
}

#[test]
fn the_page_fits_a_phone_and_a_screen_in_light_and_dark_mode() {
    if !have(&["chromium"]) {
        return;
    }
    let sandbox = with_history();
    let folder = artifacts(&sandbox);
    let serve = ServeProcess::start(&sandbox);
    serve.wait_for_health(200, |_| true);
    let url = format!("http://{}/", serve.address);
    let mut pictures = Vec::new();
    for (name, size, dark) in [
        ("phone-light", "390,1600", false),
        ("phone-dark", "390,1600", true),
        ("screen-light", "1280,1200", false),
        ("screen-dark", "1280,1200", true),
    ] {
        let picture = folder.join(format!("page-{name}.png"));
        let mut command = chromium(&sandbox.path("profile"));
        command.arg(format!("--screenshot={}", picture.display())).arg(format!("--window-size={size}"));
        if dark {
            command.arg("--blink-settings=preferredColorScheme=0");
        }
        browse(command.arg(&url), |_| picture.is_file());
        pictures.push(std::fs::read(&picture).unwrap());
    }
    assert!(pictures.iter().all(|picture| picture.starts_with(b"\x89PNG") && picture.len() > 5_000));
    assert!(pictures[0] != pictures[1] && pictures[2] != pictures[3], "the page is the same in dark mode");

    // In a frame of each width, the page must not be wider than the frame. The page gets neither the header that
    // forbids frames nor the reload.
    let page = serve.get("/").body;
    let page = page.split_once("<meta http-equiv=\"Content-Security-Policy\"").unwrap();
    let page = format!("{}{}", page.0, page.1.split_once('>').unwrap().1);
    std::fs::write(sandbox.path("page.html"), page.replace("http-equiv=\"refresh\"", "name=\"none\"")).unwrap();
    for width in [320, 390, 768, 1280] {
        let frame = format!(
            "<!doctype html><iframe id=f src=page.html width={width} height=800 frameborder=0></iframe><p id=w></p><script>
             onload = () => {{ w.textContent = 'width ' + f.contentDocument.documentElement.scrollWidth + '.' }}</script>"
        );
        std::fs::write(sandbox.path("frame.html"), frame).unwrap();
        let url = format!("file://{}", sandbox.path("frame.html").display());
        let (dom, _) = rendered(&sandbox.path("profile"), &["--window-size=1400,900", &url]);
        assert!(dom.contains(&format!("width {width}.")), "at {width}: {dom}");
    }
}
