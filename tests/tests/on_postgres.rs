//! A place on PostgreSQL, from the outside and under hard use: the program; dumps and stale standbys brought back; processes
//! that follow each other; and all that changes keys at once.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use domicile::checkup::check;
use domicile::export::Export;
use domicile::keyring::Concerned;
use domicile::kms::{Agreement, Custody, Holder, Kms, LocalKms};
use domicile::setup::{Stores, init_on};
use domicile::store::{self, Finding, Severity};
use domicile::{
    Action, Code, Config, Domicile, KnownRegion, ManualClock, Period, Purpose, RecordType, Scope,
};
use domicile_record::format::{Contents, Descriptor, LaneNo};
use domicile_record::{Erasable, Segment, SegmentWriter, Selection, Stamp, WriterOptions};
use domicile_tests::postgres::{OWNER, Server};
use domicile_tests::program::{program, samples, succeed};
use domicile_tests::{descriptor, place, region, scope};

const REGION: &str = "eu-central-1";

/// A directory with key files and a configuration on a store.
struct Host {
    directory: tempfile::TempDir,
    config: Config,
}

impl Host {
    /// Sets one up, with voice homes for acme and globex.
    async fn new(store: Option<String>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut stores = Stores::default();
        stores.store = store;
        let places = [place(REGION, "EU")];
        let config = init_on(directory.path(), &places, &region(REGION), &stores).await.unwrap();
        let host = Self { directory, config };
        let process = host.process().await;
        for tenant in ["acme", "globex"] {
            process.choose_home(&scope(tenant), REGION).await.unwrap();
        }
        process.close().await;
        host
    }

    /// A process that starts now.
    async fn process(&self) -> Domicile {
        Domicile::from_config(&Config::read(self.config.path()).unwrap()).await.unwrap()
    }

    /// A process whose time is the test's, and whose branch keys are held so.
    async fn process_at(&self, clock: &ManualClock, custody: Option<Agreement>) -> Domicile {
        let opened = store::open(self.config.homes()).await.unwrap();
        let of_region = &self.config.regions()[&region(REGION)];
        let ours = of_region.kms.as_ref().unwrap().open(&region(REGION)).unwrap();
        let known = KnownRegion {
            place: of_region.place.clone(),
            verifying_key: of_region.signing_key,
            kms: Some(ours.clone()),
            store: opened.keys,
        };
        let mut builder = Domicile::builder(region(REGION), opened.homes)
            .region(known)
            .clock(Arc::new(clock.clone()))
            .witness(self.config.witness());
        if let Some(agreement) = custody {
            let path = |what: &str| self.directory.path().join(format!("theirs.{what}"));
            let (root, signing) = (path("root"), path("signing"));
            let theirs = if root.exists() {
                LocalKms::new(region(REGION), root, signing)
            } else {
                LocalKms::create(region(REGION), root, signing).unwrap()
            };
            let theirs: Arc<dyn Kms> = Arc::new(theirs);
            let holders =
                [("ours", ours), ("theirs", theirs)].map(|(name, kms)| Holder { name: name.to_owned(), kms });
            builder = builder.custody(region(REGION), None, Custody::of(agreement, holders.into()).unwrap());
        }
        builder.build().unwrap()
    }

    /// What is wrong with its stores.
    async fn wrong(&self) -> Vec<Finding> {
        let checkups = check(&Config::read(self.config.path()).unwrap(), None).await.unwrap();
        let all = checkups.into_iter().flat_map(|checkup| checkup.condition.findings);
        all.filter(|finding| finding.severity == Severity::Wrong).collect()
    }

    /// Has the configuration name another store.
    fn moves_to(&mut self, url: &str) {
        let path = self.config.path().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let moved: Vec<_> =
            text.lines()
                .map(|line| {
                    if line.starts_with("store = ") { format!("store = \"{url}\"") } else { line.to_owned() }
                })
                .collect();
        std::fs::write(&path, moved.join("\n")).unwrap();
        self.config = Config::read(&path).unwrap();
    }
}

/// A segment with a lane for acme and one for globex, and in each one record: the tenant's name.
async fn sealed(domicile: &Domicile) -> Vec<u8> {
    sealed_of(domicile, &[scope("acme"), scope("globex")]).await
}

async fn sealed_of(domicile: &Domicile, scopes: &[Scope]) -> Vec<u8> {
    let options = WriterOptions::default();
    let mut writer = SegmentWriter::create(domicile, &region(REGION), Vec::new(), options).await.unwrap();
    for scope in scopes {
        let lane = Descriptor { scope: scope.clone(), ..descriptor("acme", Contents::default()) };
        let lane = writer.open_lane(lane, b"").await.unwrap();
        writer.append(lane, scope.tenant.as_str().as_bytes(), Stamp::default()).unwrap();
    }
    writer.finish().await.unwrap().0
}

/// What opens of a segment, or why nothing does.
async fn opened(domicile: &Domicile, bytes: &[u8]) -> Result<String, Code> {
    let segment = Segment::open_source(domicile, bytes, Purpose::Support, Selection::all());
    let segment = segment.await.map_err(|error| error.code())?;
    let mut output = Vec::new();
    segment.restore(&mut output).unwrap();
    Ok(String::from_utf8(output).unwrap())
}

/// Why acme's lane does not open.
async fn obstacle(domicile: &Domicile, bytes: &[u8]) -> Option<Code> {
    match Segment::open_source(domicile, bytes, Purpose::Support, &[scope("acme")]).await {
        Ok(segment) => segment.lanes()[0].obstacle().map(domicile::Error::code),
        Err(error) => Some(error.code()),
    }
}

async fn erase_acme(domicile: &Domicile, bytes: &[u8]) {
    let id = domicile_record::inspect(bytes).unwrap().segment;
    let lanes = Erasable::Lanes(vec![LaneNo(1)]);
    domicile_record::erase(domicile, bytes, &lanes, &id, Purpose::Maintenance).await.unwrap();
}

fn manage() -> Action {
    Action::Manage(Purpose::Maintenance.into())
}

async fn permit(domicile: &Domicile) -> domicile::Permit {
    domicile.permit_region(&region(REGION), manage()).await.unwrap()
}

/// Something is erased that a copy still has, and something is sealed that no copy has; with the export of then.
async fn go_on(host: &Host, doomed: &[u8]) -> (Export, Vec<u8>) {
    let process = host.process().await;
    erase_acme(&process, doomed).await;
    let fax = Scope::new("acme", RecordType::FAX).unwrap();
    process.choose_home(&fax, REGION).await.unwrap();
    let lost = sealed_of(&process, &[fax]).await;
    let mut text = Vec::new();
    process.export(&region(REGION)).await.unwrap().write(&mut text).unwrap();
    process.close().await;
    (Export::read(&text[..]).unwrap(), lost)
}

/// The store of a host is an earlier one: refused until it was made good, and what was erased stays so.
async fn is_made_good(host: &Host, doomed: &[u8], kept: &[u8], export: &Export, lost: &[u8]) {
    let process = host.process().await;
    assert_eq!(opened(&process, kept).await, Err(Code::KeyRolledBack));
    assert_eq!(obstacle(&process, doomed).await, Some(Code::KeyRolledBack));
    let found: Vec<_> = host.wrong().await.iter().map(|finding| finding.code).collect();
    assert_eq!(found, [Code::KeyRolledBack]);
    let report = process.replay(export, manage()).await.unwrap();
    assert_eq!((report.entries, report.keys, report.homes), (1, 1, 1));
    let gone: Vec<_> = report.gone.iter().map(|(_, whose)| &whose[..]).collect();
    assert_eq!(gone, ["acme/fax/2026-11"]);
    process.close().await;
    let process = host.process().await;
    assert_eq!(opened(&process, kept).await.unwrap(), "acmeglobex");
    assert_eq!(obstacle(&process, doomed).await, Some(Code::KeyDestroyed));
    assert_eq!(opened(&process, lost).await.unwrap_or_default(), "");
    assert_eq!(opened(&process, &sealed(&process).await).await.unwrap(), "acmeglobex");
    process.close().await;
    assert_eq!(host.wrong().await, []);
}

#[tokio::test]
async fn a_dump_and_a_stale_standby_open_nothing_before_the_replay_and_nothing_erased_after_it() {
    let mut server = Server::new().await;
    let _ = server.database("one");
    let mut host = Host::new(Some(server.text(OWNER, "one"))).await;
    let process = host.process().await;
    let (doomed, kept) = (sealed(&process).await, sealed(&process).await);
    process.close().await;
    let standby = Server::standby_of(&server).await;
    // It has lost its primary: what is erased from now on does not come to it.
    let caught_up = "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn()";
    while server.sql("postgres", caught_up).unwrap() != "1" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    standby.sql("postgres", "ALTER SYSTEM SET primary_conninfo = ''").unwrap();
    standby.sql("postgres", "SELECT pg_reload_conf()").unwrap();
    while server.sql("postgres", "SELECT count(*) FROM pg_stat_replication").unwrap() != "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let dump = server.dump("one");
    let (export, lost) = go_on(&host, &doomed).await;

    server.sql("one", "DROP SCHEMA public CASCADE; CREATE SCHEMA public").unwrap();
    server.script("one", &dump);
    let seen = std::fs::read(host.config.witness()).unwrap();
    is_made_good(&host, &doomed, &kept, &export, &lost).await;

    // The primary is lost, and the standby takes its place: for a host that saw the primary last.
    std::fs::write(host.config.witness(), seen).unwrap();
    server.stop();
    standby.promote();
    host.moves_to(&standby.text(OWNER, "one"));
    is_made_good(&host, &doomed, &kept, &export, &lost).await;
}

/// Three processes with caches and connections of their own follow each other within the age of a poll.
async fn follow_each_other(host: &Host) {
    let clock = ManualClock::new("2026-11-25T08:00:00Z".parse().unwrap());
    let mut processes = Vec::new();
    for _ in 0..3 {
        processes.push(host.process_at(&clock, None).await);
    }
    let [one, two, three] = &processes[..] else { panic!("three") };
    let (doomed, kept) = (sealed(one).await, sealed(one).await);
    for process in &processes {
        // Each has all keys in memory.
        assert_eq!(opened(process, &doomed).await.unwrap(), "acmeglobex");
        sealed(process).await;
    }

    one.keyring().rotate(one.permit(&scope("acme"), manage()).await.unwrap()).await.unwrap();
    erase_acme(two, &doomed).await;
    let globex = Concerned { tenant: "globex".parse().unwrap(), types: "all".parse().unwrap() };
    three.keyring().hold(permit(three).await, globex, "case 9").await.unwrap();
    three.keyring().rotate_branches(permit(three).await, true).await.unwrap();
    clock.advance(Duration::from_secs(2));
    for process in &processes {
        assert_eq!(obstacle(process, &doomed).await, Some(Code::KeyDestroyed));
        assert_eq!(opened(process, &kept).await.unwrap(), "acmeglobex");
        assert_eq!(process.keyring().holds(&region(REGION)).await.unwrap().len(), 1);
        let kept_id = domicile_record::inspect(&kept[..]).unwrap().segment;
        let lane = Erasable::Lanes(vec![LaneNo(2)]);
        let held = domicile_record::erase(process, &kept[..], &lane, &kept_id, Purpose::Maintenance).await;
        assert_eq!(held.unwrap_err().code(), Code::KeyHeld);
        // New lanes are sealed under the new version.
        let events = || async {
            let export = process.export(&region(REGION)).await.unwrap();
            let bodies = export.chains.into_iter().flat_map(|(_, events)| events);
            bodies.map(|event| event.body).filter(|body| body.contains("\"event\":\"use\"")).count()
        };
        let before = events().await;
        sealed_of(process, &[scope("acme")]).await;
        let period: Period = "2026-11".parse().unwrap();
        let slot = store::KeySlot::tenant(&region(REGION), &scope("acme"), period);
        let newest = process.region(&region(REGION)).unwrap().store.newest(&slot).await.unwrap().unwrap();
        let export = process.export(&region(REGION)).await.unwrap();
        let used = format!("\"key\":\"{}\"", newest.row.name);
        let all: Vec<_> = export.chains.iter().flat_map(|(_, events)| events).collect();
        assert!(events().await > before, "a version that this process had not sealed under");
        assert!(
            all.iter().any(|event| event.body.contains("\"event\":\"use\"") && event.body.contains(&used))
        );
    }
    for process in &processes {
        process.close().await;
    }
    assert_eq!(host.wrong().await, []);
}

#[tokio::test]
async fn three_processes_follow_each_other_within_the_age_of_a_poll() {
    follow_each_other(&Host::new(None).await).await;
    let server = Server::new().await;
    let _ = server.database("one");
    follow_each_other(&Host::new(Some(server.text(OWNER, "one"))).await).await;
}

#[tokio::test]
async fn rotations_erasures_writers_and_changes_of_custody_at_once_lose_nothing() {
    let server = Server::new().await;
    let _ = server.database("one");
    let host = Host::new(Some(server.text(OWNER, "one"))).await;
    let clock = ManualClock::new("2026-11-25T08:00:00Z".parse().unwrap());
    let process = async |agreement| host.process_at(&clock, Some(agreement)).await;
    let first = process(Agreement::Any).await;
    let mut doomed = Vec::new();
    for _ in 0..4 {
        doomed.push(sealed(&first).await);
    }
    let kept = sealed(&first).await;
    let erasing = async |doomed: &[Vec<u8>]| {
        let process = process(Agreement::Any).await;
        for bytes in doomed {
            erase_acme(&process, bytes).await;
        }
    };
    let rotating = async |agreement| {
        let process = process(agreement).await;
        for _ in 0..2 {
            process.keyring().rotate(process.permit(&scope("acme"), manage()).await.unwrap()).await.unwrap();
            process.keyring().rotate_roots(permit(&process).await, false).await.unwrap();
            process.keyring().rotate_branches(permit(&process).await, true).await.unwrap();
        }
    };
    let writing = async || {
        let process = process(Agreement::All).await;
        let mut all = Vec::new();
        for _ in 0..6 {
            clock.advance(Duration::from_secs(3));
            all.push(sealed(&process).await);
        }
        all
    };
    let ((), (), (), (), written) = tokio::join!(
        erasing(&doomed[..2]),
        erasing(&doomed[2..]),
        rotating(Agreement::Any),
        rotating(Agreement::All),
        writing(),
    );
    let fresh = process(Agreement::All).await;
    for bytes in &doomed {
        assert_eq!(obstacle(&fresh, bytes).await, Some(Code::KeyDestroyed), "no rotation brought it back");
    }
    for bytes in written.iter().chain([&kept]) {
        assert_eq!(opened(&fresh, bytes).await.unwrap(), "acmeglobex");
    }
    assert_eq!(host.wrong().await, []);
    // The test's own time is not the server's.
    let ailments = domicile::doctor::examine(&fresh).await.unwrap();
    let clock = ailments.iter().find(|ailment| ailment.about == "host" && ailment.what.contains("clock"));
    assert!(clock.unwrap().what.contains("that of the key store of eu-central-1"), "{ailments:?}");
}

/// The program in a directory.
struct Shell {
    directory: PathBuf,
}

impl Shell {
    fn output(&self, arguments: &[&str]) -> Output {
        program().args(arguments).current_dir(&self.directory).output().unwrap()
    }

    /// Runs it and wants this exit code; gives both outputs.
    fn run(&self, code: i32, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.output(arguments);
        let said = format!("{}{}", String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
        assert_eq!(status.code(), Some(code), "domicile {}: {said}", arguments.join(" "));
        said
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

fn same(one: &Path, other: &Path) {
    assert_eq!(std::fs::read(one).unwrap(), std::fs::read(other).unwrap());
}

#[tokio::test]
async fn the_program_does_on_postgresql_what_it_does_on_sqlite() {
    let server = Server::new().await;
    let _ = server.database("one");
    let url = server.text(OWNER, "one");
    let directory = tempfile::tempdir().unwrap();
    let shell = Shell { directory: directory.path().to_owned() };
    let cdrs = samples().join("mixed.csv");
    let input = cdrs.to_str().unwrap();

    assert!(shell.run(6, &["init", "--store", &server.text(OWNER, "none")]).contains("no such database"));
    let locked = shell.run(2, &["init", "--store", &url.replace("owner@", "owner:hush@")]);
    assert!(locked.contains("a password in the URL") && !locked.contains("hush"), "{locked}");
    assert_eq!(std::fs::read_dir(&shell.directory).unwrap().count(), 0, "what failed leaves nothing");
    shell.run(0, &["init", "--store", &url]);
    assert!(std::fs::read_to_string(shell.path("domicile.toml")).unwrap().contains(&url));
    assert!(!shell.path("domicile.db").exists());
    let roles = "SELECT count(*) FROM pg_roles WHERE rolname ~ '^domicile_(reader|writer|officer)$'";
    assert_eq!(server.sql("one", roles).unwrap(), "3");
    assert!(shell.run(0, &["store", "migrate"]).contains("schema 2 (was 2)"));

    shell.run(0, &["home", "choose", "acme", "voice", "--region", REGION]);
    shell.run(0, &["seal", input, "--tenant", "acme", "--type", "voice", "-o", "first.dseg"]);
    shell.run(0, &["seal", input, "--tenant", "acme", "--type", "voice", "-o", "second.dseg"]);
    shell.run(0, &["open", "first.dseg", "--purpose", "billing", "-o", "opened.csv"]);
    same(&shell.path("opened.csv"), &cdrs);
    // Another place on the same store would have other root keys.
    let used = shell.run(2, &["init", "other", "--store", &url]);
    assert!(used.contains("error[config/exists]: this store is in use already"), "{used}");

    // The owner may undo what guards the tables; a program runs as somebody who may not.
    let owns = shell.run(0, &["store", "check"]);
    assert!(owns.contains("weak [store/weakened]: the role of this URL owns the tables"), "{owns}");
    server.sql("one", "CREATE ROLE app LOGIN IN ROLE domicile_officer").unwrap();
    let config = shell.path("domicile.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("postgres://owner@", "postgres://app@")).unwrap();

    let inspected = shell.run(0, &["inspect", "first.dseg", "--json"]);
    let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    let segment = inspected["segment"].as_str().unwrap().to_owned();
    shell.run(0, &["key", "rotate", "acme", "voice"]);
    shell.run(0, &["key", "rotate", "--root", REGION]);
    shell.run(0, &["key", "rotate", "--branch", REGION]);
    let dump = server.dump("one");
    shell.run(0, &["key", "erase", "first.dseg", "1", "--confirm", &segment]);
    shell.run(0, &["key", "expire"]);
    shell.run(7, &["open", "first.dseg", "--purpose", "billing", "--tenant", "acme", "-o", "no.csv"]);
    shell.run(0, &["open", "second.dseg", "--purpose", "billing", "--force", "-o", "opened.csv"]);
    same(&shell.path("opened.csv"), &cdrs);
    shell.run(0, &["audit", "export", "-o", "export.jsonl"]);
    shell.run(0, &["audit", "verify", "--against", "export.jsonl"]);
    let doctor = shell.output(&["doctor", "--json"]);
    let ailments: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
    // All that this place has is the key service of the other jurisdiction.
    let about: Vec<_> =
        ailments.as_array().unwrap().iter().filter(|one| one["severity"] == "wrong").collect();
    assert!(about.iter().all(|one| one["about"] == "places"), "{ailments}");
    assert!(ailments.to_string().contains("no synchronous standby is named"), "{ailments}");
    let checked = shell.run(0, &["store", "check", "--json", "--region", REGION]);
    let checked: serde_json::Value = serde_json::from_str(&checked).unwrap();
    assert_eq!((&checked["schema"], &checked["regions"][0]["entries"]), (&2.into(), &3.into()), "{checked}");
    assert!(!checked.to_string().contains("owns the tables"), "{checked}");

    // The command that it advises makes a dump; brought back, that is made good.
    let advised = shell.run(2, &["store", "backup", "-o", "copy", "--json"]);
    let advised: serde_json::Value = serde_json::from_str(&advised).unwrap();
    let command = advised["error"]["do"].as_str().unwrap();
    assert!(
        command
            .starts_with("pg_dump --format=custom --schema='public' --file=FILE --dbname='postgres://app@")
    );
    let command = command.replace("postgres://app@", "postgres://owner@").replace("FILE", "one.dump");
    let tools = domicile_tests::postgres::program("pg_dump");
    let bin = tools.parent().unwrap().display();
    let mut pg_dump = Command::new("sh");
    pg_dump.args(["-c", &command]).env("PATH", format!("{bin}:/usr/bin:/bin"));
    succeed(pg_dump.current_dir(&shell.directory));
    assert!(std::fs::metadata(shell.path("one.dump")).unwrap().len() > 1_000);
    server
        .sql(
            "one",
            "DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC",
        )
        .unwrap();
    server.script("one", &dump);
    shell.run(8, &["open", "second.dseg", "--purpose", "billing", "--force", "-o", "opened.csv"]);
    shell.run(8, &["store", "check"]);
    shell.run(0, &["key", "replay", "export.jsonl"]);
    shell.run(7, &["open", "first.dseg", "--purpose", "billing", "--tenant", "acme", "-o", "no.csv"]);
    shell.run(0, &["open", "second.dseg", "--purpose", "billing", "--force", "-o", "opened.csv"]);
    same(&shell.path("opened.csv"), &cdrs);
    // The other region in this store is another host's to make good.
    shell.run(0, &["store", "check", "--region", REGION]);

    // What guards the store, undone one by one by its owner; and rows that say something else.
    for (undo, again, code, words) in [
        ("ALTER TABLE keys DISABLE TRIGGER keys_rise", "ALTER TABLE keys ENABLE TRIGGER keys_rise", 1, "is disabled"),
        (
            "ALTER TRIGGER ledger_once ON ledger RENAME TO never",
            "ALTER TRIGGER never ON ledger RENAME TO ledger_once",
            1,
            "trigger ledger_once is gone",
        ),
        ("GRANT DELETE ON keys TO domicile_reader", "REVOKE DELETE ON keys FROM domicile_reader", 1, "keys DELETE"),
        ("GRANT SELECT ON keys TO PUBLIC", "REVOKE SELECT ON keys FROM PUBLIC", 1, "PUBLIC may more"),
        (
            "GRANT UPDATE (name) ON keys TO domicile_writer",
            "REVOKE UPDATE (name) ON keys FROM domicile_writer",
            1,
            "keys.name UPDATE",
        ),
        ("GRANT CREATE ON SCHEMA public TO app", "REVOKE CREATE ON SCHEMA public FROM app", 1, "schema CREATE"),
        (
            "ALTER TABLE keys DISABLE TRIGGER USER; UPDATE keys SET parent_version = 77 WHERE kind = 2 AND tenant = 'acme'",
            "UPDATE keys SET parent_version = (SELECT max(version) FROM keys WHERE kind = 1) WHERE parent_version = 77;
             ALTER TABLE keys ENABLE TRIGGER USER",
            8,
            "is gone, or was destroyed (version 1",
        ),
        (
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$",
            "SELECT",
            1,
            "the function refuse, which triggers call, is not as it was made",
        ),
    ] {
        server.sql("one", undo).unwrap();
        let said = shell.run(code, &["store", "check", "--region", REGION]);
        assert!(said.contains(words), "{undo}: {said}");
        server.sql("one", again).unwrap();
    }
}
