//! PostgreSQL servers for tests: each in a directory of its own, reached by a socket there, and ended with the value
//! that stands for it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use domicile::config::PostgresUrl;

use crate::program::succeed;

/// The role that owns everything.
pub const OWNER: &str = "owner";

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    directory: tempfile::TempDir,
    process: Option<Child>,
    /// Where it listens beside its socket.
    listen: String,
}

impl Server {
    /// Whether there is one to start.
    #[must_use]
    pub fn is_installed() -> bool {
        Command::new(program("initdb")).arg("--version").output().is_ok_and(|output| output.status.success())
    }

    /// A new cluster. Everybody is let in, but for roles named `locked…`, who need a password.
    pub async fn new() -> Self {
        let mut server = Self::begun();
        let data = server.data();
        let arguments =
            ["--username", OWNER, "--auth", "trust", "--encoding", "UTF8", "--no-sync", "--pgdata"];
        succeed(server.tool("initdb").args(arguments).arg(&data));
        let rules = std::fs::read_to_string(data.join("pg_hba.conf")).unwrap();
        let locked = "local all /^locked scram-sha-256\nlocal all locked scram-sha-256\n";
        // Before version 16, a name that begins with a slash is no pattern, and names nobody.
        std::fs::write(data.join("pg_hba.conf"), format!("{locked}{rules}")).unwrap();
        server.start().await;
        server
    }

    /// A standby of another server, which runs.
    pub async fn standby_of(primary: &Server) -> Self {
        let mut server = Self::begun();
        let data = server.data();
        let arguments = ["--username", OWNER, "--write-recovery-conf", "--checkpoint=fast", "--no-sync"];
        let mut copy = server.tool("pg_basebackup");
        copy.args(arguments).arg("--host").arg(primary.directory.path()).arg("--pgdata").arg(&data);
        succeed(&mut copy);
        server.start().await;
        server
    }

    fn begun() -> Self {
        let directory = tempfile::tempdir().unwrap();
        if is_root() {
            // The server refuses to run as root.
            succeed(Command::new("chown").arg("nobody").arg(directory.path()));
        }
        Self { directory, process: None, listen: String::new() }
    }

    /// Where the cluster lies.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// One of PostgreSQL's programs, run as somebody who may.
    #[must_use]
    pub fn tool(&self, name: &str) -> Command {
        let program = program(name);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.directory.path()).env("LC_ALL", "C.UTF-8").env_remove("PGPASSFILE");
        command
    }

    /// Starts it again, so that it listens at an address too, at PostgreSQL's usual port, with these lines more in its
    /// configuration.
    pub async fn listen(&mut self, address: &str, settings: &str) {
        self.stop();
        let path = self.data().join("postgresql.conf");
        let configuration = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{configuration}\n{settings}")).unwrap();
        address.clone_into(&mut self.listen);
        self.start().await;
    }

    /// Starts it again.
    pub async fn start(&mut self) {
        let log = std::fs::File::create(self.directory.path().join("log")).unwrap();
        let mut command = self.tool("postgres");
        command
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(self.directory.path())
            .args(["-c", &format!("listen_addresses={}", self.listen)]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().unwrap());
        let begun = Instant::now();
        while !self.tool("pg_isready").arg("-h").arg(self.directory.path()).output().unwrap().status.success()
        {
            assert!(begun.elapsed() < Duration::from_secs(60), "no server: {}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends it, as an operator does.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // SIGINT: a fast shutdown. If that cannot be sent, it is killed.
            let sent = Command::new("kill").args(["-INT", &process.id().to_string()]).status();
            if !sent.is_ok_and(|status| status.success()) {
                let _ = process.kill();
            }
            let _ = process.wait();
        }
    }

    /// What the server said.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// An empty database.
    #[must_use]
    pub fn database(&self, name: &str) -> PostgresUrl {
        self.sql("postgres", &format!("CREATE DATABASE {name}")).unwrap();
        self.url(OWNER, name)
    }

    /// A database with an empty key store.
    pub async fn store(&self, name: &str) -> PostgresUrl {
        let url = self.database(name);
        domicile::store::PostgresStore::migrate(&url, domicile::store::Step::Expand).await.unwrap();
        url
    }

    /// The URL of a database for a role.
    #[must_use]
    pub fn url(&self, role: &str, database: &str) -> PostgresUrl {
        PostgresUrl::new(&self.text(role, database), None).unwrap()
    }

    /// The same as text.
    #[must_use]
    pub fn text(&self, role: &str, database: &str) -> String {
        let socket = self.directory.path().to_str().unwrap().replace('/', "%2F");
        format!("postgres://{role}@{socket}/{database}")
    }

    /// Runs SQL as the owner; gives what it answers, or what it says against it.
    ///
    /// # Errors
    /// The server's words.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String, String> {
        self.sql_as(OWNER, database, sql)
    }

    /// Runs SQL as a role.
    ///
    /// # Errors
    /// The server's words.
    pub fn sql_as(&self, role: &str, database: &str, sql: &str) -> Result<String, String> {
        let output = self.psql(role, database).args(["-c", sql]).output().unwrap();
        let said = |octets: Vec<u8>| String::from_utf8(octets).unwrap().trim().to_owned();
        if output.status.success() { Ok(said(output.stdout)) } else { Err(said(output.stderr)) }
    }

    /// `psql`, which stops at the first error.
    #[must_use]
    pub fn psql(&self, role: &str, database: &str) -> Command {
        let mut psql = self.tool("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", role, "-d", database, "-h"]);
        psql.arg(self.directory.path());
        psql
    }

    /// All of a database, as `pg_dump` writes it.
    #[must_use]
    pub fn dump(&self, database: &str) -> String {
        let mut dump = self.tool("pg_dump");
        dump.args(["-U", OWNER, "-d", database, "-h"]).arg(self.directory.path());
        String::from_utf8(succeed(&mut dump)).unwrap()
    }

    /// Runs a script.
    pub fn script(&self, database: &str, script: &str) {
        let path = self.directory.path().join("script.sql");
        std::fs::write(&path, script).unwrap();
        succeed(self.psql(OWNER, database).arg("-f").arg(&path));
    }

    /// Makes a standby a primary.
    pub fn promote(&self) {
        assert_eq!(self.sql("postgres", "SELECT pg_promote()").unwrap(), "t", "{}", self.log());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    // A process's own directory belongs to whom it runs as.
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// One of PostgreSQL's programs: where Debian puts it, the newest version first, or wherever a shell finds it.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut versions: Vec<_> = versions.map(|entry| entry.unwrap().path().join("bin").join(name)).collect();
    versions.sort();
    let found = versions.into_iter().rev().find(|path| path.is_file());
    found.unwrap_or_else(|| Path::new(name).to_owned())
}
