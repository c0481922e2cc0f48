//! Short names that are compared as bytes: cheap to clone, static when they are well known.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::error::{Code, Error, Result};

#[derive(Clone)]
pub(crate) enum Name {
    Static(&'static str),
    Shared(Arc<str>),
}

impl Name {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Name::Static(text) => text,
            Name::Shared(text) => text,
        }
    }

    /// Takes `text` if it has 1 to `length_max` octets, all of them `allowed`.
    pub(crate) fn checked(
        text: &str,
        kind: &str,
        length_max: usize,
        alphabet: &str,
        allowed: fn(u8) -> bool,
    ) -> Result<Self> {
        if text.is_empty() || text.len() > length_max || !text.bytes().all(allowed) {
            return Err(Error::new(Code::NameInvalid, format!("{} is not a {kind}", quoted(text)))
                .rule(format!("a {kind} has 1 to {length_max} of {alphabet}")));
        }
        Ok(Name::Shared(text.into()))
    }
}

/// A name as it may be shown in a message: short, printable, quoted.
fn quoted(text: &str) -> String {
    const SHOWN_MAX: usize = 64;
    let shown: String = text.chars().take(SHOWN_MAX).collect();
    let cut = if shown.len() < text.len() { "…" } else { "" };
    format!("{shown:?}{cut}")
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Gives a newtype over [`Name`] the traits that every name has.
macro_rules! name_traits {
    ($name:ident) => {
        impl $name {
            /// The name itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(|error: crate::error::Error| {
                    let rule = error.broken_rule().unwrap_or_default();
                    serde::de::Error::custom(format!("{}: {rule}", error.what()))
                })
            }
        }
    };
}
pub(crate) use name_traits;
