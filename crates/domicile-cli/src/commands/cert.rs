//! `domicile cert`: identities of hosts.

use std::path::Path;
use std::time::Duration;

use domicile::{Clock as _, Code, Error, Result, SystemClock, Time};
use domicile_transport::authority::{Authority, Issue};
use domicile_transport::{Certificate, Piece, RevocationList, read_pem};
use serde::Serialize;

use crate::arguments::{CertAuthority, CertIssue, CertRevoke, CertShow};
use crate::output;
use crate::report::{Report, counted};

#[derive(Serialize)]
struct AuthorityJson<'a> {
    region: &'a str,
    trust_domain: &'a str,
    certificate: String,
    key: String,
    crl: String,
    until: String,
}

pub(crate) fn authority(authority: &CertAuthority, report: &Report) -> Result<()> {
    output::make(&authority.output)?;
    let (valid, list) = (days(authority.days), days(authority.list_days));
    let (region, now) = (&authority.region, SystemClock.now());
    let made = Authority::create(&authority.output, region, &authority.trust_domain, valid, list, now)?;
    let files = made.files();
    let json = AuthorityJson {
        region: region.as_str(),
        trust_domain: made.trust_domain(),
        certificate: files.certificate.display().to_string(),
        key: files.key.display().to_string(),
        crl: files.crl.display().to_string(),
        until: made.certificate().not_after.to_string(),
    };
    report.print(&json, || {
        format!(
            "made the authority of {region} until {}\n  certificate: {} (to every host that is to know the region)\n  list:        {} (the same, and a fresh one every few days)\n  key:         {} (whoever has it can be any host of the region: keep it where no host is)",
            json.until, json.certificate, json.crl, json.key,
        )
    })
}

#[derive(Serialize)]
struct IssuedJson {
    identity: String,
    certificate: String,
    key: String,
    until: String,
}

pub(crate) fn issue(issue: &CertIssue, report: &Report) -> Result<()> {
    let authority = Authority::open(issue.authority.as_ref().unwrap_or(&issue.output), &issue.region)?;
    output::make(&issue.output)?;
    let what = Issue {
        service: &issue.service,
        dns_names: &issue.dns,
        valid: days(issue.days),
        replace: issue.force,
    };
    let issued = authority.issue(&issue.output, &what, SystemClock.now())?;
    let json = IssuedJson {
        identity: issued.identity.to_string(),
        certificate: issued.certificate.display().to_string(),
        key: issued.key.display().to_string(),
        until: issued.not_after.to_string(),
    };
    report.print(&json, || {
        format!(
            "issued {} until {}\n  certificate: {}\n  key:         {}",
            json.identity, json.until, json.certificate, json.key
        )
    })
}

#[derive(Serialize)]
struct RevokedJson {
    crl: String,
    number: Option<u64>,
    revoked: usize,
    next: Option<String>,
}

pub(crate) fn revoke(revoke: &CertRevoke, report: &Report) -> Result<()> {
    let authority = Authority::open(&revoke.authority, &revoke.region)?;
    let certificates = revoke.files.iter().map(|file| holder(file)).collect::<Result<Vec<_>>>()?;
    let list = authority.revoke(&certificates, days(revoke.list_days), SystemClock.now())?;
    let json = RevokedJson {
        crl: authority.files().crl.display().to_string(),
        number: list.number,
        revoked: list.revoked.len(),
        next: list.next_update.map(|next| next.to_string()),
    };
    report.print(&json, || {
        format!(
            "{}: {} revoked, the next list by {}",
            json.crl,
            counted(json.revoked as u64, "certificate"),
            json.next.as_deref().unwrap_or("no time that it says"),
        )
    })
}

/// The certificate of a file that is somebody's: the first.
fn holder(path: &Path) -> Result<Certificate> {
    let first = read_pem(path)?.into_iter().find_map(|piece| match piece {
        Piece::Certificate(certificate) => Some(certificate),
        _ => None,
    });
    first.ok_or_else(|| {
        Error::new(Code::CertificateInvalid, "there is no certificate in this file")
            .at(path.display().to_string())
    })
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum PieceJson<'a> {
    Certificate {
        file: &'a str,
        identity: Option<String>,
        region: Option<String>,
        authority: bool,
        subject: &'a str,
        issuer: &'a str,
        serial: &'a str,
        from: String,
        until: String,
        dns: &'a [String],
        uris: &'a [String],
        servers: bool,
        clients: bool,
        fingerprint: &'a str,
    },
    RevocationList {
        file: &'a str,
        issuer: &'a str,
        number: Option<u64>,
        made: String,
        next: Option<String>,
        revoked: Vec<&'a str>,
    },
    PrivateKey {
        file: &'a str,
    },
    Other {
        file: &'a str,
    },
}

pub(crate) fn show(show: &CertShow, report: &Report) -> Result<()> {
    for path in &show.files {
        let file = path.display().to_string();
        for piece in &read_pem(path)? {
            let (json, text) = match piece {
                Piece::Certificate(certificate) => shown(&file, certificate),
                Piece::RevocationList(list) => shown_list(&file, list),
                Piece::PrivateKey => {
                    (PieceJson::PrivateKey { file: &file }, format!("{file}: a private key"))
                }
                _ => (PieceJson::Other { file: &file }, format!("{file}: something else")),
            };
            report.print(&json, || text)?;
        }
    }
    Ok(())
}

fn shown<'a>(file: &'a str, certificate: &'a Certificate) -> (PieceJson<'a>, String) {
    let identity = certificate.identity();
    let state = |now: Time| {
        if now < certificate.not_before {
            " (not yet)"
        } else if now > certificate.not_after {
            " (expired)"
        } else {
            ""
        }
    };
    let purposes = match (certificate.for_servers, certificate.for_clients) {
        (true, true) => "both ends",
        (true, false) => "servers",
        (false, true) => "clients",
        (false, false) => "neither end",
    };
    let mut text = match (&identity, certificate.is_authority) {
        (_, true) => format!("{file}: {}", certificate.subject),
        (Ok(identity), false) => format!("{file}: {identity}\n  region:      {}", identity.region()),
        (Err(error), false) => format!("{file}: {}\n  no place:    {}", certificate.subject, error.what()),
    };
    let mut line =
        |label: &str, value: &str| text.push_str(&format!("\n  {:<12} {value}", format!("{label}:")));
    if certificate.is_authority {
        line("vouches", &certificate.uris.join(", "));
    }
    if !certificate.dns_names.is_empty() {
        line("names", &certificate.dns_names.join(", "));
    }
    let holds =
        format!("{} to {}{}", certificate.not_before, certificate.not_after, state(SystemClock.now()));
    line("holds", &holds);
    line("issuer", &certificate.issuer);
    if !certificate.is_authority {
        line("for", purposes);
    }
    line("serial", &certificate.serial);
    line("fingerprint", &certificate.fingerprint);
    let identity = identity.ok().filter(|_| !certificate.is_authority);
    let json = PieceJson::Certificate {
        file,
        region: identity.as_ref().map(|identity| identity.region().to_string()),
        identity: identity.map(|identity| identity.to_string()),
        authority: certificate.is_authority,
        subject: &certificate.subject,
        issuer: &certificate.issuer,
        serial: &certificate.serial,
        from: certificate.not_before.to_string(),
        until: certificate.not_after.to_string(),
        dns: &certificate.dns_names,
        uris: &certificate.uris,
        servers: certificate.for_servers,
        clients: certificate.for_clients,
        fingerprint: &certificate.fingerprint,
    };
    (json, text)
}

fn shown_list<'a>(file: &'a str, list: &'a RevocationList) -> (PieceJson<'a>, String) {
    let next = list.next_update.map(|next| next.to_string());
    let mut text = format!(
        "{file}: {} revoked\n  made:        {}\n  next:        {}\n  issuer:      {}",
        counted(list.revoked.len() as u64, "certificate"),
        list.this_update,
        next.as_deref().unwrap_or("-"),
        list.issuer,
    );
    for (serial, when) in &list.revoked {
        text.push_str(&format!("\n  revoked:     {serial} at {when}"));
    }
    let json = PieceJson::RevocationList {
        file,
        issuer: &list.issuer,
        number: list.number,
        made: list.this_update.to_string(),
        next,
        revoked: list.revoked.iter().map(|(serial, _)| serial.as_str()).collect(),
    };
    (json, text)
}

fn days(days: u16) -> Duration {
    Duration::from_hours(u64::from(days) * 24)
}
