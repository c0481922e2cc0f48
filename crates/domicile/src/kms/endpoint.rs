//! Where keys may be sent.

use crate::error::{Code, Error, Result};

/// Keys pass through in clear, so that only TLS or this host itself may lead to a service.
pub(super) fn check_endpoint(endpoint: &str) -> Result<()> {
    let rest = |scheme| endpoint.strip_prefix(scheme).filter(|rest: &&str| !rest.is_empty());
    let to_this_host = rest("http://").is_some_and(|rest| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        ["127.0.0.1", "[::1]", "localhost"].contains(&host)
    });
    if to_this_host || rest("https://").is_some() {
        return Ok(());
    }
    Err(Error::new(Code::ConfigInvalid, format!("{endpoint:?} is not an endpoint that keys may be sent to"))
        .rule("an endpoint is https://, or http:// on this host"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sent_over_tls_or_stay_on_this_host() {
        for good in
            ["https://vault.eu.example:8200", "http://127.0.0.1:5000", "http://[::1]:1/", "http://localhost"]
        {
            check_endpoint(good).unwrap();
        }
        for bad in [
            "http://10.0.0.1",
            "http://127.0.0.1.example.org",
            "http://localhost@example.org",
            "ftp://x",
            "",
            "https://",
        ] {
            assert_eq!(check_endpoint(bad).unwrap_err().code(), Code::ConfigInvalid, "{bad}");
        }
    }
}
