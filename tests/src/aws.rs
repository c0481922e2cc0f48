//! Two stand-ins for AWS KMS: moto, which keeps keys and wraps, and a server that answers as a test has it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use domicile::kms::{AwsKms, AwsOptions};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::http::{Reply, Request};

/// A moto server on a free port of this host. It ends with this, and, because its input does, with this process.
#[derive(Debug)]
pub struct Moto {
    child: Child,
    address: String,
}

const SERVER: &str = "
import os, sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
server.start()
print('{}:{}'.format(*server.get_host_and_port()), flush=True)
sys.stdin.read()
os._exit(0)
";

impl Moto {
    /// Starts one; none where there is no Python with moto, and nobody named one.
    #[must_use]
    pub fn start() -> Option<Self> {
        let (python, named) = match std::env::var_os("DOMICILE_PYTHON") {
            Some(python) => (PathBuf::from(python), true),
            None => (PathBuf::from("python3"), false),
        };
        let works = Command::new(&python).args(["-c", "import moto.server"]).output();
        let works = works.is_ok_and(|output| output.status.success());
        assert!(works || !named, "{} has no package `moto`", python.display());
        if !works {
            eprintln!("SKIPPED: python3 has no package `moto`; scripts/test makes one that has");
            return None;
        }
        let mut child = Command::new(python)
            .args(["-c", SERVER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Some(Self { child, address: address.trim().to_owned() })
    }

    /// Where it is.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Asks for something that only an administrator would. Panics when the answer is an error.
    pub async fn ask(&self, region: &str, operation: &str, body: &Value) -> Value {
        let body = body.to_string();
        let request = format!(
            "POST / HTTP/1.1\r\nhost: {}\r\ncontent-type: application/x-amz-json-1.1\r\nx-amz-target: TrentService.{operation}\r\n\
             authorization: AWS4-HMAC-SHA256 Credential=test/20261125/{region}/kms/aws4_request, SignedHeaders=host, Signature=0\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let answer = self.exchange(&request).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{operation}: {answer}");
        if body.is_empty() { Value::Null } else { serde_json::from_str(body).unwrap() }
    }

    async fn exchange(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Asks its S3 for something, as an administrator would: method, path with query, body. The status, and the answer.
    pub async fn s3(&self, region: &str, what: &str, body: &str) -> (u16, String) {
        let request = format!(
            "{what} HTTP/1.1\r\nhost: {}\r\n\
             authorization: AWS4-HMAC-SHA256 Credential=test/20261125/{region}/s3/aws4_request, SignedHeaders=host, Signature=0\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let answer = self.exchange(&request).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Makes a bucket.
    pub async fn bucket(&self, region: &str, name: &str) {
        let place = format!(
            "<CreateBucketConfiguration><LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>"
        );
        let (status, answer) = self.s3(region, &format!("PUT /{name}"), &place).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// Makes a key, and returns its ARN.
    pub async fn key(&self, region: &str, options: &Value) -> String {
        let answer = self.ask(region, "CreateKey", options).await;
        answer.pointer("/KeyMetadata/Arn").and_then(Value::as_str).unwrap().to_owned()
    }

    /// Makes a root key and a signing key, and returns how they are reached.
    pub async fn keys(&self, region: &str) -> AwsOptions {
        let root = self.key(region, &root()).await;
        let signing =
            self.key(region, &json!({ "KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY" })).await;
        AwsOptions { endpoint: Some(self.endpoint()), ..AwsOptions::new(root, signing) }
    }
}

/// What a root key is made with. Moto knows no defaults.
#[must_use]
pub fn root() -> Value {
    json!({ "KeySpec": "SYMMETRIC_DEFAULT", "KeyUsage": "ENCRYPT_DECRYPT" })
}

impl Drop for Moto {
    fn drop(&mut self) {
        // This very child, by its id.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A key service with credentials that any stand-in believes.
#[must_use]
pub fn aws_kms(region: &str, options: AwsOptions) -> AwsKms {
    AwsKms::new(region.parse().unwrap(), options).unwrap().with_credentials("test", "test")
}

/// An error as AWS KMS writes it.
#[must_use]
pub fn error(status: u16, code: &str) -> Reply {
    Reply::Json(status, json!({ "__type": code, "message": "as the test has it" }))
}

type Script = dyn Fn(&str, &Value, usize) -> Reply + Send + Sync;

/// A server that speaks the protocol of AWS KMS and says what a test has it say.
#[derive(Debug)]
pub struct Scripted {
    address: String,
    requests: Arc<Mutex<Vec<(String, Value)>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Scripted {
    /// Starts one: `script` is given the operation, what was sent with it, and how often it was asked before.
    pub async fn start(script: impl Fn(&str, &Value, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Script> = Arc::new(script);
        let server = tokio::spawn({
            let requests = requests.clone();
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(serve(stream, script.clone(), requests.clone()));
                }
            }
        });
        Self { address, requests, server }
    }

    /// Where it is.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was sent for an operation, in order.
    #[must_use]
    pub fn requests(&self, operation: &str) -> Vec<Value> {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|(name, _)| name == operation).map(|(_, body)| body.clone()).collect()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Script>, requests: Arc<Mutex<Vec<(String, Value)>>>) {
    let Some(request) = Request::read(&mut stream).await else { return };
    let target = request.header("x-amz-target").unwrap_or_default();
    let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
    let before = {
        let mut requests = requests.lock().unwrap();
        requests.push((operation.clone(), request.body.clone()));
        requests.iter().filter(|(name, _)| *name == operation).count() - 1
    };
    let headers = "content-type: application/x-amz-json-1.1\r\nx-amzn-requestid: r-1\r\n";
    script(&operation, &request.body, before).write(&mut stream, headers).await;
}
