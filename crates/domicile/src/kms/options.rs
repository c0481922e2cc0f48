//! How key services that are no files are reached: what stands in the configuration, in every build.

use serde::Deserialize;

/// How the keys of one region at AWS KMS are reached.
///
/// Credentials come from the SDK's ordinary chain (environment, profile, container, instance), and never from here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsOptions {
    /// The ARN of the root key, or of an alias, which is resolved once.
    pub root: String,
    /// The ARN of the signing key (`ECC_NIST_P256`), or of an alias.
    pub signing: String,
    /// The ARNs of earlier root keys: they still open what lies under them.
    #[serde(default)]
    pub former: Vec<String>,
    /// The ARNs of multi-Region keys (`mrk-`) that are allowed all the same: copies of their material may be in other
    /// regions.
    #[serde(default)]
    pub multi_region: Vec<String>,
    /// Another endpoint than the region's own: a VPC endpoint, or, on this host, a stand-in for tests.
    pub endpoint: Option<String>,
    /// A profile of the SDK's files.
    pub profile: Option<String>,
    /// The ARN of a role to assume.
    pub role: Option<String>,
}

impl AwsOptions {
    /// A root key and a signing key, reached in the ordinary way.
    #[must_use]
    pub fn new(root: impl Into<String>, signing: impl Into<String>) -> Self {
        Self {
            root: root.into(),
            signing: signing.into(),
            former: Vec::new(),
            multi_region: Vec::new(),
            endpoint: None,
            profile: None,
            role: None,
        }
    }
}
