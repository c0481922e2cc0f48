//! S3 and its kin: what the environment says, and what it may not weaken.

use std::time::Duration;

use domicile::{Code, Error, Result};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{BackoffConfig, ClientConfigKey, ClientOptions, HeaderMap, HeaderValue, RetryConfig};
use url::Url;

/// A connection is there within 5 seconds, octets follow one another within 30, a request is through in 3 minutes.
const TIMES: [(ClientConfigKey, &str); 3] = [
    (ClientConfigKey::ConnectTimeout, "5 seconds"),
    (ClientConfigKey::ReadTimeout, "30 seconds"),
    (ClientConfigKey::Timeout, "180 seconds"),
];

/// What of the environment's wishes about connections is heard.
const KEPT: [ClientConfigKey; 4] = [
    ClientConfigKey::AllowHttp,
    ClientConfigKey::ProxyUrl,
    ClientConfigKey::ProxyCaCertificate,
    ClientConfigKey::ProxyExcludes,
];

/// Requests are made again 5 times at most, within 2 minutes, after 0.1 to 10 seconds.
fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(10),
            base: 2.0,
        },
        max_retries: 5,
        retry_timeout: Duration::from_secs(120),
    }
}

/// A bucket, as the environment says how it is reached.
pub(super) fn bucket(name: &str) -> Result<AmazonS3> {
    build(from_environment(AmazonS3Builder::from_env(), name, HeaderMap::new())?)
}

/// The same, and once more for completing uploads: where something lies already, nothing is completed. `object_store` knows that
/// condition for puts alone, and so it is a header of everything that the second one asks.
pub(super) fn bucket_for_uploads(name: &str) -> Result<(AmazonS3, AmazonS3)> {
    let mut header = HeaderMap::new();
    header.insert("if-none-match", HeaderValue::from_static("*"));
    Ok((bucket(name)?, build(from_environment(AmazonS3Builder::from_env(), name, header)?)?))
}

fn build(builder: AmazonS3Builder) -> Result<AmazonS3> {
    builder.build().map_err(|_| {
        // What it says may repeat what it was given.
        invalid("the environment does not say how S3 is reached")
            .advise("see that AWS_REGION, AWS_ENDPOINT and the credentials are well formed")
    })
}

fn from_environment(
    environment: AmazonS3Builder,
    bucket: &str,
    headers: HeaderMap,
) -> Result<AmazonS3Builder> {
    let said = |key: AmazonS3ConfigKey| environment.get_config_value(&key).filter(|value| !value.is_empty());
    let region = said(AmazonS3ConfigKey::DefaultRegion).or_else(|| said(AmazonS3ConfigKey::Region));
    let region = region.ok_or_else(|| {
        invalid("nobody said in which region the bucket is")
            .rule("there is no default region")
            .advise("set AWS_REGION to the bucket's")
    })?;
    if said(AmazonS3ConfigKey::Client(ClientConfigKey::AllowInvalidCertificates))
        .is_some_and(|value| value != "false")
    {
        return Err(invalid("the environment turns the checking of certificates off")
            .rule("an object store is reached by TLS, with a certificate that verifies")
            .advise("take AWS_ALLOW_INVALID_CERTIFICATES away; a store with an authority of its own needs that among the system's"));
    }
    if let Some(endpoint) = said(AmazonS3ConfigKey::Endpoint) {
        let url =
            Url::parse(&endpoint).map_err(|source| invalid("AWS_ENDPOINT is no URL").because(source))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("AWS_ENDPOINT has credentials in it").advise("say them apart"));
        }
        let allowed = said(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp));
        if url.scheme() != "https" && allowed.as_deref() != Some("true") {
            return Err(invalid("AWS_ENDPOINT is not https")
                .rule("an object store is reached by TLS")
                .advise("set AWS_ALLOW_HTTP=true where a store in the same machine or network may be reached in clear"));
        }
    }
    let mut options = ClientOptions::new();
    for key in KEPT {
        if let Some(value) = said(AmazonS3ConfigKey::Client(key)) {
            options = options.with_config(key, value);
        }
    }
    for (key, value) in TIMES {
        options = options.with_config(key, value);
    }
    if !headers.is_empty() {
        options = options.with_default_headers(headers);
    }
    Ok(environment
        .with_bucket_name(bucket)
        .with_region(region)
        .with_client_options(options)
        .with_retry(retries())
        // The store compares what came with what was signed.
        .with_unsigned_payload(false)
        .with_config(AmazonS3ConfigKey::ImdsV1Fallback, "false"))
}

fn invalid(what: &str) -> Error {
    Error::new(Code::ConfigInvalid, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(settings: &[(AmazonS3ConfigKey, &str)]) -> Result<AmazonS3Builder> {
        let credentials = [
            (AmazonS3ConfigKey::AccessKeyId, "AKIAEXAMPLE"),
            (AmazonS3ConfigKey::SecretAccessKey, "hunter2"),
            (AmazonS3ConfigKey::Region, "eu-central-1"),
        ];
        let all = credentials.iter().chain(settings);
        let builder =
            all.fold(AmazonS3Builder::new(), |builder, (key, value)| builder.with_config(*key, *value));
        from_environment(builder, "bucket", HeaderMap::new())
    }

    #[test]
    fn what_weakens_the_connection_is_refused_and_secrets_are_not_repeated() {
        let http = AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp);
        let any_certificate = AmazonS3ConfigKey::Client(ClientConfigKey::AllowInvalidCertificates);
        let endpoint = AmazonS3ConfigKey::Endpoint;
        assert!(build(with(&[]).unwrap()).is_ok());
        assert!(build(with(&[(endpoint, "https://objects.example:9000")]).unwrap()).is_ok());
        assert!(build(with(&[(endpoint, "http://127.0.0.1:9000"), (http, "true")]).unwrap()).is_ok());
        for settings in [
            &[(endpoint, "http://127.0.0.1:9000")][..],
            &[(endpoint, "http://127.0.0.1:9000"), (http, "hunter2")],
            &[(endpoint, "https://me:hunter2@objects.example")],
            &[(endpoint, "hunter2")],
            &[(any_certificate, "true")],
            &[(any_certificate, "hunter2")],
        ] {
            let error = with(settings).map(|_| ()).unwrap_err();
            assert_eq!(error.code(), Code::ConfigInvalid, "{settings:?}");
            assert!(!format!("{error:?} {error}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn there_is_no_default_region() {
        let error =
            from_environment(AmazonS3Builder::new(), "bucket", HeaderMap::new()).map(|_| ()).unwrap_err();
        assert!(error.what().contains("region"), "{error}");
    }
}
