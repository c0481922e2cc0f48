//! `domicile serve`, `domicile ship` and `curl`: the programs, over loopback, with homes that are killed, full or told to end.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that cannot go on fails; one that leaves something out says so"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use domicile_tests::program::{path, program, repository, succeed};
use regex::Regex;

/// A place with an authority, and the identities of a store and of a writer; `writer.toml` is the writer's configuration.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        succeed(place.domicile().arg("init"));
        succeed(place.domicile().args(["home", "choose", "acme", "all", "--region", "eu-central-1"]));
        let issue =
            ["cert", "issue", "--region", "eu-central-1", "-o", "tls", "--dns", "localhost", "--service"];
        succeed(place.domicile().args(["cert", "authority", "--region", "eu-central-1", "-o", "tls"]));
        for service in ["store", "writer"] {
            succeed(place.domicile().args(issue).arg(service));
        }
        let of = |service: &str| {
            format!(
                "{}\n[transport]\ncertificate = \"tls/eu-central-1.{service}.pem\"\nkey = \"tls/eu-central-1.{service}.key\"\n\
                 [transport.regions.eu-central-1]\nanchors = [\"tls/eu-central-1.authority.pem\"]\ncrls = [\"tls/eu-central-1.authority.crl\"]\n",
                fs::read_to_string(place.path("domicile.toml")).unwrap()
            )
        };
        let (store, writer) = (of("store"), of("writer"));
        fs::write(place.path("domicile.toml"), store).unwrap();
        fs::write(place.path("writer.toml"), writer).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn domicile(&self) -> Command {
        let mut command = program();
        command.current_dir(&self.0);
        command
    }

    /// Seals so many octets of text into a file.
    fn seal(&self, name: &str, octets: usize) -> PathBuf {
        let line = "a line of a log that is somewhat longer than others\n";
        let mut text = line.repeat(octets / line.len() + 1);
        text.truncate(octets);
        fs::write(self.path("text.log"), text).unwrap();
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        succeed(
            self.domicile().args(["seal", "text.log", "--tenant", "acme", "--type", "voice", "-o", name]),
        );
        self.path(name)
    }

    fn serve(&self, port: u16, more: &[&str]) -> Home {
        let mut command = self.domicile();
        command
            .args(["serve", "--dir", "home", "--listen", &format!("127.0.0.1:{port}"), "--json"])
            .args(more);
        Home::of(command)
    }

    fn ship(&self, home: &Home, arguments: &[&str]) -> Output {
        let mut command = self.domicile();
        command.args(["--config", "writer.toml", "ship", "--to", &home.url(), "--json"]).args(arguments);
        command.output().unwrap()
    }

    /// `curl` with the writer's certificate; status, and headers or body.
    fn curl(&self, home: &Home, id: &str, arguments: &[&str]) -> (u16, String) {
        let output = self.curl_command(home, id, arguments).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (text, status) =
            text.rsplit_once('\n').unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        (status.parse().unwrap(), text.to_owned())
    }

    fn curl_command(&self, home: &Home, id: &str, arguments: &[&str]) -> Command {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--tlsv1.3",
            "--max-time",
            "60",
            "--write-out",
            "\n%{http_code}",
        ])
        .args(["--cert", "tls/eu-central-1.writer.pem", "--key", "tls/eu-central-1.writer.key"])
        .args(["--cacert", "tls/eu-central-1.authority.pem"])
        .args(arguments)
        .arg(format!("{}/v1/segments/{id}", home.url()))
        .current_dir(&self.0);
        curl
    }

    fn metrics(&self, home: &Home) -> String {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--cert",
            "tls/eu-central-1.store.pem",
            "--key",
            "tls/eu-central-1.store.key",
        ]);
        curl.args(["--cacert", "tls/eu-central-1.authority.pem"]).arg(format!("{}/v1/metrics", home.url()));
        String::from_utf8(succeed(curl.current_dir(&self.0))).unwrap()
    }

    /// What is kept, whosoever.
    fn kept(&self) -> Vec<PathBuf> {
        segments(&self.path("home"))
    }
}

/// A home that runs until it is dropped.
struct Home {
    child: Child,
    port: u16,
}

impl Home {
    fn of(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("it says {line:?}"));
        let address = said["listening"].as_str().unwrap();
        let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
        Self { child, port }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    fn signal(&mut self, signal: &str) -> i32 {
        succeed(Command::new("kill").args(["-s", signal, &self.child.id().to_string()]));
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let entries = entries.map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { below(&path) } else { vec![path] }).collect()
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    below(folder).into_iter().filter(|path| path.extension().is_some_and(|of| of == "dseg")).collect()
}

fn id(segment: &Path) -> String {
    domicile_record::header_of(fs::File::open(segment).unwrap()).unwrap().id.to_string()
}

fn json(bytes: &[u8]) -> Vec<serde_json::Value> {
    String::from_utf8_lossy(bytes).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn header<'a>(text: &'a str, name: &str) -> &'a str {
    let of = |line: &'a str| line.split_once(": ").filter(|(of, _)| of.eq_ignore_ascii_case(name));
    text.lines().find_map(of).unwrap_or_else(|| panic!("no {name} in {text}")).1.trim()
}

/// Waits until something is so; a minute at most.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if is_so() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("{what}: not within a minute");
}

#[test]
fn curl_uploads_goes_on_and_asks() {
    let place = Place::new();
    let home = place.serve(0, &["--reader", "spiffe://domicile.internal/region/eu-central-1/writer"]);
    let segment = place.seal("a.dseg", 3 << 20);
    let (id, length) = (id(&segment), segment.metadata().unwrap().len());
    assert_eq!(place.curl(&home, &id, &["--head"]).0, 404);
    // The first part, as a cut leaves it.
    let bytes = fs::read(&segment).unwrap();
    fs::write(place.path("first"), &bytes[..1_000_000]).unwrap();
    let range = format!("Content-Range: bytes 0-999999/{length}");
    assert_eq!(place.curl(&home, &id, &["--upload-file", "first", "--header", &range]).0, 204);
    let (status, headers) = place.curl(&home, &id, &["--head"]);
    assert_eq!((status, header(&headers, "upload-offset")), (204, "1000000"));
    // A gap is refused; from there on it goes on.
    let (status, body) = place.curl(&home, &id, &["--continue-at", "1000001", "--upload-file", "a.dseg"]);
    assert!(status == 409 && body.contains("shipment/offset"), "{status} {body}");
    assert_eq!(place.curl(&home, &id, &["--continue-at", "1000000", "--upload-file", "a.dseg"]).0, 201);
    let (status, headers) = place.curl(&home, &id, &["--head"]);
    assert_eq!((status, header(&headers, "segment-state")), (200, "stored"));
    assert_eq!(header(&headers, "upload-length"), length.to_string());
    assert_eq!(place.curl(&home, &id, &["--upload-file", "a.dseg"]).0, 200);
    assert_eq!(fs::read(&place.kept()[0]).unwrap(), bytes);
    // And back.
    assert_eq!(place.curl(&home, &id, &["--output", "back.dseg", "--range", "0-999"]).0, 206);
    assert_eq!(place.curl(&home, &id, &["--output", "back.dseg", "--continue-at", "1000"]).0, 206);
    assert_eq!(fs::read(place.path("back.dseg")).unwrap(), bytes);
    // Without a certificate nobody is heard.
    let none = Command::new("curl").args(["--silent", "--insecure", &home.url()]).output().unwrap();
    assert!(!none.status.success() && none.stdout.is_empty());
    let counts = place.metrics(&home);
    assert!(counts.contains("domicile_shipping_segments_total 1"), "{counts}");
}

#[test]
fn a_home_that_is_killed_or_told_to_end_loses_nothing() {
    let place = Place::new();
    let mut home = place.serve(0, &["--drain", "1"]);
    let segment = place.seal("a.dseg", 2 << 20);
    let (id, port) = (id(&segment), home.port);
    let begun = |home: &Home| {
        let slowly = ["--limit-rate", "300k", "--upload-file", "a.dseg"];
        let curl = place.curl_command(home, &id, &slowly).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        until("an upload begins", || place.metrics(home).contains("\ndomicile_shipping_uploads 1\n"));
        curl.unwrap()
    };
    // Killed in the middle: what was not said to be on disk is sent again.
    let mut curl = begun(&home);
    home.signal("KILL");
    curl.wait().unwrap();
    home = place.serve(port, &["--drain", "1"]);
    // Told to end: what came is on disk, and said.
    let mut curl = begun(&home);
    assert_eq!(home.signal("TERM"), 0);
    curl.wait().unwrap();
    assert!(place.kept().is_empty());
    home = place.serve(port, &[]);
    let (status, headers) = place.curl(&home, &id, &["--head"]);
    assert_eq!(status, 204);
    let offset: u64 = header(&headers, "upload-offset").parse().unwrap();
    assert!(offset > 0, "{headers}");
    // Whoever ships meanwhile is patient: the home is gone, and comes back.
    drop(home);
    let away = Home { child: Command::new("true").spawn().unwrap(), port };
    let shipping = thread::scope(|scope| {
        let shipping = scope.spawn(|| place.ship(&away, &["a.dseg"]));
        thread::sleep(Duration::from_millis(300));
        let _home = place.serve(port, &[]);
        shipping.join().unwrap()
    });
    assert!(shipping.status.success(), "{}", String::from_utf8_lossy(&shipping.stderr));
    let said = &json(&shipping.stdout)[0];
    assert_eq!((said["state"].as_str(), said["new"].as_bool()), (Some("stored"), Some(true)));
    // From where it was.
    assert_eq!(said["sent"].as_u64().unwrap(), said["bytes"].as_u64().unwrap() - offset);
    assert_eq!(fs::read(&place.kept()[0]).unwrap(), fs::read(&segment).unwrap());
}

#[test]
fn a_full_disk_is_told_and_what_was_taken_stays() {
    let place = Place::new();
    let segment = place.seal("a.dseg", 2 << 20);
    fs::create_dir(place.path("home")).unwrap();
    let probe = "mount -t tmpfs -o size=4k none home";
    let unshare = [&["-m"][..], &["-r", "-m"]].into_iter().find(|arguments| {
        let mut shell = Command::new("unshare");
        let probed = shell.args(*arguments).args(["bash", "-c", probe]).current_dir(&place.0).output();
        probed.is_ok_and(|output| output.status.success())
    });
    let Some(unshare) = unshare else {
        eprintln!("SKIPPED: no file system can be mounted here, so that none is full");
        return;
    };
    // It grows when the file `more` appears.
    let script = "mount -t tmpfs -o size=512k none home && { \
                  (until test -e more; do sleep 0.05; done; mount -o remount,size=16m home; touch grown) >&2 & \
                  exec domicile serve --dir home --listen 127.0.0.1:0 --json; }";
    let mut command = Command::new("unshare");
    let search = format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", path().parent().unwrap().display());
    command.args(unshare).args(["bash", "-c", script]).current_dir(&place.0).env("PATH", search);
    let home = Home::of(command);
    let id = id(&segment);
    let (status, body) = place.curl(&home, &id, &["--upload-file", "a.dseg"]);
    assert!(status == 507 && body.contains("output/failed"), "{status} {body}");
    assert!(!body.contains("_incoming"), "{body}");
    let full = place.ship(&home, &["a.dseg", "--attempts", "1"]);
    assert_eq!(full.status.code(), Some(1));
    assert_eq!(json(&full.stderr)[0]["error"]["code"], "shipment/failed");
    fs::write(place.path("more"), "").unwrap();
    until("there is room", || place.path("grown").exists());
    let shipped = place.ship(&home, &["a.dseg"]);
    assert!(shipped.status.success(), "{}", String::from_utf8_lossy(&shipped.stderr));
    assert_eq!(place.curl(&home, &id, &["--head"]).0, 200);
}

#[test]
fn a_posts_segment_is_stored_then_adopted_and_only_then_removed() {
    let place = Place::new();
    let home = place.serve(0, &[]);
    let config = fs::read_to_string(place.path("domicile.toml")).unwrap();
    let region = config.split("[regions.eu-central-1]").nth(1).unwrap();
    let key = Regex::new("signing_key = \"([^\"]+)\"").unwrap().captures(region).unwrap()[1].to_owned();
    let domicile = |arguments: &[&str]| succeed(place.domicile().args(arguments));
    domicile(&["post", "init", "edge-7", "--home", &format!("eu-central-1={key}"), "-o", "edge-7.key"]);
    domicile(&["post", "enrol", "edge-7", "--key", "edge-7.key.pub", "--scope", "acme/voice"]);
    domicile(&["post", "export", "eu.bundle", "--post", "edge-7"]);
    fs::write(place.path("text.log"), "one\ntwo\n").unwrap();
    fs::create_dir(place.path("spool")).unwrap();
    let seal = ["post", "seal", "text.log", "--bundle", "eu.bundle", "--identity", "edge-7.key"];
    domicile(&[&seal[..], &["--tenant", "acme", "--type", "voice", "-o", "spool/a.dseg"]].concat());

    let shipped = place.ship(&home, &["spool", "--remove"]);
    let said = &json(&shipped.stdout)[0];
    assert_eq!((said["state"].as_str(), said["removed"].as_bool()), (Some("stored"), Some(false)), "{said}");
    assert!(place.path("spool/a.dseg").exists());
    let stored = place.kept();
    assert!(stored.len() == 1 && stored[0].starts_with(place.path("home/_posts/eu-central-1")), "{stored:?}");
    // What readers look through has nothing that cannot be opened.
    assert!(!place.path("home/eu-central-1").exists());
    domicile(&["post", "adopt", "home/_posts", "-o", "home"]);
    let id = id(&place.path("spool/a.dseg"));
    let (_, headers) = place.curl(&home, &id, &["--head"]);
    assert_eq!(header(&headers, "segment-state"), "adopted");
    let shipped = place.ship(&home, &["spool", "--remove"]);
    let said = &json(&shipped.stdout)[0];
    let states = (said["state"].as_str(), said["new"].as_bool(), said["removed"].as_bool());
    assert_eq!(states, (Some("adopted"), Some(false), Some(true)));
    assert!(!place.path("spool/a.dseg").exists());
    assert_eq!(domicile(&["open", "home/eu-central-1", "--purpose", "billing"]), b"one\ntwo\n");
}

#[test]
fn what_is_finished_is_shipped_while_a_recorder_goes_on() {
    let place = Place::new();
    let home = place.serve(0, &[]);
    place.seal("spool/old.dseg", 1000);
    let mut watching = place.domicile();
    watching.args([
        "--config",
        "writer.toml",
        "ship",
        "spool",
        "--to",
        &home.url(),
        "--watch",
        "--every",
        "1",
        "--remove",
    ]);
    let mut watching = watching.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Somebody writes beside it.
    let mut recorder = place.domicile();
    recorder.args([
        "seal",
        "-",
        "--tenant",
        "acme",
        "--type",
        "voice",
        "-o",
        "spool",
        "--commit-interval",
        "20ms",
        "--acknowledge",
    ]);
    let mut recorder = recorder.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut records = recorder.stdin.take().unwrap();
    records.write_all(b"one\ntwo\n").unwrap();
    until("the old one is home", || !place.path("spool/old.dseg").exists());
    assert_eq!(place.kept().len(), 1);
    until("another is written", || !segments(&place.path("spool")).is_empty());
    records.write_all(b"three\n").unwrap();
    drop(records);
    assert!(recorder.wait().unwrap().success());
    // It is finished only now.
    until("what was recorded is home", || segments(&place.path("spool")).is_empty());
    assert_eq!(place.kept().len(), 2);
    succeed(Command::new("kill").args(["-s", "TERM", &watching.id().to_string()]));
    assert!(watching.wait().unwrap().success());
    let opened = succeed(place.domicile().args(["open", "home/eu-central-1", "--purpose", "billing"]));
    assert!(String::from_utf8_lossy(&opened).contains("one\ntwo\nthree\n"));
}

#[test]
fn one_that_is_refused_stops_no_other_and_what_is_replaced_is_left_out() {
    let place = Place::new();
    let home = place.serve(0, &[]);
    place.seal("spool/a.dseg", 1000);
    place.seal("spool/b.dseg", 1000);
    // One is damaged; one is cut, and in a directory that is somebody's work.
    let bytes = fs::read(place.seal("c.dseg", 1000)).unwrap();
    fs::write(place.path("spool/cut.dseg"), &bytes[..400]).unwrap();
    let shipped = place.ship(&home, &["c.dseg", "spool/cut.dseg", "spool"]);
    assert_eq!(shipped.status.code(), Some(5));
    assert_eq!(json(&shipped.stdout).len(), 3);
    assert_eq!(json(&shipped.stderr)[0]["error"]["code"], "segment/torn");
    // A compaction replaces what it was made from.
    fs::remove_file(place.path("spool/cut.dseg")).unwrap();
    let (d, e) = (place.seal("more/d.dseg", 1000), place.seal("more/e.dseg", 1000));
    let replaced = [id(&d), id(&e)];
    let keep: Vec<_> = [&d, &e].iter().map(|path| fs::read(path).unwrap()).collect();
    succeed(place.domicile().args(["compact", "more", "-o", "more"]));
    fs::write(&d, &keep[0]).unwrap();
    fs::write(&e, &keep[1]).unwrap();
    let shipped = json(&place.ship(&home, &["more"]).stdout);
    assert_eq!(shipped.len(), 1, "{shipped:?}");
    assert!(!replaced.contains(&shipped[0]["segment"].as_str().unwrap().to_owned()));
}

/// Paths and answers of the description are those of the code. That each answer that a test sees is described for its request,
/// `ship.rs` looks at.
#[test]
fn the_description_has_every_path_and_every_status() {
    let read = |name: &str| fs::read_to_string(repository().join(name)).unwrap();
    let all = |pattern: &str, text: &str| {
        let found = Regex::new(pattern).unwrap();
        found.captures_iter(text).map(|of| of[1].to_owned()).collect::<BTreeSet<_>>()
    };
    let described = read("docs/openapi.yaml");
    let source = ["routes", "failure", "landing", "request"]
        .map(|name| read(&format!("crates/domicile-transport/src/ship/{name}.rs")));
    assert_eq!(all(r"(?m)^  (/v1/\S+):$", &described), all(r#"\.route\("([^"]+)""#, &source[0]));
    let names = [
        ("OK", "200"),
        ("CREATED", "201"),
        ("NO_CONTENT", "204"),
        ("PARTIAL_CONTENT", "206"),
        ("BAD_REQUEST", "400"),
        ("FORBIDDEN", "403"),
        ("NOT_FOUND", "404"),
        ("METHOD_NOT_ALLOWED", "405"),
        ("REQUEST_TIMEOUT", "408"),
        ("CONFLICT", "409"),
        ("LENGTH_REQUIRED", "411"),
        ("PAYLOAD_TOO_LARGE", "413"),
        ("RANGE_NOT_SATISFIABLE", "416"),
        ("UNPROCESSABLE_ENTITY", "422"),
        ("TOO_MANY_REQUESTS", "429"),
        ("INTERNAL_SERVER_ERROR", "500"),
        ("SERVICE_UNAVAILABLE", "503"),
        ("INSUFFICIENT_STORAGE", "507"),
    ];
    let used = all(r"StatusCode::([A-Z_]+)\b", &source.concat());
    assert_eq!(used, names.iter().map(|(name, _)| (*name).to_owned()).collect());
    let statuses = all(r#"(?m)^        "(\d{3})":"#, &described);
    // What no path of the description answers is no part of it.
    let expected = names.iter().map(|(_, status)| (*status).to_owned()).filter(|status| status != "405");
    assert_eq!(statuses, expected.collect());
    let page = read("docs/src/shipping.md");
    for status in statuses {
        assert!(page.contains(&status) || status == "500", "the page says nothing of {status}");
    }
}

#[test]
fn the_unit_is_one_that_systemd_takes() {
    let unit = repository().join("deploy/domicile-serve.service");
    let text = fs::read_to_string(&unit).unwrap();
    let of = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    // What it runs is understood.
    let arguments: Vec<_> = of("ExecStart=/usr/bin/domicile ").split(' ').collect();
    let wrong = program().args(arguments).arg("--no-such-flag").output().unwrap();
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("'--no-such-flag'"));
    let directory = tempfile::tempdir().unwrap();
    // The program is not installed where it is tested, and the service's user is not there.
    let here = text.replace("/usr/bin/domicile", path().to_str().unwrap());
    let here = here
        .replace("User=domicile\n", "")
        .replace("Group=domicile\n", "")
        .replace("man:domicile-serve(1)", "https://example.org");
    let copy = directory.path().join("domicile-serve.service");
    fs::write(&copy, here).unwrap();
    let Ok(verified) = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&copy).output()
    else {
        eprintln!("SKIPPED: there is no systemd-analyze");
        return;
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    let about: Vec<_> = said.lines().filter(|line| line.contains("domicile-serve")).collect();
    assert!(about.is_empty() && verified.status.success(), "{said}");
}
