//! URLs of objects: `s3://BUCKET/NAME` and `file:///PATH`, a prefix with `/` at its end.

use std::fmt;
use std::sync::Arc;

use domicile::{Code, Error, Result};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use url::Url;

use super::source::{ObjectSource, Objects};
use super::upload::Destination;

/// Where an object is, or several below a prefix.
#[derive(Debug, Clone)]
pub struct ObjectUrl {
    root: String,
    location: Path,
    is_prefix: bool,
    objects: Objects,
}

impl fmt::Display for ObjectUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.is_prefix && !self.location.is_root() { "/" } else { "" };
        write!(f, "{}/{}{end}", self.root, self.location)
    }
}

impl ObjectUrl {
    /// Whether this is meant as the URL of an object, and not as the name of a file.
    #[must_use]
    pub fn is_one(text: &str) -> bool {
        text.split_once("://").is_some_and(|(scheme, _)| {
            !scheme.is_empty()
                && scheme.chars().all(|letter| letter.is_ascii_alphanumeric() || "+-.".contains(letter))
        })
    }

    /// How a URL is shown, once it is understood: never with what it hides.
    ///
    /// # Errors
    /// [`ArgumentInvalid`](Code::ArgumentInvalid), as [`parse`](Self::parse).
    pub fn shown(text: &str) -> Result<String> {
        Parsed::of(text).map(|Parsed { root, location, .. }| format!("{root}/{location}"))
    }

    /// Understands a URL; nothing is asked of the store yet.
    ///
    /// `s3://BUCKET/NAME`, where this is built with the feature `s3`: region, credentials and, where it is not Amazon's, the
    /// endpoint come from the environment: `AWS_REGION`, `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` and their kin,
    /// `AWS_ENDPOINT`. There is no default region. TLS it is, with certificates that verify, unless `AWS_ALLOW_HTTP` is `true`.
    ///
    /// # Errors
    /// [`ArgumentInvalid`](Code::ArgumentInvalid) for another scheme, credentials or a query in the URL;
    /// [`ConfigInvalid`](Code::ConfigInvalid) when the environment lacks the region, or turns the checking of certificates off.
    pub fn parse(text: &str) -> Result<Self> {
        let Parsed { root, location, is_prefix, bucket } = Parsed::of(text)?;
        let store: Arc<dyn ObjectStore> = match bucket {
            None => Arc::new(LocalFileSystem::new()),
            Some(bucket) => of_bucket(&bucket)?,
        };
        Ok(Self { root, location, is_prefix, objects: Objects::new(store)? })
    }

    /// Whether it stands for the segments below it.
    #[must_use]
    pub fn is_prefix(&self) -> bool {
        self.is_prefix
    }

    /// Opens the object, as [`Objects::open`] does.
    ///
    /// # Errors
    /// Those of [`Objects::open`].
    pub fn open(&self) -> Result<ObjectSource> {
        self.objects.open(&self.location)
    }

    /// The segments below a prefix, at any depth, in the order of their names; the object itself, where it is none.
    ///
    /// # Errors
    /// Those of [`Objects::list`].
    pub fn segments(&self) -> Result<Vec<Self>> {
        if !self.is_prefix {
            return Ok(vec![self.clone()]);
        }
        let names = self.objects.list(&self.location)?;
        Ok(names.into_iter().map(|location| Self { location, is_prefix: false, ..self.clone() }).collect())
    }
}

/// A URL, taken apart.
struct Parsed {
    root: String,
    location: Path,
    is_prefix: bool,
    /// None for local files.
    bucket: Option<String>,
}

impl Parsed {
    fn of(text: &str) -> Result<Self> {
        // The text is not repeated where it may hold a secret.
        let wrong = |what: &str| {
            Error::new(Code::ArgumentInvalid, what)
                .rule("objects are s3://BUCKET/NAME or file:///PATH; a prefix ends with `/`")
        };
        let url = Url::parse(text).map_err(|source| wrong("this is no URL of an object").because(source))?;
        if !url.username().is_empty()
            || url.password().is_some()
            || url.query().is_some()
            || url.fragment().is_some()
        {
            return Err(wrong("a URL of an object has no credentials, no query and no fragment")
                .advise("credentials come from the environment, or from the host's role"));
        }
        let location = Path::from_url_path(url.path());
        let location = location.map_err(|source| wrong("this is no name of an object").because(source))?;
        let is_prefix = url.path().ends_with('/') || location.is_root();
        let (root, bucket) = match (url.scheme(), url.host_str()) {
            ("file", None | Some("")) => ("file://".to_owned(), None),
            ("s3", Some(bucket)) if url.port().is_none() => {
                (format!("s3://{bucket}"), Some(bucket.to_owned()))
            }
            _ => return Err(wrong("objects are not reached that way")),
        };
        Ok(Self { root, location, is_prefix, bucket })
    }
}

#[cfg(not(feature = "s3"))]
fn of_bucket(_bucket: &str) -> Result<Arc<dyn ObjectStore>> {
    Err(not_built())
}

#[cfg(not(feature = "s3"))]
fn not_built() -> Error {
    Error::new(Code::ConfigInvalid, "this build does not reach S3").advise("build it with the feature `s3`")
}

#[cfg(feature = "s3")]
fn of_bucket(bucket: &str) -> Result<Arc<dyn ObjectStore>> {
    Ok(Arc::new(super::s3::bucket(bucket)?))
}

impl Destination {
    /// Where finished segments of a region are uploaded to: below a prefix, of which the caller knows that the region keeps its
    /// segments there.
    ///
    /// # Errors
    /// Those of [`ObjectUrl::parse`]; [`ArgumentInvalid`](Code::ArgumentInvalid) where it is no prefix.
    pub fn parse(region: domicile::Region, text: &str) -> Result<Self> {
        let Parsed { root, location, is_prefix, bucket } = Parsed::of(text)?;
        if !is_prefix {
            return Err(Error::new(Code::ArgumentInvalid, "segments are uploaded to below a prefix")
                .at(format!("{root}/{location}"))
                .advise("end the URL with `/`: the names below it are <region>/<day>/<segment>.dseg"));
        }
        match bucket {
            None => Ok(Self::new(region, root, Arc::new(LocalFileSystem::new().with_fsync(true)), location)),
            #[cfg(feature = "s3")]
            Some(bucket) => {
                let (store, completing) = super::s3::bucket_for_uploads(&bucket)?;
                let store = Arc::new(store);
                Ok(Self::new(region, root, Arc::clone(&store) as Arc<dyn ObjectStore>, location)
                    .in_parts(store)
                    .completing(Arc::new(completing)))
            }
            #[cfg(not(feature = "s3"))]
            Some(_) => Err(not_built()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_objects_are_told_from_names_of_files() {
        for (text, is) in [
            ("s3://bucket/a.dseg", true),
            ("file:///a.dseg", true),
            ("gs://bucket/a.dseg", true),
            ("voice.dseg", false),
            ("./s3:/x", false),
            ("dir/with://inside", false),
            ("://x", false),
        ] {
            assert_eq!(ObjectUrl::is_one(text), is, "{text}");
        }
    }

    #[test]
    fn urls_are_understood_or_refused_without_what_they_hide() {
        for (text, root, location, is_prefix) in [
            ("s3://bucket/a/b.dseg", "s3://bucket", "a/b.dseg", false),
            ("s3://bucket/a/", "s3://bucket", "a", true),
            ("s3://bucket", "s3://bucket", "", true),
            ("file:///srv/a%20b.dseg", "file://", "srv/a b.dseg", false),
            ("file:///srv/x/../y/", "file://", "srv/y", true),
        ] {
            let parsed = Parsed::of(text).unwrap();
            assert_eq!(
                (parsed.root.as_str(), parsed.location.as_ref(), parsed.is_prefix),
                (root, location, is_prefix),
                "{text}"
            );
        }
        for text in [
            "s3://KEY:hunter2@bucket/a",
            "s3://hunter2@bucket/a",
            "s3://bucket/a?X-Amz-Signature=hunter2",
            "s3://bucket/a#hunter2",
            "s3://bucket:9000/a",
            "s3:///a",
            "file://host/a",
            "gs://bucket/a",
            "https://bucket.s3.amazonaws.com/a",
            "s3://bucket//a",
            "s3://",
        ] {
            let error = Parsed::of(text).map(|parsed| parsed.location).unwrap_err();
            assert_eq!(error.code(), Code::ArgumentInvalid, "{text}");
            assert!(!format!("{error:?} {error}").contains("hunter2"), "{error:?}");
        }
    }
}
