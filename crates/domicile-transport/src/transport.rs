//! The door: a host with its identity, which makes and takes connections to and from where they may be.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use domicile::{Clock, Code, Config, Error, Result, SystemClock, hex};
use rustls::client::Resumption;
use rustls::pki_types::{DnsName, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, CommonState, KeyLog, NoKeyLog, ServerConfig};

use crate::Identity;
use crate::certificate::end_point;
use crate::check::Check;
use crate::exchange::Exchange;
use crate::lease::{Lease, Registry, Slot, Terms};
use crate::observe;
use crate::peer::{Facts, Peer};
use crate::provider::{ClockTime, Provider, provider};
use crate::settings::Settings;
use crate::trust::{Approved, End, Expected, Stamp, Trust};

/// A host with its identity and what it knows of others. Cheap to clone.
///
/// ```no_run
/// # fn main() -> domicile::Result<()> {
/// use domicile_transport::{Exchange, Target, Transport};
///
/// let config = domicile::Config::read("domicile.toml".as_ref())?;
/// let transport = Transport::open(&config)?;
/// // What goes home goes to hosts in the home region alone: any other is refused during the handshake.
/// let home = transport.connector(Exchange::home(config.here()));
/// let stream = home.connect("store.eu.example:7443", &Target::named("store.eu.example")?)?;
/// println!("{} in {}", stream.peer().identity(), stream.peer().place());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Transport {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    trust: RwLock<Arc<Trust>>,
    /// Held while files are read again, so that the last who read is the last who says.
    reloading: Mutex<()>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) clock: Arc<dyn Clock>,
    key_log: Arc<dyn KeyLog>,
}

/// How a [`Transport`] begins where the usual is not enough.
#[derive(Debug)]
#[must_use]
pub struct Builder {
    settings: Settings,
    clock: Arc<dyn Clock>,
    key_log: Option<PathBuf>,
}

/// Makes connections for one exchange. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connector {
    pub(crate) transport: Transport,
    exchange: Exchange,
    protocols: Vec<Vec<u8>>,
}

/// Takes connections for one exchange. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Acceptor {
    pub(crate) transport: Transport,
    exchange: Exchange,
    protocols: Vec<Vec<u8>>,
}

/// Whom a connection is made to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    expected: Expected,
    name: ServerName<'static>,
}

/// What reading certificates, keys and lists again changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloaded {
    /// How many connections were ended, because they would not be made now.
    pub ended: usize,
}

impl Target {
    /// Whoever has a certificate for this name of a host, or this address, beside its identity.
    ///
    /// # Errors
    /// [`NameInvalid`](Code::NameInvalid) for what is neither.
    pub fn named(name: &str) -> Result<Self> {
        let name = ServerName::try_from(name.to_owned()).map_err(|source| {
            Error::new(Code::NameInvalid, format!("{name:?} is neither the name of a host nor an address"))
                .because(source)
        })?;
        Ok(Self { expected: Expected::Name(name.clone()), name })
    }

    /// Exactly this identity, at whatever name or address. No name is sent.
    #[must_use]
    pub fn identity(identity: Identity) -> Self {
        // rustls wants a name, sends none, and the check compares none.
        let name = DnsName::try_from("identity.invalid")
            .map_or_else(|_| ServerName::from(std::net::IpAddr::from([0, 0, 0, 0])), ServerName::DnsName);
        Self { expected: Expected::Identity(identity), name }
    }

    pub(crate) fn server_name(&self) -> ServerName<'static> {
        self.name.clone()
    }
}

impl Transport {
    /// Reads certificate, key, trust anchors and revocation lists as `[transport]` of the configuration says.
    ///
    /// # Errors
    /// [`ConfigInvalid`](Code::ConfigInvalid) without such a table or with one that makes no sense;
    /// [`CertificateInvalid`](Code::CertificateInvalid) for files that cannot be used, or a certificate that is not of the
    /// region where this host is, or does not hold now; [`CertificateExposed`](Code::CertificateExposed) for a key that
    /// others can read.
    pub fn open(config: &Config) -> Result<Self> {
        Self::builder(Settings::from_config(config)?).build()
    }

    /// The same with another clock, or with a log of keys.
    pub fn builder(settings: Settings) -> Builder {
        Builder { settings, clock: Arc::new(SystemClock), key_log: None }
    }

    /// Who this host is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.trust().identity.clone()
    }

    /// What TLS stands on in this build.
    #[must_use]
    pub fn provider(&self) -> Provider {
        Provider::of_this_build()
    }

    /// How many connections there are, handshakes among them.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.inner.registry.open()
    }

    /// Makes connections for this exchange.
    #[must_use]
    pub fn connector(&self, exchange: Exchange) -> Connector {
        Connector { transport: self.clone(), exchange, protocols: Vec::new() }
    }

    /// Takes connections for this exchange.
    #[must_use]
    pub fn acceptor(&self, exchange: Exchange) -> Acceptor {
        Acceptor { transport: self.clone(), exchange, protocols: Vec::new() }
    }

    /// Reads the configuration and every file that it names again. Handshakes from now on go by them. Open connections go
    /// on, with the keys that they have; each is judged anew, and ended if it would not be made now. Where anything cannot
    /// be read, nothing changes.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn reload(&self) -> Result<Reloaded> {
        let reloaded = self.read_again();
        match &reloaded {
            Ok(Reloaded { ended }) => {
                observe::reloaded("ok");
                tracing::info!(ended, "certificates, keys and revocation lists were read again");
            }
            Err(error) => {
                observe::reloaded(error.code().as_str());
                tracing::error!(code = %error.code(), %error, "certificates, keys and revocation lists stay as they were: they could not be read again");
            }
        }
        reloaded
    }

    fn read_again(&self) -> Result<Reloaded> {
        let _alone = self.inner.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.trust();
        let stamp = Stamp::of(&before.settings.config);
        let settings = Settings::from_config(&Config::read(&before.settings.config)?)?;
        if settings.here != before.settings.here {
            return Err(Error::new(
                Code::ConfigInvalid,
                format!("this host was in {}, and is to be in {}", before.settings.here, settings.here),
            )
            .at(settings.config.display().to_string())
            .advise("start anew: a process does not move"));
        }
        let now = self.inner.clock.now();
        let trust = Arc::new(Trust::read(settings, stamp, Arc::clone(&before.provider), now)?);
        *self.inner.trust.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&trust);
        // Whoever shook hands by the old ones meanwhile looks once more when it is registered.
        Ok(Reloaded { ended: self.inner.registry.judge_again(&trust, now) })
    }

    /// To be called every few seconds while connections are open: ends those whose certificates ran out, and
    /// [reloads](Self::reload) if a file is another than the one that was read. Looks at files and reads none otherwise; it
    /// blocks as long as that takes, so that a task calls it where it may block.
    ///
    /// # Errors
    /// As [`reload`](Self::reload); everything goes on as before then.
    pub fn keep_up(&self) -> Result<Option<Reloaded>> {
        self.inner.registry.end_what_is_over();
        if self.trust().is_outdated() { self.reload().map(Some) } else { Ok(None) }
    }

    /// Judges every open connection anew, by what was read last; how many were ended.
    pub fn judge_again(&self) -> usize {
        self.inner.registry.judge_again(&self.trust(), self.inner.clock.now())
    }

    pub(crate) fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.inner.trust.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn settings_now(&self) -> Limits {
        let trust = self.trust();
        Limits { handshake: trust.settings.handshake_timeout, idle: trust.settings.idle_timeout }
    }

    /// Room for one more connection.
    pub(crate) fn admit(&self) -> Result<Slot> {
        self.inner.registry.admit(self.trust().settings.connections_max).inspect_err(|_| {
            observe::shook_hands("any", "limit", "", "");
        })
    }

    /// The second look, and from there on a connection's right to go on.
    pub(crate) fn placed(
        &self,
        connection: &CommonState,
        check: &Check,
        end: End,
        slot: Slot,
        address: Option<std::net::SocketAddr>,
    ) -> Result<Arc<Lease>> {
        let Approved { identity, place, not_after, fingerprint } = check.second_look(connection)?;
        let group = connection.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name()));
        let suite = connection.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
        let chain = connection.peer_certificates().unwrap_or_default();
        let peer = Peer::new(Facts {
            identity,
            place,
            fingerprint,
            end_point: chain.first().and_then(end_point),
            ends_at: not_after.min(check.trust.ends_at),
            key_exchange: group.unwrap_or_default(),
            suite: suite.unwrap_or_default(),
            alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
            address,
        });
        let terms = Terms {
            chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(),
            end,
            expected: check.expected.clone(),
            exchange: check.exchange.clone(),
            peer,
        };
        let lease = Registry::lease(slot, Arc::clone(&self.inner.clock), terms);
        let trust = self.trust();
        if !Arc::ptr_eq(&trust, &check.trust) {
            // What was read again during the handshake did not see this connection.
            lease.judge_again(&trust, self.inner.clock.now());
        }
        lease.check()?;
        Ok(lease)
    }
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) handshake: Duration,
    pub(crate) idle: Duration,
}

impl Builder {
    /// Judges times by another clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Writes the secrets of every connection into a file, in the form of `SSLKEYLOGFILE`, for tools that look into
    /// recorded traffic. **Whoever has that file reads everything that is sent and received.** It is never done unless it
    /// is asked for here, no environment variable asks for it, and each start says so as a warning.
    pub fn danger_log_keys_to(mut self, path: &Path) -> Self {
        self.key_log = Some(path.to_owned());
        self
    }

    /// Reads what the settings name.
    ///
    /// # Errors
    /// As [`Transport::open`]; [`OutputFailed`](Code::OutputFailed) where keys are to be logged and cannot be.
    pub fn build(self) -> Result<Transport> {
        let stamp = Stamp::of(&self.settings.config);
        let trust = Trust::read(self.settings, stamp, provider(), self.clock.now())?;
        let key_log: Arc<dyn KeyLog> = match &self.key_log {
            None => Arc::new(NoKeyLog),
            Some(path) => Arc::new(KeyFile::create(path)?),
        };
        tracing::info!(identity = %trust.identity, provider = Provider::of_this_build().as_str(), "connections are placed");
        if Provider::of_this_build() == Provider::Ring {
            tracing::warn!(
                "this build has no post-quantum key exchange: what is recorded today may be read once X25519 falls"
            );
        }
        let registry = Registry::new();
        let (trust, reloading) = (RwLock::new(Arc::new(trust)), Mutex::new(()));
        Ok(Transport { inner: Arc::new(Inner { trust, reloading, registry, clock: self.clock, key_log }) })
    }
}

impl Connector {
    /// Offers these protocols inside (ALPN), the best first.
    #[must_use]
    pub fn protocols(mut self, protocols: &[&[u8]]) -> Self {
        self.protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        self
    }

    /// A check for one connection, and what rustls needs for it: both are made anew each time, so that no session outlives
    /// its connection.
    pub(crate) fn begin(&self, target: &Target) -> Result<(Arc<Check>, ClientConfig)> {
        let trust = self.transport.trust();
        let check = Check::new(trust, self.exchange.clone(), target.expected.clone());
        let time = Arc::new(ClockTime(Arc::clone(&self.transport.inner.clock)));
        let config = ClientConfig::builder_with_details(Arc::clone(&check.trust.provider), time)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(cannot_begin)?;
        let config = config.dangerous().with_custom_certificate_verifier(Arc::clone(&check) as _);
        let mut config = config.with_client_cert_resolver(Arc::clone(&check.trust.own) as _);
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        config.enable_sni = matches!(target.expected, Expected::Name(_));
        config.alpn_protocols.clone_from(&self.protocols);
        config.key_log = Arc::clone(&self.transport.inner.key_log);
        Ok((check, config))
    }
}

impl Acceptor {
    /// Takes these protocols inside (ALPN), the best first; a client that offers none of them is refused, one that offers
    /// nothing is not.
    #[must_use]
    pub fn protocols(mut self, protocols: &[&[u8]]) -> Self {
        self.protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        self
    }

    /// As [`Connector::begin`].
    pub(crate) fn begin(&self) -> Result<(Arc<Check>, ServerConfig)> {
        let trust = self.transport.trust();
        let check = Check::new(trust, self.exchange.clone(), Expected::Anybody);
        let time = Arc::new(ClockTime(Arc::clone(&self.transport.inner.clock)));
        let config = ServerConfig::builder_with_details(Arc::clone(&check.trust.provider), time)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(cannot_begin)?;
        let config = config.with_client_cert_verifier(Arc::clone(&check) as _);
        let mut config = config.with_cert_resolver(Arc::clone(&check.trust.own) as _);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config.alpn_protocols.clone_from(&self.protocols);
        config.key_log = Arc::clone(&self.transport.inner.key_log);
        Ok((check, config))
    }
}

fn cannot_begin(source: rustls::Error) -> Error {
    Error::new(Code::ConnectionFailed, "TLS cannot begin").because(source)
}

/// A log of keys, asked for.
#[derive(Debug)]
struct KeyFile(Mutex<std::fs::File>);

impl KeyFile {
    fn create(path: &Path) -> Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let file = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        let file = file.map_err(|source| {
            Error::output_failed("the log of keys could not be opened", source).at(path.display().to_string())
        })?;
        tracing::warn!(path = %path.display(), "THE KEYS OF ALL CONNECTIONS ARE WRITTEN TO A FILE: whoever has it reads everything that they carry");
        Ok(Self(Mutex::new(file)))
    }
}

impl KeyLog for KeyFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let line = zeroize::Zeroizing::new(format!(
            "{label} {} {}\n",
            hex::encode(client_random),
            hex::encode(secret)
        ));
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(line.as_bytes()) {
            tracing::warn!(%error, "the log of keys could not be written");
        }
    }
}

#[cfg(feature = "authority")]
#[cfg(test)]
mod tests {
    //! The second look: a session that rustls resumed, though nothing here lets it, is refused after the handshake.

    use super::*;
    use crate::authority::{Authority, Issue};
    use rustls::{ClientConnection, HandshakeKind, ServerConnection};

    fn host(directory: &Path) -> Transport {
        let (region, now) = ("eu".parse().unwrap(), SystemClock.now());
        let hour = Duration::from_hours(1);
        let authority =
            Authority::create(directory, &region, Settings::TRUST_DOMAIN, hour, hour, now).unwrap();
        let issue = Issue { service: "x", dns_names: &["x.example".to_owned()], valid: hour, replace: false };
        authority.issue(directory, &issue, now).unwrap();
        let key = "ed25519:3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
        let text = format!(
            "here = \"eu\"\nstore = \"sqlite://s\"\n[regions.eu]\njurisdiction = \"EU\"\nsigning_key = \"{key}\"\n[transport]\ncertificate = \"eu.x.pem\"\nkey = \"eu.x.key\"\n[transport.regions.eu]\nanchors = [\"eu.authority.pem\"]\ncrls = [\"eu.authority.crl\"]\n"
        );
        Transport::open(&Config::parse(&text, &directory.join("domicile.toml")).unwrap()).unwrap()
    }

    fn meet(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> (ClientConnection, ServerConnection) {
        let name = ServerName::try_from("x.example").unwrap();
        let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
        let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
        // Until neither has more to say, tickets among it.
        while client.wants_write() || server.wants_write() {
            let mut flight = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut flight).unwrap();
            }
            let mut flight = flight.as_slice();
            while !flight.is_empty() {
                server.read_tls(&mut flight).unwrap();
                server.process_new_packets().unwrap();
            }
            let mut flight = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut flight).unwrap();
            }
            let mut flight = flight.as_slice();
            while !flight.is_empty() {
                client.read_tls(&mut flight).unwrap();
                client.process_new_packets().unwrap();
            }
        }
        (client, server)
    }

    #[test]
    fn what_resumed_all_the_same_is_refused_by_the_second_look() {
        let directory = tempfile::tempdir().unwrap();
        let host = host(directory.path());
        let exchange = Exchange::from_anywhere("records");
        let (client_check, mut client) =
            host.connector(exchange.clone()).begin(&Target::named("x.example").unwrap()).unwrap();
        let (server_check, mut server) = host.acceptor(exchange).begin().unwrap();
        // As it would be, were either end set up by hand and wrongly.
        client.resumption = Resumption::in_memory_sessions(4);
        server.session_storage = rustls::server::ServerSessionMemoryCache::new(4);
        (server.send_tls13_tickets, server.max_tls13_tickets) = (2, 2);
        let (client, server) = (Arc::new(client), Arc::new(server));
        let (here, there) = meet(&client, &server);
        assert_eq!(there.handshake_kind(), Some(HandshakeKind::Full));
        client_check.second_look(&here).unwrap();
        server_check.second_look(&there).unwrap();
        let (here, there) = meet(&client, &server);
        assert_eq!(there.handshake_kind(), Some(HandshakeKind::Resumed));
        let ends: [(_, &CommonState); 2] = [(&client_check, &here), (&server_check, &there)];
        for (check, connection) in ends {
            let refused = check.second_look(connection).unwrap_err();
            assert_eq!(refused.code(), Code::PeerUnverified);
            assert!(refused.what().contains("resumed"), "{refused}");
        }
    }

    #[test]
    fn what_was_never_judged_or_is_another_is_refused_by_the_second_look() {
        let directory = tempfile::tempdir().unwrap();
        let host = host(directory.path());
        let exchange = Exchange::from_anywhere("records");
        let target = Target::named("x.example").unwrap();
        let (_, client) = host.connector(exchange.clone()).begin(&target).unwrap();
        let (good, server) = host.acceptor(exchange.clone()).begin().unwrap();
        let (_, there) = meet(&Arc::new(client), &Arc::new(server));
        good.second_look(&there).unwrap();
        // A check that rustls never asked.
        let (never, _) = host.acceptor(exchange.clone()).begin().unwrap();
        assert!(never.second_look(&there).unwrap_err().what().contains("was not judged"));
        // One that was asked of another certificate.
        let issue = Issue {
            service: "x",
            dns_names: &["x.example".to_owned()],
            valid: Duration::from_hours(1),
            replace: true,
        };
        let authority = Authority::open(directory.path(), &"eu".parse().unwrap()).unwrap();
        authority.issue(directory.path(), &issue, SystemClock.now()).unwrap();
        let other = Transport::builder(host.trust().settings.clone()).build().unwrap();
        let (_, client) = other.connector(exchange).begin(&target).unwrap();
        let (_, server) = host.acceptor(Exchange::from_anywhere("records")).begin().unwrap();
        let (_, replaced) = meet(&Arc::new(client), &Arc::new(server));
        assert!(good.second_look(&replaced).unwrap_err().what().contains("is not the one that was judged"));
    }

    #[test]
    fn secrets_show_nothing_of_themselves() {
        let directory = tempfile::tempdir().unwrap();
        let host = host(directory.path());
        let authority = Authority::open(directory.path(), &"eu".parse().unwrap()).unwrap();
        let keys =
            ["eu.x.key", "eu.authority.key"].map(|file| std::fs::read(directory.path().join(file)).unwrap());
        let shown = format!("{host:?}{authority:?}");
        for key in keys {
            use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
            let der = PrivateKeyDer::from_pem_slice(&key).unwrap();
            let octets = der.secret_der();
            // The scalar of a P-256 key in PKCS#8 begins at its 36th octet.
            let scalar = octets.get(36..68).unwrap();
            assert!(!shown.contains(&domicile::hex::encode(scalar)));
            assert!(!shown.contains(&format!("{scalar:?}").trim_matches(['[', ']']).to_owned()));
        }
    }
}
