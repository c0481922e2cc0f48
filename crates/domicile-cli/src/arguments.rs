//! The arguments: one definition for parsing, help, manual pages and completions.

use std::ffi::OsString;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use domicile::engine::Suite;
use domicile::home::Types;
use domicile::kms::VerifyingKey;
use domicile::post::{PostId, PostScope};
use domicile::processing::Where;
use domicile::{Jurisdiction, Place, Purpose, RecordType, Region, TenantId, Time};
use domicile_record::WriterOptions;
use domicile_record::format::Compression;
use domicile_record::framing::{Choice, event_time};
use domicile_transport::ship::{Limits, Patience};
use domicile_transport::{Identity, Settings};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed: input, output and the rest
  2  wrong usage or configuration
  3  refused: home, place, purpose or policy
  4  not authentic, or corrupt
  5  unfinished or torn
  6  key service or key store out of reach, or denying
  7  erased on purpose
  8  unknown key, or a key store that went back in time
Where several hold, the first of 4, 8, 6, 5, 3, 7.";

/// Seals records under keys of the region where they are at home, and opens them nowhere else.
#[derive(Debug, Parser)]
#[command(name = "domicile", version, after_help = EXIT_CODES, propagate_version = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Configuration; otherwise the nearest `domicile.toml` in this directory or above it
    #[arg(long, global = true, value_name = "FILE", env = "DOMICILE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Machine-readable output: results on standard output, errors on standard error, as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say what was done on standard error, also when it is no terminal
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Set up a place: key files, a key store, a configuration
    Init(Init),
    /// Choose homes, once, and list them
    #[command(subcommand)]
    Home(HomeCommand),
    /// Seal records into segments
    Seal(Seal),
    /// Open segments and give back what went in
    Open(Open),
    /// Show the structure of a segment; no key is needed, and nothing is vouched for
    Inspect(Inspect),
    /// Explain who could open a segment and what stands in the way here; no key service is called
    Why(Why),
    /// Verify every tag, total and index of segments
    Verify(Verify),
    /// Close what a crash left of segments; what is cut is kept beside them
    Recover(Recover),
    /// Write finished segments anew with each lane in one piece; no key is needed
    Settle(Settle),
    /// Write the records of segments anew in full blocks under fresh keys, in one segment for each region
    Compact(Compact),
    /// Upload finished segments to where their region keeps them in an object store; what was cut is resumed
    Upload(Upload),
    /// Keys: list, rotate, erase, expire, hold, shred; make a restored store good
    #[command(subcommand)]
    Key(KeyCommand),
    /// What was done, by whom, and the proof of it
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Seal for a home whose keys are not here, and adopt what such posts sealed
    #[command(subcommand)]
    Post(PostCommand),
    /// Key stores and the registry of homes
    #[command(subcommand)]
    Store(StoreCommand),
    /// Identities of hosts: the authority of a region, certificates, revocation
    #[command(subcommand)]
    Cert(CertCommand),
    /// Take finished segments of this region from other hosts, and keep them
    Serve(Serve),
    /// Ship finished segments home, from where their home has them
    Ship(Ship),
    /// Look for what is wrong with keys, places, homes, the ledger and this host, before it matters
    Doctor,
    /// Write a shell's completions to standard output
    Completions(Completions),
    /// Write manual pages into a directory
    Man(Man),
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Where to set it up
    #[arg(default_value = ".")]
    pub(crate) directory: PathBuf,
    /// A region and its jurisdiction; again for more [default: us-east-1=US and eu-central-1=EU]
    #[arg(long = "region", value_name = "NAME=JURISDICTION", value_parser = place)]
    pub(crate) regions: Vec<Place>,
    /// Where this host is [default: eu-central-1, or the only region]
    #[arg(long, value_name = "NAME", value_parser = parsed::<Region>)]
    pub(crate) here: Option<Region>,
    /// The key store of all regions: sqlite://PATH, or postgres://USER@HOST/DATABASE, where an empty database gets the tables
    /// and roles of one [default: sqlite://domicile.db]
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,
    /// The registry of homes, where it is not in the key store
    #[arg(long, value_name = "URL")]
    pub(crate) homes: Option<String>,
    /// The file whose first line is the password of PostgreSQL, mode 0600
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// Make the authority that vouches for the hosts of a region: its certificate, its key, an empty revocation list
    Authority(CertAuthority),
    /// Issue the identity of a service in a region: a certificate and its key
    Issue(CertIssue),
    /// Put certificates on their authority's revocation list; without any, make the list anew, so that it stays fresh
    Revoke(CertRevoke),
    /// Show what certificates and revocation lists say; nothing is verified
    Show(CertShow),
}

#[derive(Debug, Args)]
pub(crate) struct CertAuthority {
    /// The region
    #[arg(long, value_name = "NAME", value_parser = parsed::<Region>)]
    pub(crate) region: Region,
    /// In whose name it issues: the part of every identity between spiffe:// and the path
    #[arg(long, value_name = "NAME", default_value = Settings::TRUST_DOMAIN)]
    pub(crate) trust_domain: String,
    /// For how many days it holds
    #[arg(long, value_name = "N", default_value_t = 3650)]
    pub(crate) days: u16,
    /// Within how many days there will be another revocation list: hosts that have none by then refuse everybody
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub(crate) list_days: u16,
    /// The directory to write into
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct CertIssue {
    /// The region that the service is in
    #[arg(long, value_name = "NAME", value_parser = parsed::<Region>)]
    pub(crate) region: Region,
    /// What it does: the last part of its identity
    #[arg(long, value_name = "NAME")]
    pub(crate) service: String,
    /// A name or an address by which it is reached; again for more
    #[arg(long = "dns", value_name = "NAME")]
    pub(crate) dns: Vec<String>,
    /// For how many days it holds
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub(crate) days: u16,
    /// Where the authority lies, if not where it is written to
    #[arg(long, value_name = "DIR")]
    pub(crate) authority: Option<PathBuf>,
    /// The directory to write into
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Replace what was issued before
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CertRevoke {
    /// Certificates to revoke
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The region whose authority issued them
    #[arg(long, value_name = "NAME", value_parser = parsed::<Region>)]
    pub(crate) region: Region,
    /// Where the authority lies
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) authority: PathBuf,
    /// Within how many days there will be another list
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub(crate) list_days: u16,
}

#[derive(Debug, Args)]
pub(crate) struct CertShow {
    /// Files in PEM: certificates, bundles, revocation lists; of private keys nothing is shown
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where segments go: DIR, by region and day of sealing; those of posts in `_posts` below it until they are adopted
    #[arg(long = "dir", value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// The address to listen to; with port 0, any port that is free
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "[::]:7443")]
    pub(crate) listen: String,
    /// Who may read what is here, beside those who send: an identity; again for more
    #[arg(long = "reader", value_name = "IDENTITY", value_parser = parsed::<Identity>)]
    pub(crate) readers: Vec<Identity>,
    /// The largest segment, in octets
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().segment_bytes_max)]
    pub(crate) segment_max: u64,
    /// The most uploads at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) uploads: u16,
    /// The most uploads at once of one host
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) uploads_per_host: u16,
    /// For how many seconds a client may send nothing in the middle of a segment
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::default().silence_max.as_secs())]
    pub(crate) silence: u64,
    /// After how many days an upload that nobody went on with is removed
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub(crate) part_days: u32,
    /// For how many seconds what goes on may go on when the program is told to end
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) drain: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Ship {
    /// Finished segments: files, and directories, in which what is still written is left out
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// A host at home, where `domicile serve` listens
    #[arg(long, value_name = "https://HOST:PORT")]
    pub(crate) to: String,
    /// Go on, and ship what is finished later
    #[arg(long)]
    pub(crate) watch: bool,
    /// How often to look, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 2, requires = "watch")]
    pub(crate) every: u64,
    /// Remove what the home has on disk; what a post sealed, once the home has adopted it
    #[arg(long)]
    pub(crate) remove: bool,
    /// How many attempts in a row may come to nothing for one segment
    #[arg(long, value_name = "N", default_value_t = Patience::default().attempts_max)]
    pub(crate) attempts: u32,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HomeCommand {
    /// Choose the home of a tenant's records, once and for good
    Choose(HomeChoose),
    /// List the homes that were chosen
    List(HomeList),
    /// Say where records of a scope may be processed, in place of the rule of their home's jurisdiction
    #[command(subcommand)]
    Places(PlacesCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum PlacesCommand {
    /// Allow these places and no other; each time the whole list
    Set(PlacesSet),
    /// Go back to the rule of the home's jurisdiction
    Clear(HoldChange),
    /// List what was set
    List(HoldList),
}

#[derive(Debug, Args)]
pub(crate) struct PlacesSet {
    #[command(flatten)]
    pub(crate) change: HoldChange,
    /// A jurisdiction or a region; again for more
    #[arg(long = "allow", value_name = "PLACE", required = true, value_parser = parsed::<Where>)]
    pub(crate) places: Vec<Where>,
}

#[derive(Debug, Args)]
pub(crate) struct HomeChoose {
    /// The tenant
    #[arg(required_unless_present = "from", conflicts_with = "from", value_parser = parsed::<TenantId>)]
    pub(crate) tenant: Option<TenantId>,
    /// The record type, or `all`: every type without a home, now and later
    #[arg(
        value_name = "TYPE|all",
        required_unless_present = "from",
        conflicts_with = "from",
        value_parser = parsed::<Types>
    )]
    pub(crate) types: Option<Types>,
    /// The region
    #[arg(
        long,
        value_name = "NAME",
        required_unless_present = "from",
        conflicts_with = "from",
        value_parser = parsed::<Region>
    )]
    pub(crate) region: Option<Region>,
    /// Many at once, all or none: CSV of tenant,record_type,region, with a header line or without; with one,
    /// in any order and beside other columns (`-` is standard input)
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<OsString>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// List keys: whose, of which period, and what they may still do
    List(KeyList),
    /// Follow keys by new versions, or wrap and seal them anew; nothing that was sealed is touched
    Rotate(KeyRotate),
    /// Make the next period's keys before it begins; every hour, say
    Ahead(KeyAhead),
    /// Put a root-key file under a passphrase, under another one, or under none
    Passphrase(KeyPassphrase),
    /// Move segments to the newest versions of their keys; what is sealed stays as it is
    Rewrap(KeyRewrap),
    /// Erase lanes of a segment, or retire it whole, in every copy of it
    Erase(KeyErase),
    /// Destroy the keys of periods that are over, and those whose shredding is due
    Expire(KeyExpire),
    /// Forbid that anything of a scope is destroyed or erased, or allow it again
    #[command(subcommand)]
    Hold(HoldCommand),
    /// Destroy all keys of a tenant, or of one type, after a time in which none of them is used
    Shred(KeyShred),
    /// Take a shredding back
    Unshred(KeyUnshred),
    /// Make a restored store good: take again what was erased since
    Replay(KeyReplay),
}

#[derive(Debug, Args)]
pub(crate) struct KeyList {
    /// This tenant's alone
    #[arg(long, value_name = "T", value_parser = parsed::<TenantId>)]
    pub(crate) tenant: Option<TenantId>,
    /// Of this region [default: where this host is]
    #[arg(long, value_name = "NAME", value_parser = parsed::<Region>)]
    pub(crate) region: Option<Region>,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["tenant", "root", "branch"]))]
pub(crate) struct KeyRotate {
    /// The tenant whose key of this period is followed by a new version
    #[arg(requires = "record_type", value_parser = parsed::<TenantId>)]
    pub(crate) tenant: Option<TenantId>,
    /// The record type
    #[arg(id = "record_type", value_name = "TYPE", value_parser = parsed::<RecordType>)]
    pub(crate) record_type: Option<RecordType>,
    /// Make a new root key for this region, where its key service makes its own, and wrap all branch keys anew
    #[arg(long, value_name = "REGION", value_parser = parsed::<Region>)]
    pub(crate) root: Option<Region>,
    /// Follow the branch keys of this region by new versions, and seal all tenant keys under them
    #[arg(long, value_name = "REGION", value_parser = parsed::<Region>)]
    pub(crate) branch: Option<Region>,
    /// Make no new versions, and finish what was begun
    #[arg(long, conflicts_with = "tenant")]
    pub(crate) finish: bool,
    /// With --root: drop this old root key, once nothing lies under it; what backups hold of it opens no more
    #[arg(long, value_name = "ID", requires = "root", conflicts_with = "finish")]
    pub(crate) retire: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct KeyAhead {
    /// Of this region [default: where this host is]
    #[arg(long, value_name = "NAME", value_parser = parsed::<Region>)]
    pub(crate) region: Option<Region>,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("new").required(true).args(["new_file", "none"]))]
pub(crate) struct KeyPassphrase {
    /// Of this region's root-key file [default: where this host is]
    #[arg(long, value_name = "NAME", value_parser = parsed::<Region>)]
    pub(crate) region: Option<Region>,
    /// The file whose first line is the new passphrase; mode 0600
    #[arg(long, value_name = "FILE")]
    pub(crate) new_file: Option<PathBuf>,
    /// Under no passphrase: whoever reads the file has the root keys
    #[arg(long)]
    pub(crate) none: bool,
}

#[derive(Debug, Args)]
pub(crate) struct KeyRewrap {
    /// Segments, or directories with them; each is replaced by its next edition, or left as it is
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct KeyErase {
    /// The segment
    pub(crate) file: PathBuf,
    /// The lanes' numbers, or `all`: every copy of the segment
    #[arg(value_name = "LANE|all", required = true)]
    pub(crate) lanes: Vec<String>,
    /// The segment's name, as `inspect` shows it
    #[arg(long, value_name = "SEGMENT")]
    pub(crate) confirm: String,
    /// Why
    #[arg(long, default_value = "maintenance", value_parser = parsed::<Purpose>)]
    pub(crate) purpose: Purpose,
    /// The reference of the request behind it
    #[arg(long, value_name = "R")]
    pub(crate) reference: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct KeyExpire {
    /// Of this region [default: where this host is]
    #[arg(long, value_name = "NAME", value_parser = parsed::<Region>)]
    pub(crate) region: Option<Region>,
    /// Say what is due, and destroy nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HoldCommand {
    /// Add a hold
    Add(HoldChange),
    /// Release a hold
    Release(HoldChange),
    /// List the holds that stand
    List(HoldList),
}

#[derive(Debug, Args)]
pub(crate) struct HoldChange {
    /// The tenant
    #[arg(value_parser = parsed::<TenantId>)]
    pub(crate) tenant: TenantId,
    /// The record type, or `all`
    #[arg(value_name = "TYPE|all", value_parser = parsed::<Types>)]
    pub(crate) types: Types,
    /// Why; it stands in the ledger in clear
    #[arg(long, value_name = "R")]
    pub(crate) reason: String,
    /// In this region [default: where this host is]
    #[arg(long, value_name = "NAME", value_parser = parsed::<Region>)]
    pub(crate) region: Option<Region>,
}

#[derive(Debug, Args)]
pub(crate) struct HoldList {
    /// In this region [default: where this host is]
    #[arg(long, value_name = "NAME", value_parser = parsed::<Region>)]
    pub(crate) region: Option<Region>,
}

#[derive(Debug, Args)]
pub(crate) struct KeyShred {
    /// The tenant
    #[arg(value_parser = parsed::<TenantId>)]
    pub(crate) tenant: TenantId,
    /// The record type, or `all`
    #[arg(value_name = "TYPE|all", value_parser = parsed::<Types>)]
    pub(crate) types: Types,
    /// The tenant once more
    #[arg(long, value_name = "TENANT", value_parser = parsed::<TenantId>)]
    pub(crate) confirm: TenantId,
    /// For how long nothing is sealed or opened before the keys are destroyed
    #[arg(long, value_name = "DAYS", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=365))]
    pub(crate) pending: u32,
    /// In this region [default: where this host is]
    #[arg(long, value_name = "NAME", value_parser = parsed::<Region>)]
    pub(crate) region: Option<Region>,
}

#[derive(Debug, Args)]
pub(crate) struct KeyUnshred {
    /// The tenant
    #[arg(value_parser = parsed::<TenantId>)]
    pub(crate) tenant: TenantId,
    /// The record type, or `all`: as it was asked for
    #[arg(value_name = "TYPE|all", value_parser = parsed::<Types>)]
    pub(crate) types: Types,
    /// The tenant once more
    #[arg(long, value_name = "TENANT", value_parser = parsed::<TenantId>)]
    pub(crate) confirm: TenantId,
    /// In this region [default: where this host is]
    #[arg(long, value_name = "NAME", value_parser = parsed::<Region>)]
    pub(crate) region: Option<Region>,
}

#[derive(Debug, Args)]
pub(crate) struct KeyReplay {
    /// The newest export of the audit of the region whose store was restored
    pub(crate) export: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// List events of this region's store, oldest first
    List(AuditList),
    /// Verify every chain and the ledger of a region, in its store or in an export
    Verify(AuditVerify),
    /// Write ledger, chains and homes of a region to a file that the store's writers cannot change
    Export(AuditExport),
    /// Say in the ledger how far the chains have come: what is cut from them later shows
    Checkpoint(AuditCheckpoint),
}

#[derive(Debug, Args)]
pub(crate) struct AuditList {
    /// Of this region [default: where this host is]
    #[arg(long, value_name = "NAME", value_parser = parsed::<Region>)]
    pub(crate) region: Option<Region>,
    /// Events of this kind alone
    #[arg(long, value_name = "KIND")]
    pub(crate) event: Option<String>,
    /// Events about this tenant alone
    #[arg(long, value_name = "T", value_parser = parsed::<TenantId>)]
    pub(crate) tenant: Option<TenantId>,
}

#[derive(Debug, Args)]
pub(crate) struct AuditVerify {
    /// Of this region [default: where this host is]
    #[arg(long, value_name = "NAME", value_parser = parsed::<Region>)]
    pub(crate) region: Option<Region>,
    /// An export that was kept elsewhere: the store must hold at least what it does
    #[arg(long, value_name = "FILE")]
    pub(crate) against: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct AuditExport {
    /// Of this region [default: where this host is]
    #[arg(long, value_name = "NAME", value_parser = parsed::<Region>)]
    pub(crate) region: Option<Region>,
    /// Where to write it; with --every a directory
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Say a checkpoint and export, again and again until stopped, so often: `5 minutes`, `1 hour`
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub(crate) every: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct AuditCheckpoint {
    /// Of this region [default: where this host is]
    #[arg(long, value_name = "NAME", value_parser = parsed::<Region>)]
    pub(crate) region: Option<Region>,
    /// Look at every key row, too
    #[arg(long)]
    pub(crate) keys: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Bring the schemas of all configured stores up to date; make one in an empty PostgreSQL database
    Migrate(StoreMigrate),
    /// Look whether stores are whole, guarded and of today; no key service is called, and nothing changed
    Check(StoreCheck),
    /// Copy a store while others use it (SQLite; for PostgreSQL it says the command)
    Backup(StoreBackup),
}

#[derive(Debug, Args)]
pub(crate) struct StoreCheck {
    /// The store of this region alone [default: all stores, and the registry of homes]
    #[arg(long, value_name = "NAME", value_parser = parsed::<Region>)]
    pub(crate) region: Option<Region>,
}

#[derive(Debug, Args)]
pub(crate) struct StoreBackup {
    /// The copy
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// The store of this region [default: where this host is]
    #[arg(long, value_name = "NAME", value_parser = parsed::<Region>)]
    pub(crate) region: Option<Region>,
    /// Replace a copy that exists
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StoreMigrate {
    /// Shut out older programs, once none is left
    #[arg(long)]
    pub(crate) contract: bool,
}

#[derive(Debug, Args)]
pub(crate) struct HomeList {
    /// This tenant's alone
    #[arg(long, value_name = "T", value_parser = parsed::<TenantId>)]
    pub(crate) tenant: Option<TenantId>,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("scoping").required(true).args(["tenant", "route"]))]
pub(crate) struct Seal {
    /// What to seal: files, directories, `-` for standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub(crate) files: Vec<OsString>,
    /// Whose records they are
    #[arg(long, value_name = "T", requires = "record_type", value_parser = parsed::<TenantId>)]
    pub(crate) tenant: Option<TenantId>,
    /// Of which type
    #[arg(
        long = "type",
        id = "record_type",
        value_name = "TYPE",
        requires = "tenant",
        value_parser = parsed::<RecordType>
    )]
    pub(crate) record_type: Option<RecordType>,
    /// Records of many scopes: the columns or fields that name each record's own
    #[arg(long, value_name = "tenant=COLUMN,type=COLUMN", value_parser = route)]
    pub(crate) route: Option<Route>,
    /// The segment to write; with --route a directory, in which each home has its own
    #[arg(long, short, value_name = "OUT")]
    pub(crate) output: PathBuf,
    /// How records stand in the input: auto, lines, csv, json, blocks, ber, ts32297, length-prefixed,
    /// length-prefixed-inclusive or whole
    #[arg(long, value_name = "FRAMING", default_value = "auto", value_parser = parsed::<Choice>)]
    pub(crate) framing: Choice,
    /// The column or field with a record's event time; otherwise the time of sealing counts
    #[arg(long, value_name = "FIELD")]
    pub(crate) time: Option<String>,
    /// Event times that may lie further from now than `event_window` of the configuration has it; it is audited
    #[arg(long, value_name = "FROM..TO", requires = "time", value_parser = times)]
    pub(crate) backfill: Option<Range<Time>>,
    /// What becomes of records that may not be sealed here
    #[arg(long, value_enum, default_value_t, requires = "route", conflicts_with = "tenant")]
    pub(crate) elsewhere: Elsewhere,
    /// Records that keep coming: OUT is a directory of segments, and the last number of each line on standard output says
    /// how many records are safe so far; without --framing, records are lines
    #[arg(long, requires = "tenant", conflicts_with_all = ["route", "force", "backfill"])]
    pub(crate) acknowledge: bool,
    /// How long records wait for others to be made durable with them
    #[arg(long, value_name = "TIME", default_value = "20ms", requires = "acknowledge", value_parser = interval)]
    pub(crate) commit_interval: Duration,
    /// The cipher
    #[arg(long, value_enum, default_value_t)]
    pub(crate) suite: SuiteName,
    /// Compress blocks by zstd before they are sealed; how well they compress can be seen then
    #[arg(long)]
    pub(crate) compress: bool,
    /// Replace an output that exists
    #[arg(long)]
    pub(crate) force: bool,
}

impl Seal {
    /// How segments are written.
    pub(crate) fn writer_options(&self) -> WriterOptions {
        let compression = if self.compress { Compression::Zstd } else { Compression::None };
        WriterOptions { suite: self.suite.into(), compression, ..WriterOptions::default() }
    }
}

/// What becomes of records that may not be sealed here.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum Elsewhere {
    /// Nothing is written, and the scopes are named
    #[default]
    Refuse,
    /// They are sealed as a post of their home does, as the section `post` of the configuration has it
    Post,
    /// They are left out and counted
    Skip,
}

/// A cipher.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum SuiteName {
    /// AES-256-GCM
    #[default]
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
    /// ChaCha20-Poly1305
    #[value(name = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

impl From<SuiteName> for Suite {
    fn from(name: SuiteName) -> Self {
        match name {
            SuiteName::Aes256Gcm => Suite::Aes256Gcm,
            SuiteName::ChaCha20Poly1305 => Suite::ChaCha20Poly1305,
        }
    }
}

/// The fields that name a record's scope.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) tenant: String,
    pub(crate) record_type: String,
}

#[derive(Debug, Args)]
pub(crate) struct Open {
    /// Segments: files, directories, URLs of objects (s3://BUCKET/NAME, file:///PATH; those below a prefix, if it ends with
    /// `/`), `-` for standard input
    #[arg(value_name = "FILE.dseg", required = true)]
    pub(crate) files: Vec<OsString>,
    /// Why: billing, support, debugging, subject-request, legal-request, portability, verification or
    /// maintenance
    #[arg(long, value_name = "P", value_parser = parsed::<Purpose>)]
    pub(crate) purpose: Purpose,
    /// The reference of the request, such as a ticket or a file number; no telephone number
    #[arg(long, value_name = "R")]
    pub(crate) reference: Option<String>,
    /// This tenant's records alone
    #[arg(long, value_name = "T", value_parser = parsed::<TenantId>)]
    pub(crate) tenant: Option<TenantId>,
    /// Records of this type alone
    #[arg(long = "type", value_name = "TYPE", value_parser = parsed::<RecordType>)]
    pub(crate) record_type: Option<RecordType>,
    /// Records from this time on
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) from: Option<Time>,
    /// Records before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) to: Option<Time>,
    /// Records by number, from 0, B not included; either may be left out
    #[arg(long, value_name = "A..B", value_parser = records)]
    pub(crate) records: Option<std::ops::Range<u64>>,
    /// Octets of a record that is alone in its lane, such as a recording, from 0, B not included; either may be left out
    #[arg(long, value_name = "A..B", value_parser = records, conflicts_with_all = ["from", "to", "records"])]
    pub(crate) bytes: Option<std::ops::Range<u64>>,
    /// The lanes of --tenant and --type by themselves: of an object that is far away, three requests find and read one lane,
    /// however many there are. Each lane's end vouches for it; that no lane is missing, nobody looked
    #[arg(long, conflicts_with = "follow")]
    pub(crate) alone: bool,
    /// Follow one segment that is still written, until it ends, or a directory, until this is ended: records as they become durable
    #[arg(long, conflicts_with_all = ["from", "to", "records", "bytes", "output"])]
    pub(crate) follow: bool,
    /// Where to write; otherwise standard output
    #[arg(long, short, value_name = "OUT")]
    pub(crate) output: Option<PathBuf>,
    /// Replace an output that exists
    #[arg(long, requires = "output")]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Upload {
    /// Finished segments, or directories with them
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<OsString>,
    /// Where to, ending with `/`: below one of `objects` of their region's configuration. Their names there are
    /// REGION/DAY/SEGMENT.dseg
    #[arg(value_name = "URL")]
    pub(crate) url: String,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A segment, a directory of segments, the URL of an object or of a prefix, or `-` for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: OsString,
}

#[derive(Debug, Args)]
pub(crate) struct Why {
    /// A segment, a directory of segments, the URL of an object or of a prefix, or `-` for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: OsString,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Segments: files, directories, URLs of objects or prefixes, `-` for standard input
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Recover {
    /// Segments, or directories with them; each is replaced by its closed edition, or left as it is
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Settle {
    /// Segments, or directories with them; they stay as they are
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<OsString>,
    /// The directory under which the new editions are written, by region and day
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Compact {
    /// Segments, or directories with them
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<OsString>,
    /// The directory under which the new segments are written, by region and day
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Retire what is replaced, in every copy, and remove it, once the new segment is verified and has its name
    #[arg(long)]
    pub(crate) retire: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PostCommand {
    /// At the post: make its identity, a key of its own that opens nothing
    Init(PostInit),
    /// At home: let a post seal for scopes
    Enrol(PostEnrol),
    /// At home: adopt nothing of a post any more
    Revoke(PostRevoke),
    /// At home: sign a bundle of public keys for posts
    Export(PostExport),
    /// At the post: seal records; no configuration is needed
    Seal(PostSeal),
    /// At home: verify what posts sealed, and take it under the home's own keys
    Adopt(PostAdopt),
    /// At home: list the posts
    List(PostList),
}

#[derive(Debug, Args)]
pub(crate) struct PostInit {
    /// The post
    #[arg(value_parser = parsed::<PostId>)]
    pub(crate) name: PostId,
    /// A home that it seals for, and the key that signs there: `signing_key` in that home's configuration; again for more
    #[arg(long = "home", value_name = "REGION=KEY", required = true, value_parser = home_key)]
    pub(crate) homes: Vec<(Region, VerifyingKey)>,
    /// The identity to write; its public half goes beside it, with .pub behind its name
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct PostEnrol {
    /// The post
    #[arg(value_parser = parsed::<PostId>)]
    pub(crate) name: PostId,
    /// Its public key, as `post init` wrote it
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// Records that it may seal; again for more
    #[arg(long = "scope", value_name = "TENANT/TYPE", required = true, value_parser = parsed::<PostScope>)]
    pub(crate) scopes: Vec<PostScope>,
    /// The home [default: where this host is]
    #[arg(long, value_name = "NAME", value_parser = parsed::<Region>)]
    pub(crate) region: Option<Region>,
}

#[derive(Debug, Args)]
pub(crate) struct PostRevoke {
    /// The post
    #[arg(value_parser = parsed::<PostId>)]
    pub(crate) name: PostId,
    /// The home [default: where this host is]
    #[arg(long, value_name = "NAME", value_parser = parsed::<Region>)]
    pub(crate) region: Option<Region>,
}

#[derive(Debug, Args)]
pub(crate) struct PostExport {
    /// The bundle to write
    #[arg(value_name = "BUNDLE")]
    pub(crate) bundle: PathBuf,
    /// The posts that it is for; again for more [default: all that are enrolled]
    #[arg(long = "post", value_name = "NAME", value_parser = parsed::<PostId>)]
    pub(crate) posts: Vec<PostId>,
    /// For how many days it has keys, from today
    #[arg(long, value_name = "N", default_value_t = 14)]
    pub(crate) days: u16,
    /// The longest that a segment is under way, in days: what comes later is lost
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub(crate) shipping_days: u16,
    /// The home [default: where this host is]
    #[arg(long, value_name = "NAME", value_parser = parsed::<Region>)]
    pub(crate) region: Option<Region>,
    /// Replace a bundle that exists
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PostSeal {
    /// What to seal: files, directories, `-` for standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub(crate) files: Vec<OsString>,
    /// The bundle of the home [default: the first of the section `post` of the configuration]
    #[arg(long, value_name = "BUNDLE", requires = "identity")]
    pub(crate) bundle: Option<PathBuf>,
    /// The identity of the post [default: that of the section `post` of the configuration]
    #[arg(long, value_name = "FILE", requires = "bundle")]
    pub(crate) identity: Option<PathBuf>,
    /// Whose records they are
    #[arg(long, value_name = "T", value_parser = parsed::<TenantId>)]
    pub(crate) tenant: TenantId,
    /// Of which type
    #[arg(long = "type", value_name = "TYPE", value_parser = parsed::<RecordType>)]
    pub(crate) record_type: RecordType,
    /// The segment to write
    #[arg(long, short, value_name = "OUT")]
    pub(crate) output: PathBuf,
    /// How records stand in the input: auto, lines, csv, json, blocks, ber, ts32297, length-prefixed,
    /// length-prefixed-inclusive or whole
    #[arg(long, value_name = "FRAMING", default_value = "auto", value_parser = parsed::<Choice>)]
    pub(crate) framing: Choice,
    /// The column or field with a record's event time; otherwise the time of sealing counts
    #[arg(long, value_name = "FIELD")]
    pub(crate) time: Option<String>,
    /// Event times that may lie more than 40 days back or one ahead
    #[arg(long, value_name = "FROM..TO", requires = "time", value_parser = times)]
    pub(crate) backfill: Option<Range<Time>>,
    /// Replace an output that exists
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PostAdopt {
    /// What posts sealed: files, directories, `-` for standard input
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<OsString>,
    /// Where adopted segments go: DIR, by region and day of sealing
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// The home [default: where this host is]
    #[arg(long, value_name = "NAME", value_parser = parsed::<Region>)]
    pub(crate) region: Option<Region>,
}

#[derive(Debug, Args)]
pub(crate) struct PostList {
    /// The home [default: where this host is]
    #[arg(long, value_name = "NAME", value_parser = parsed::<Region>)]
    pub(crate) region: Option<Region>,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Where to write the pages
    pub(crate) directory: PathBuf,
}

/// Parses what the library knows how to parse, and says the rule when it cannot.
fn parsed<T: FromStr<Err = domicile::Error>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: domicile::Error| {
        [Some(error.what()), error.broken_rule(), error.advice()]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join("; ")
    })
}

fn place(text: &str) -> Result<Place, String> {
    let (region, jurisdiction) =
        text.split_once('=').ok_or("write it NAME=JURISDICTION, like eu-central-1=EU")?;
    Ok(Place { region: parsed(region)?, jurisdiction: parsed::<Jurisdiction>(jurisdiction)? })
}

fn home_key(text: &str) -> Result<(Region, VerifyingKey), String> {
    let (region, key) = text.split_once('=').ok_or("write it REGION=KEY, like eu-central-1=ed25519:…")?;
    Ok((parsed(region)?, parsed(key)?))
}

fn route(text: &str) -> Result<Route, String> {
    let how = "write it tenant=COLUMN,type=COLUMN";
    let (mut tenant, mut record_type) = (None, None);
    for part in text.split(',') {
        match part.split_once('=').ok_or(how)? {
            ("tenant", column) if tenant.is_none() && !column.is_empty() => tenant = Some(column.to_owned()),
            ("type", column) if record_type.is_none() && !column.is_empty() => {
                record_type = Some(column.to_owned());
            }
            _ => return Err(how.to_owned()),
        }
    }
    Ok(Route { tenant: tenant.ok_or(how)?, record_type: record_type.ok_or(how)? })
}

fn time(text: &str) -> Result<Time, String> {
    event_time::recognise(text).ok_or_else(|| "write it like 2026-11-24T08:30:00Z or 2026-11-24".to_owned())
}

fn times(text: &str) -> Result<Range<Time>, String> {
    let how = "write it FROM..TO, like 2026-01-01..2026-02-01";
    let (from, to) = text.split_once("..").ok_or(how)?;
    let range = time(from)?..time(to)?;
    if range.start >= range.end { Err("it ends before it begins".to_owned()) } else { Ok(range) }
}

fn records(text: &str) -> Result<std::ops::Range<u64>, String> {
    let how = "write it A..B, like 0..100, ..100 or 100..";
    let (start, end) = text.split_once("..").ok_or(how)?;
    let number = |text: &str, otherwise: u64| if text.is_empty() { Ok(otherwise) } else { text.parse() };
    let range = number(start, 0).map_err(|_| how)?..number(end, u64::MAX).map_err(|_| how)?;
    if range.start > range.end { Err("it ends before it begins".to_owned()) } else { Ok(range) }
}

/// A time of at least a second, as it is said: `5 minutes`.
fn span(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        span if span >= Duration::from_secs(1) => Ok(span),
        _ => Err("a time of at least a second".to_owned()),
    }
}

/// How long records may wait: `20ms`, up to a minute.
fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        interval if interval <= Duration::from_secs(60) => Ok(interval),
        _ => Err("a time of at most a minute".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let span = domicile::retention::span(text).map_err(|error| error.to_string())?;
    let day = domicile::Time::EPOCH;
    let until = day.after(span).map(|until| until.micros() - day.micros());
    let duration = until.and_then(|micros| u64::try_from(micros).ok()).map(Duration::from_micros);
    duration.ok_or_else(|| "a time, like 20ms or 5 minutes".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn ranges_and_routes_are_read_as_they_are_documented() {
        assert_eq!(records("3..5"), Ok(3..5));
        assert_eq!(records("..5"), Ok(0..5));
        assert_eq!(records("3.."), Ok(3..u64::MAX));
        assert!(times("2026-01-01..2026-02-01").is_ok());
        for bad in ["2026-01-01", "2026-02-01..2026-01-01", "..2026-01-01", "2026-01-01..", ""] {
            assert!(times(bad).is_err(), "{bad}");
        }
        for bad in ["3", "5..3", "a..b", "-1..2", "1...2"] {
            records(bad).unwrap_err();
        }
        let both = route("type=kind,tenant=account").unwrap();
        assert_eq!((both.tenant.as_str(), both.record_type.as_str()), ("account", "kind"));
        for bad in ["", "tenant=a", "tenant=a,tenant=b", "tenant=,type=b", "account=a,type=b"] {
            route(bad).unwrap_err();
        }
    }
}
