//! S3, over real HTTP, against moto: the library and the program read there, upload, and go on where an upload was cut.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use domicile::{Code, Purpose};
use domicile_record::format::Contents;
use domicile_record::object::object_store::aws::{AmazonS3, AmazonS3Builder};
use domicile_record::object::object_store::multipart::{MultipartStore, PartId};
use domicile_record::object::object_store::path::Path;
use domicile_record::object::object_store::{
    self, ClientOptions, HeaderMap, HeaderValue, MultipartId, ObjectStore, ObjectStoreExt, PutPayload,
    PutResult,
};
use domicile_record::object::{Destination, Objects, UploadOptions, upload};
use domicile_record::{Segment, Selection, Source, Stamp, WriterOptions};
use domicile_tests::aws::Moto;
use domicile_tests::program::program;
use domicile_tests::{Home, descriptor, region, scope};
use serde_json::Value;

const REGION: &str = "eu-central-1";
const BUCKET: &str = "segments-eu";
const SECRET: &str = "hunter2hunter2";

/// A place whose regions keep their segments in two buckets, and a file with a segment of three parts.
struct Place {
    moto: Moto,
    home: Home,
    file: PathBuf,
}

impl Place {
    async fn new() -> Option<Self> {
        let moto = Moto::start()?;
        moto.bucket(REGION, BUCKET).await;
        moto.bucket("us-west-2", "segments-us").await;
        let home = Home::of(&["acme"]).await;
        let toml = std::fs::read_to_string(home.config.path()).unwrap();
        let toml = toml.replace(
            "[regions.eu-central-1]\n",
            "[regions.eu-central-1]\nobjects = [\"s3://segments-eu/kept/\", \"s3://segments-eu/more/\"]\n",
        );
        let toml =
            toml.replace("[regions.us-east-1]\n", "[regions.us-east-1]\nobjects = [\"s3://segments-us/\"]\n");
        assert!(toml.contains("segments-eu") && toml.contains("segments-us"), "{toml}");
        std::fs::write(home.config.path(), toml).unwrap();
        let mut writer = home.writer(WriterOptions::default()).await;
        let lane = writer.open_lane(descriptor("acme", Contents::default()), b"").await.unwrap();
        (0..20_000).for_each(|_| writer.append(lane, &[b'x'; 1000], Stamp::default()).unwrap());
        let file = home.directory.path().join("large.dseg");
        std::fs::write(&file, writer.finish().await.unwrap().0).unwrap();
        Some(Self { moto, home, file })
    }

    fn builder(&self) -> AmazonS3Builder {
        AmazonS3Builder::new()
            .with_bucket_name(BUCKET)
            .with_region(REGION)
            .with_endpoint(self.moto.endpoint())
            .with_allow_http(true)
            .with_access_key_id("test")
            .with_secret_access_key(SECRET)
    }

    fn store(&self) -> Arc<AmazonS3> {
        Arc::new(self.builder().build().unwrap())
    }

    /// The program, with an environment that says how S3 is reached.
    fn domicile(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command
            .args(arguments)
            .current_dir(&self.home.directory)
            .env("AWS_REGION", REGION)
            .env("AWS_ENDPOINT", self.moto.endpoint())
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", SECRET);
        command
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        said(self.domicile(arguments).output().unwrap())
    }

    fn destination(&self, parts: Arc<dyn MultipartStore>) -> Destination {
        Destination::new(region(REGION), format!("s3://{BUCKET}"), self.store(), Path::from("kept"))
            .in_parts(parts)
    }
}

fn said(Output { status, stdout, stderr }: Output) -> (i32, String, String) {
    let (out, err) =
        (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned());
    assert!(!out.contains(SECRET) && !err.contains(SECRET), "{out}{err}");
    (status.code().unwrap(), out, err)
}

/// Takes so many parts, and is cut then.
#[derive(Debug)]
struct Cut {
    store: Arc<AmazonS3>,
    left: AtomicUsize,
}

#[async_trait]
impl MultipartStore for Cut {
    async fn create_multipart(&self, at: &Path) -> object_store::Result<MultipartId> {
        self.store.create_multipart(at).await
    }

    async fn put_part(
        &self,
        at: &Path,
        id: &MultipartId,
        part: usize,
        data: PutPayload,
    ) -> object_store::Result<PartId> {
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        match left {
            Ok(_) => self.store.put_part(at, id, part, data).await,
            Err(_) => Err(object_store::Error::Generic { store: "test", source: "the line was cut".into() }),
        }
    }

    async fn complete_multipart(
        &self,
        at: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> object_store::Result<PutResult> {
        self.store.complete_multipart(at, id, parts).await
    }

    async fn abort_multipart(&self, at: &Path, id: &MultipartId) -> object_store::Result<()> {
        self.store.abort_multipart(at, id).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_uploads_goes_on_where_it_was_cut_and_reads_there() {
    let Some(place) = Place::new().await else { return };
    let to = format!("s3://{BUCKET}/kept/");
    let file = place.file.to_str().unwrap();
    // Cut after two of three parts.
    let cut = Arc::new(Cut { store: place.store(), left: AtomicUsize::new(2) });
    let options = UploadOptions { parts_at_once: 1, ..UploadOptions::default() };
    let error = upload(&place.home.domicile, &place.destination(cut), file, options).await.unwrap_err();
    assert_eq!(error.code(), Code::ObjectUnavailable, "{error}");
    let (code, out, err) = place.run(&["upload", file, &to, "--json"]);
    assert_eq!(code, 0, "{err}");
    let uploaded: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&uploaded["parts_before"], &uploaded["parts_sent"]), (&2.into(), &1.into()), "{out}");
    assert!(!place.file.with_extension("dseg.upload").exists());
    let url = uploaded["url"].as_str().unwrap();

    let location = Path::from(url.strip_prefix("s3://segments-eu/").unwrap());
    let lies = place.store().get(&location).await.unwrap().bytes().await.unwrap();
    assert!(lies == std::fs::read(&place.file).unwrap(), "octet for octet");

    let (code, out, err) = place.run(&["upload", file, &to]);
    assert_eq!((code, out.contains("lay there already")), (0, true), "{out}{err}");

    // What was uploaded is opened, looked at and verified where it lies: by its own URL, and by the prefix above it.
    for url in [url, &to] {
        let (code, out, err) = place.run(&["open", url, "--purpose", "billing"]);
        assert_eq!((code, out.len()), (0, 20_000_000), "{err}");
        let (code, out, err) = place.run(&["verify", url]);
        assert_eq!((code, out.contains("complete: 1 lane, 20,000 records")), (0, true), "{out}{err}");
        let (code, out, err) = place.run(&["inspect", url]);
        assert_eq!((code, out.contains("not vouched for")), (0, true), "{out}{err}");
        let (code, out, err) = place.run(&["why", url]);
        assert_eq!((code, out.contains("opens here")), (0, true), "{out}{err}");
    }
    let (code, out, err) =
        place.run(&["open", url, "--purpose", "billing", "--tenant", "acme", "--type", "voice", "--alone"]);
    assert_eq!((code, out.len()), (0, 20_000_000), "{err}");

    // A small segment goes in one put, through the same door.
    let small = place.home.directory.path().join("small.dseg");
    std::fs::write(&small, place.home.sealed(&["acme"]).await).unwrap();
    let (code, out, err) =
        place.run(&["upload", small.to_str().unwrap(), "s3://segments-eu/more/", "--json"]);
    let uploaded: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &uploaded["parts_sent"]), (0, &1.into()), "{err}");

    // What lies there stays.
    let location = Path::from(uploaded["url"].as_str().unwrap().strip_prefix("s3://segments-eu/").unwrap());
    place.store().put(&location, "something else".into()).await.unwrap();
    let (code, _, err) = place.run(&["upload", small.to_str().unwrap(), "s3://segments-eu/more/"]);
    assert_eq!((code, err.contains("error[object/exists]")), (3, true), "{err}");
    let lies = place.store().get(&location).await.unwrap().bytes().await.unwrap();
    assert_eq!(&lies[..], b"something else");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_are_uploaded_to_their_own_regions_prefixes_alone() {
    let Some(place) = Place::new().await else { return };
    let file = place.file.to_str().unwrap();
    for (url, code, said) in [
        ("s3://segments-us/", 3, "object/elsewhere"),
        ("s3://segments-us/kept/", 3, "object/elsewhere"),
        ("s3://segments-eu/", 3, "object/elsewhere"),
        ("s3://segments-eu/keptnot/", 3, "object/elsewhere"),
        ("s3://segments-eu/kept/../others/", 3, "object/elsewhere"),
        ("s3://segments-eu/kept/%2e%2e/others/", 3, "object/elsewhere"),
        ("s3://another/", 3, "object/elsewhere"),
        ("https://segments-eu.s3.amazonaws.com/kept/", 2, "argument/invalid"),
        ("s3://test:hunter2hunter2@segments-eu/kept/", 2, "argument/invalid"),
        ("segments-eu/kept/", 3, "object/elsewhere"),
        ("s3://segments-eu/kept/name", 2, "argument/invalid"),
    ] {
        let (found, out, err) = place.run(&["upload", file, url]);
        assert_eq!((found, err.contains(said)), (code, true), "{url}: {out}{err}");
    }
    let listed = Objects::new(place.store()).unwrap().list(&Path::from("")).unwrap();
    assert!(listed.is_empty(), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_denied_or_reached_in_clear_is_told() {
    let Some(place) = Place::new().await else { return };
    let store = place.store();
    store.put(&Path::from("kept/a.dseg"), std::fs::read(&place.file).unwrap().into()).await.unwrap();
    store.put(&Path::from("kept/empty.dseg"), "".into()).await.unwrap();
    let policy = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject",
        "Resource": "arn:aws:s3:::segments-us/*"}]}"#;
    let (status, answer) = place.moto.s3("us-west-2", "PUT /segments-us/a.dseg", "x").await;
    assert_eq!(status, 200, "{answer}");
    let (status, answer) = place.moto.s3("us-west-2", "PUT /segments-us?policy", policy).await;
    assert!(status < 300, "{answer}");
    for (url, code, said) in [
        ("s3://segments-eu/kept/none.dseg", 1, "object/missing"),
        ("s3://no-such-bucket/a.dseg", 1, "object/missing"),
        ("s3://segments-eu/nothing/", 1, "no objects"),
        ("s3://segments-eu/kept/empty.dseg", 4, "segment/foreign"),
        ("s3://segments-us/a.dseg", 1, "object/denied"),
    ] {
        let (found, out, err) = place.run(&["inspect", url]);
        assert_eq!((found, err.contains(said)), (code, true), "{url}: {out}{err}");
    }
    let refused = |change: &dyn Fn(&mut Command), what: &str| {
        let mut command = place.domicile(&["inspect", "s3://segments-eu/kept/a.dseg"]);
        change(&mut command);
        let (code, out, err) = said(command.output().unwrap());
        assert_eq!((code, err.contains("config/invalid"), err.contains(what)), (2, true, true), "{out}{err}");
    };
    refused(
        &|command| {
            command.env_remove("AWS_ALLOW_HTTP");
        },
        "AWS_ALLOW_HTTP=true",
    );
    refused(
        &|command| {
            command.env("AWS_ALLOW_HTTP", "false");
        },
        "AWS_ALLOW_HTTP=true",
    );
    refused(
        &|command| {
            command.env_remove("AWS_REGION");
        },
        "there is no default region",
    );
    refused(
        &|command| {
            command.env("AWS_ALLOW_INVALID_CERTIFICATES", "true");
        },
        "certificates off",
    );
    refused(
        &|command| {
            command.env("AWS_ENDPOINT", format!("http://me:{SECRET}@127.0.0.1:1"));
        },
        "credentials",
    );
    // Compacting is for files, and so is sealing.
    for arguments in [
        &["compact", "s3://segments-eu/kept/a.dseg", "-o", "out"][..],
        &["seal", "s3://segments-eu/kept/a.dseg", "--tenant", "acme", "--type", "voice", "-o", "x.dseg"],
        &["upload", "s3://segments-eu/kept/a.dseg", "s3://segments-eu/kept/"],
        &["open", "s3://segments-eu/kept/a.dseg", "--purpose", "billing", "--follow"],
    ] {
        let (code, out, err) = place.run(arguments);
        assert_eq!((code, err.contains("argument/invalid")), (2, true), "{out}{err}");
    }
    let (code, out, err) = place.run(&["settle", "s3://segments-eu/kept/a.dseg", "-o", "settled"]);
    assert_eq!((code, out.contains("in settled/eu-central-1/")), (0, true), "{out}{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_is_replaced_between_two_reads_is_an_error() {
    let Some(place) = Place::new().await else { return };
    let (store, name) = (place.store(), Path::from("kept/a.dseg"));
    let bytes = std::fs::read(&place.file).unwrap();
    store.put(&name, bytes.clone().into()).await.unwrap();
    let object = Objects::new(Arc::clone(&store) as Arc<dyn ObjectStore>).unwrap().open(&name).unwrap();
    let segment = Segment::open_source(
        &place.home.domicile,
        object,
        Purpose::Billing,
        Selection::scopes(&[scope("acme")]),
    )
    .await
    .unwrap();
    store.put(&name, bytes[..bytes.len() - 1].to_vec().into()).await.unwrap();
    let error = segment.blocks().find_map(Result::err).unwrap();
    assert_eq!(error.code(), Code::ObjectChanged, "{error}");
    let object = Objects::new(store).unwrap().open(&name).unwrap();
    assert_eq!(object.length().unwrap(), bytes.len() as u64 - 1);
}

/// Somebody puts something there while the parts are under way.
#[derive(Debug)]
struct Overtaken {
    store: Arc<AmazonS3>,
    completing: AmazonS3,
}

#[async_trait]
impl MultipartStore for Overtaken {
    async fn create_multipart(&self, at: &Path) -> object_store::Result<MultipartId> {
        self.store.create_multipart(at).await
    }

    async fn put_part(
        &self,
        at: &Path,
        id: &MultipartId,
        part: usize,
        data: PutPayload,
    ) -> object_store::Result<PartId> {
        self.store.put_part(at, id, part, data).await
    }

    async fn complete_multipart(
        &self,
        at: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> object_store::Result<PutResult> {
        self.store.put(at, "somebody else's".into()).await?;
        self.completing.complete_multipart(at, id, parts).await
    }

    async fn abort_multipart(&self, at: &Path, id: &MultipartId) -> object_store::Result<()> {
        self.store.abort_multipart(at, id).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_is_completed_only_where_nothing_lies() {
    let Some(place) = Place::new().await else { return };
    let mut headers = HeaderMap::new();
    headers.insert("if-none-match", HeaderValue::from_static("*"));
    let options = ClientOptions::new().with_allow_http(true).with_default_headers(headers);
    let completing = place.builder().with_client_options(options).build().unwrap();
    let overtaken = Arc::new(Overtaken { store: place.store(), completing });
    let destination = place.destination(overtaken);
    let error =
        upload(&place.home.domicile, &destination, &place.file, UploadOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::ObjectExists, "{error}");
    let listed = Objects::new(place.store()).unwrap().list(&Path::from("kept")).unwrap();
    let lies = place.store().get(&listed[0]).await.unwrap().bytes().await.unwrap();
    assert_eq!(&lies[..], b"somebody else's");
    assert!(!place.file.with_extension("dseg.upload").exists(), "what was sent is given up");
}

/// TLS with a certificate that nobody vouches for: nothing is asked over it, whatever the environment says beside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_whose_certificate_nobody_vouches_for_is_asked_nothing() {
    let home = Home::of(&["acme"]).await;
    let server = domicile_tests::vault::Vault::start_over_tls().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    server.script(move |_, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        None
    });
    let inspect = |variables: &[(&str, &str)]| {
        let mut command = program();
        command.args(["inspect", "s3://segments-eu/a.dseg"]).current_dir(&home.directory);
        command.env("AWS_REGION", REGION).env("AWS_ENDPOINT", server.address());
        command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", SECRET);
        let output = command.envs(variables.iter().copied()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let said = inspect(&[]);
    assert!(said.contains("error[object/") && !said.contains(SECRET), "{said}");
    // In clear is one thing, and TLS with anybody another.
    inspect(&[("AWS_ALLOW_HTTP", "true")]);
    assert!(inspect(&[("AWS_ALLOW_INVALID_CERTIFICATES", "true")]).contains("config/invalid"));
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}
