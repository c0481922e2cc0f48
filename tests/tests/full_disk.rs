//! A disk that is full: a small file system in memory, in a mount namespace of its own. Every command that writes
//! says so, leaves no half file, and takes nothing away.
//!
//! Where no namespace may be made, the file size limit of the process stands in for it, and that is said.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on fails; one that leaves something out says so"
)]

use std::path::Path;
use std::process::{Command, Output};

use domicile_tests::program::{path, program, samples, succeed};

/// A shell that sees a file system of 256 KiB at `small/`.
fn on_a_small_disk(directory: &Path, script: &str) -> Option<Output> {
    let small = directory.join("small");
    std::fs::create_dir_all(&small).unwrap();
    let script = format!("mount -t tmpfs -o size=256k none small && {{\n{script}\n}}");
    for unshare in [&["-m"][..], &["-r", "-m"]] {
        let probe = "mount -t tmpfs -o size=4k none small";
        let mut shell = Command::new("unshare");
        let works = shell.args(unshare).args(["bash", "-c", probe]).current_dir(directory).output();
        if works.is_ok_and(|output| output.status.success()) {
            let mut shell = Command::new("unshare");
            shell.args(unshare).args(["bash", "-c", &script]).current_dir(directory);
            return Some(shell.env("PATH", search_path()).env("SAMPLES", samples()).output().unwrap());
        }
    }
    eprintln!("SKIPPED: no file system can be mounted here, so that none is full");
    None
}

fn search_path() -> String {
    format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", path().parent().unwrap().display())
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A place with a sealed file of a megabyte.
fn place() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let domicile = || {
        let mut command = program();
        command.current_dir(&directory);
        command
    };
    succeed(domicile().arg("init"));
    succeed(domicile().args(["home", "choose", "acme", "all", "--region", "eu-central-1"]));
    std::fs::write(directory.path().join("large.log"), "a line of a log\n".repeat(1 << 16)).unwrap();
    succeed(domicile().args([
        "seal",
        "large.log",
        "--tenant",
        "acme",
        "--type",
        "voice",
        "-o",
        "large.dseg",
    ]));
    directory
}

#[test]
fn no_half_file_is_left_on_a_disk_that_is_full() {
    let directory = place();
    let Some(output) = on_a_small_disk(
        directory.path(),
        r#"
        domicile seal large.log --tenant acme --type voice -o small/out.dseg; echo "code $?"
        domicile open large.dseg --purpose billing -o small/out.log; echo "code $?"
        printf 'tenant,type\n' > words.csv; yes 'acme,voice' | head -100000 >> words.csv
        domicile seal words.csv --route tenant=tenant,type=type -o small/routed; echo "code $?"
        ls -A small | wc -l
        # What was there is as it was.
        cp "$SAMPLES/voice.csv" small/kept.dseg
        domicile seal large.log --tenant acme --type voice -o small/kept.dseg --force; echo "code $?"
        cmp small/kept.dseg "$SAMPLES/voice.csv" && ls -A small
        "#,
    ) else {
        return;
    };
    let said = said(&output);
    assert_eq!(said.matches("code 1\n").count(), 4, "{said}");
    assert_eq!(said.matches("free some room on the disk").count(), 4, "{said}");
    assert!(said.contains("code 1\n0\n"), "something was left: {said}");
    assert!(said.contains("code 1\nkept.dseg\n"), "{said}");
}

#[test]
fn a_place_is_not_half_set_up_on_a_disk_that_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let Some(output) = on_a_small_disk(
        directory.path(),
        r#"
        # Room for one page more each time: for the directory, for a key file or two, for half of a store.
        for pages in 1 2 3 4 5 6 7 9 12 16 20 24; do
            head -c $((262144 - pages * 4096)) /dev/zero > small/full
            domicile init small; echo "code $? left $(ls -A small)"
            rm -rf small/*
        done
        domicile init small > /dev/null && echo "and then code $?"
        "#,
    ) else {
        return;
    };
    let said = said(&output);
    let tries: Vec<_> = said.lines().filter(|line| line.starts_with("code ")).collect();
    assert_eq!(tries.len(), 12, "{said}");
    for line in tries {
        assert!(!line.starts_with("code 0") && line.ends_with(" left full"), "{line}: {said}");
    }
    assert!(said.contains("and then code 0"), "{said}");
}

#[test]
fn no_key_is_used_that_the_key_store_has_no_room_for() {
    let directory = tempfile::tempdir().unwrap();
    let Some(output) = on_a_small_disk(
        directory.path(),
        r#"
        domicile init small > /dev/null && cd small && rm -f domicile.db-wal domicile.db-shm
        domicile home choose acme all --region eu-central-1; echo "code $?"
        cat /dev/zero > full 2> /dev/null
        domicile seal "$SAMPLES/voice.csv" --tenant acme --type voice -o ../out.dseg; echo "code $?"
        domicile home choose globex all --region eu-central-1; echo "code $?"
        ls ..
        rm full
        domicile home list
        domicile seal "$SAMPLES/voice.csv" --tenant acme --type voice -o ../out.dseg; echo "code $?"
        domicile open ../out.dseg --purpose billing | cmp - "$SAMPLES/voice.csv"; echo "code $?"
        "#,
    ) else {
        return;
    };
    let said = said(&output);
    let codes: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("code ")).collect();
    assert_eq!(codes, ["0", "6", "6", "0", "0"], "{said}");
    assert!(said.contains("acme") && !said.contains("globex    "), "{said}");
}

#[test]
fn a_file_that_may_not_grow_is_an_error_and_no_file() {
    let directory = place();
    let script = "trap '' XFSZ; ulimit -f 64\n\
                  domicile seal large.log --tenant acme --type voice -o out.dseg; echo \"code $?\"\n\
                  domicile open large.dseg --purpose billing -o out.log; echo \"code $?\"";
    let output = Command::new("bash")
        .args(["-c", script])
        .current_dir(&directory)
        .env("PATH", search_path())
        .output()
        .unwrap();
    assert_eq!(said(&output).matches("code 1\n").count(), 2, "{}", said(&output));
    for name in ["out.dseg", "out.log", "out.log.partial"] {
        assert!(!directory.path().join(name).exists(), "{name}");
    }
    let left: Vec<_> =
        std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".part")), "{left:?}");
}
