//! System calls that fail: whichever it is, and whenever, what the program said to be safe is there, and what it left is closed.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on fails; what is left out must not look like what passed"
)]

use std::io::Write;
use std::path::Path;
use std::process::Command;

use domicile_tests::long_form;
use domicile_tests::program::{acknowledging, path, program, succeed};

const RECORDS: u64 = 400;

/// Runs the program with this injection; how many records it said to be safe.
fn acknowledged(place: &Path, out: &Path, injection: &str) -> u64 {
    let mut traced = Command::new("strace");
    traced
        .args(["-f", "-qq", "-o", "/dev/null", "-e"])
        .arg(format!("trace={}", injection.split(':').next().unwrap()))
        .arg("-e")
        .arg(format!("inject={injection}"))
        .arg(path());
    let mut child = acknowledging(traced, place, "1ms", out);
    let mut stdin = child.stdin.take().unwrap();
    let feeding = std::thread::spawn(move || {
        for number in 0..RECORDS {
            // A program that gave up reads nothing more.
            if stdin.write_all(format!("{number}\n").as_bytes()).is_err() {
                return;
            }
            if number % 40 == 39 {
                std::thread::sleep(std::time::Duration::from_millis(3));
            }
        }
    });
    let process = child.id().to_string();
    let (done, waiting) = std::sync::mpsc::channel();
    let watching = std::thread::spawn(move || {
        // One that hangs is a failure, and not a test without an end.
        let hangs = waiting.recv_timeout(std::time::Duration::from_secs(60)).is_err();
        if hangs {
            let killed = Command::new("pkill").args(["-KILL", "-P", &process]).status();
            assert!(killed.is_ok(), "what hangs cannot be killed");
        }
        hangs
    });
    let said = child.wait_with_output().unwrap();
    done.send(()).ok();
    assert!(!watching.join().unwrap(), "{injection}: it hung");
    feeding.join().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    said.lines().filter_map(|line| line.parse().ok()).max().unwrap_or(0)
}

#[test]
fn whatever_call_fails_what_was_said_to_be_safe_is_there() {
    let probe = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: strace is not here, or may not trace; scripts/test installs it");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    succeed(program().arg("init").arg(place.path()));
    let home = ["home", "choose", "acme", "voice", "--region", "eu-central-1"];
    succeed(program().current_dir(&place).args(home));
    let (mut runs, mut failed, mut safe_in_all) = (0, 0, 0);
    // Not `write`: threads wake one another by it, and a segment's cannot be told from those; disks that fail to write are simulated.
    let calls = ["pwrite64", "fdatasync", "fsync", "openat", "rename", "flock", "mkdir", "ftruncate"];
    let times: Vec<u32> = if long_form() { (1..40).collect() } else { vec![1, 2, 4, 9] };
    for call in calls {
        for error in ["EIO", "ENOSPC"] {
            for from in &times {
                let out = place.path().join(format!("out-{runs}"));
                runs += 1;
                let safe = acknowledged(
                    place.path(),
                    &out,
                    &format!("{call}:error={error}:when={from}..{}", from + 3),
                );
                failed += u32::from(safe < RECORDS);
                safe_in_all += safe;
                let what = format!("{call} {error} from {from}: {safe} were safe");
                let left = out.exists() && std::fs::read_dir(&out).unwrap().next().is_some();
                if !left {
                    assert_eq!(safe, 0, "{what}");
                    continue;
                }
                let closed = program().current_dir(&place).arg("recover").arg(&out).output().unwrap();
                if !closed.status.success() {
                    // A directory without a segment in it.
                    assert_eq!(safe, 0, "{what}: {}", String::from_utf8_lossy(&closed.stderr));
                    continue;
                }
                let mut open = program();
                open.current_dir(&place).args(["open", "--purpose", "support"]).arg(&out);
                let opened = open.output().unwrap();
                let text = String::from_utf8(opened.stdout).unwrap();
                let mut numbers: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
                numbers.sort_unstable();
                let first: Vec<u64> = numbers.iter().copied().take_while(|number| *number < safe).collect();
                assert_eq!(first, (0..safe).collect::<Vec<_>>(), "{what}");
            }
        }
    }
    assert!(
        failed > 5 && safe_in_all > RECORDS,
        "{failed} of {runs} runs met a fault, {safe_in_all} records"
    );
}
