//! What connections are held against: rustls alone, with the same provider and mutual authentication.

use std::io::{Read, Write};
use std::sync::Arc;

use domicile_tests::hosts::{Hosts, NAME, REGIONS};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

/// How two plain ends are set up.
pub(crate) struct Plain {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Plain {
    /// Mutual authentication by rustls's own verifiers, with revocation lists, and no resumption: what anybody would write.
    pub(crate) fn new(hosts: &Hosts, post_quantum: bool) -> Self {
        let mut provider = default_provider();
        provider.kx_groups = if post_quantum {
            vec![kx_group::X25519MLKEM768, kx_group::X25519]
        } else {
            vec![kx_group::X25519]
        };
        let provider = Arc::new(provider);
        let (mut roots, mut lists) = (RootCertStore::empty(), Vec::new());
        for (region, _) in REGIONS {
            roots
                .add(CertificateDer::from_pem_file(hosts.file(&format!("{region}.authority.pem"))).unwrap())
                .unwrap();
            let list = hosts.file(&format!("{region}.authority.crl"));
            lists.push(CertificateRevocationListDer::from_pem_file(list).unwrap());
        }
        let roots = Arc::new(roots);
        let own = |region: &str| {
            let chain = CertificateDer::pem_file_iter(hosts.file(&format!("{region}.store.pem"))).unwrap();
            let key = PrivateKeyDer::from_pem_file(hosts.file(&format!("{region}.store.key"))).unwrap();
            (chain.map(|certificate| certificate.unwrap()).collect::<Vec<_>>(), key)
        };
        let servers = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let servers = servers.with_crls(lists.clone()).enforce_revocation_expiration().build().unwrap();
        let clients = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
        let clients = clients.with_crls(lists).enforce_revocation_expiration().build().unwrap();
        let only_13 = &[&rustls::version::TLS13];
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(only_13)
            .unwrap();
        let client = client.dangerous().with_custom_certificate_verifier(servers);
        let (chain, key) = own("eu-west-1");
        let mut client = client.with_client_auth_cert(chain, key).unwrap();
        client.resumption = Resumption::disabled();
        let server = ServerConfig::builder_with_provider(provider).with_protocol_versions(only_13).unwrap();
        let (chain, key) = own("eu-central-1");
        let mut server = server.with_client_cert_verifier(clients).with_single_cert(chain, key).unwrap();
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        Self { client: Arc::new(client), server: Arc::new(server) }
    }

    pub(crate) fn connect<T: Read + Write>(&self, socket: T) -> StreamOwned<ClientConnection, T> {
        let name = ServerName::try_from(NAME).unwrap();
        let mut tls =
            StreamOwned::new(ClientConnection::new(Arc::clone(&self.client), name).unwrap(), socket);
        while tls.conn.is_handshaking() || tls.conn.wants_write() {
            tls.conn.complete_io(&mut tls.sock).unwrap();
        }
        tls
    }

    pub(crate) fn accept<T: Read + Write>(&self, socket: T) -> StreamOwned<ServerConnection, T> {
        let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(&self.server)).unwrap(), socket);
        while tls.conn.is_handshaking() || tls.conn.wants_write() {
            tls.conn.complete_io(&mut tls.sock).unwrap();
        }
        tls
    }
}
