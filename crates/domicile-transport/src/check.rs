//! The check of one connection: rustls asks it during the handshake, and it is asked again after.

use std::sync::{Arc, Mutex, PoisonError};

use domicile::{Code, Error, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, CommonState, DigitallySignedStruct, DistinguishedName, HandshakeKind, ProtocolVersion,
    SignatureScheme,
};

use crate::certificate::fingerprint;
use crate::exchange::Exchange;
use crate::trust::{Approved, End, Expected, Trust};

/// Made for one connection, so that what it found is that connection's.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) trust: Arc<Trust>,
    pub(crate) exchange: Exchange,
    pub(crate) expected: Expected,
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
enum Found {
    /// rustls has not asked.
    #[default]
    Nothing,
    Good(Approved),
    Bad(Error),
}

impl Check {
    pub(crate) fn new(trust: Arc<Trust>, exchange: Exchange, expected: Expected) -> Arc<Self> {
        Arc::new(Self { trust, exchange, expected, found: Mutex::default() })
    }

    fn judge(
        &self,
        chain: (&CertificateDer<'_>, &[CertificateDer<'_>]),
        end: End,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let (found, answer) = match self.trust.judge(chain, end, &self.expected, &self.exchange, now) {
            Ok(approved) => (Found::Good(approved), Ok(())),
            Err(refusal) => {
                let error = &refusal.error;
                let claimed =
                    refusal.claimed.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
                tracing::warn!(
                    code = %error.code(), claimed, exchange = %self.exchange, rule = error.broken_rule().unwrap_or_default(),
                    cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default(),
                    "refused during the handshake: {}", error.what()
                );
                (Found::Bad(refusal.error), Err(refusal.tls))
            }
        };
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
        answer
    }

    /// Why the other end was refused, if it was.
    pub(crate) fn refusal(&self) -> Option<Error> {
        match &mut *self.found.lock().unwrap_or_else(PoisonError::into_inner) {
            Found::Bad(error) => {
                // The one who asks first gets the cause with it.
                let again = error.again();
                Some(std::mem::replace(error, again))
            }
            Found::Nothing | Found::Good(_) => None,
        }
    }

    /// The second look, when the handshake is over: it was a full one, of TLS 1.3, the certificate that rustls now has of
    /// the other end is the one that was judged in it, and the place is still permitted. Whatever made rustls pass the check
    /// over, a resumed session or a mistake, ends here.
    pub(crate) fn second_look(&self, connection: &CommonState) -> Result<Approved> {
        let refused = |what: &str| {
            let error = Error::new(Code::PeerUnverified, what.to_owned())
                .rule("every connection begins with a full handshake of TLS 1.3 in which the other end's certificate is judged");
            tracing::warn!(exchange = %self.exchange, "refused after the handshake: {what}");
            error
        };
        if connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return Err(refused("the handshake was not one of TLS 1.3"));
        }
        let full = [HandshakeKind::Full, HandshakeKind::FullWithHelloRetryRequest];
        if !connection.handshake_kind().is_some_and(|kind| full.contains(&kind)) {
            return Err(refused("the handshake resumed an earlier session"));
        }
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let Found::Good(approved) = &*found else {
            return Err(refused("the other end's certificate was not judged"));
        };
        let leaf = connection.peer_certificates().and_then(<[_]>::first);
        if leaf.map(fingerprint).as_ref() != Some(&approved.fingerprint) {
            return Err(refused("the other end's certificate is not the one that was judged"));
        }
        self.exchange.check(&approved.place, self.trust.processing())?;
        Ok(approved.clone())
    }

    /// That whoever shows a certificate has its key: the same of either end.
    fn verify_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.trust.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.trust.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Check {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>, // is the one in `expected`, or one that was made up
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge((end_entity, intermediates), End::Server, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Check {
    /// None: a list of every region's authorities is nobody's business before they have shown who they are.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge((end_entity, intermediates), End::Client, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

/// Nothing offers or takes TLS 1.2; if something did, no signature of it would be good.
fn only_tls13() -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
}
