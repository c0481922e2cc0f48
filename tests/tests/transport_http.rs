//! HTTP, gRPC and PostgreSQL over connections whose other ends are where they may be: servers find who asks, and clients of
//! other makes are taken and refused as anybody.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::io;
use std::process::{Command, Output};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::{get, post};
use domicile::config::PostgresUrl;
use domicile::store::{PostgresStore, Step};
use domicile::{Clock as _, Code, SystemClock};
use domicile_tests::hosts::{DAY, Hosts, NAME, by_name, identity, known};
use domicile_tests::postgres;
use domicile_transport::authority::Issue;
use domicile_transport::{Connector, Exchange, Peer, Transport, error_of};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A server of a region that says who asks, and gives back what it is sent; where it listens.
async fn serve(transport: &Transport, exchange: Exchange) -> std::net::SocketAddr {
    let router = Router::new()
        .route(
            "/",
            get(|ConnectInfo(peer): ConnectInfo<Peer>| async move {
                format!("{} by {}\n", peer.identity(), peer.key_exchange())
            }),
        )
        .route("/echo", post(|body: axum::body::Bytes| async move { body }));
    let listener = TcpListener::bind("localhost:0").await.unwrap();
    let listener = transport.acceptor(exchange).protocols(&[b"h2", b"http/1.1"]).listen(listener).unwrap();
    let address = listener.local_addr();
    tokio::spawn(async move {
        axum::serve(listener, router.into_make_service_with_connect_info::<Peer>()).await.unwrap();
    });
    address
}

async fn ask(connector: &Connector, address: std::net::SocketAddr) -> Result<(http::Version, String), Code> {
    let client = Client::builder(TokioExecutor::new()).build(connector.http());
    let uri = format!("https://{NAME}:{}/", address.port()).parse().unwrap();
    let request = http::Request::get::<http::Uri>(uri).body(Full::<axum::body::Bytes>::default()).unwrap();
    let answer = client.request(request).await.map_err(|error| {
        // The connector's own error, or that of the connection, lies within hyper's.
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<domicile::Error>() {
                return error.code();
            }
            if let Some(error) = error.downcast_ref::<io::Error>().and_then(error_of) {
                return error.code();
            }
            cause = error.source();
        }
        panic!("{error:?}");
    })?;
    let version = answer.version();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    Ok((version, String::from_utf8(body.to_vec()).unwrap()))
}

#[tokio::test]
async fn a_server_knows_who_asks_and_where_they_are() {
    let hosts = Hosts::new();
    let (store, client, abroad) =
        (hosts.store("eu-central-1"), hosts.store("eu-west-1"), hosts.store("us-east-1"));
    let address = serve(&store, Exchange::processing(&known("eu-central-1"))).await;
    let connector = client.connector(Exchange::home(&known("eu-central-1")));
    for (protocols, version) in [
        (&[&b"h2"[..]][..], http::Version::HTTP_2),
        (&[b"http/1.1"], http::Version::HTTP_11),
        (&[], http::Version::HTTP_11),
    ] {
        let (spoken, said) = ask(&connector.clone().protocols(protocols), address).await.unwrap();
        assert_eq!(spoken, version);
        assert_eq!(said, format!("{} by X25519MLKEM768\n", identity("eu-west-1", "store")));
    }
    // A client in the wrong place, and one that asks a server in the wrong place.
    let refused = ask(&abroad.connector(Exchange::from_anywhere("records")), address).await.unwrap_err();
    assert_eq!(refused, Code::PeerDenied);
    let refused = ask(&client.connector(Exchange::home(&known("eu-west-1"))), address).await.unwrap_err();
    assert_eq!(refused, Code::PeerRefused);
    // Protocols that nobody shares.
    let refused = ask(&connector.clone().protocols(&[b"smtp"]), address).await.unwrap_err();
    assert_eq!(refused, Code::ConnectionFailed);
}

/// `curl` with a certificate of a region; nothing of a proxy or a configuration around it.
async fn curl(hosts: &Hosts, region: Option<&str>, more: Vec<String>) -> Output {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--disable", "--noproxy", "*", "--max-time", "20"]);
    curl.arg("--cacert").arg(hosts.file("eu-central-1.authority.pem"));
    if let Some(region) = region {
        curl.arg("--cert").arg(hosts.file(&format!("{region}.store.pem")));
        curl.arg("--key").arg(hosts.file(&format!("{region}.store.key")));
    }
    curl.args(more);
    tokio::task::spawn_blocking(move || curl.output().unwrap()).await.unwrap()
}

#[tokio::test]
async fn curl_is_taken_and_refused_as_anybody() {
    let hosts = Hosts::new();
    let store = hosts.store("eu-central-1");
    let address = serve(&store, Exchange::processing(&known("eu-central-1"))).await;
    let uri = |path: &str| format!("https://{NAME}:{}{path}", address.port());
    for version in ["--http1.1", "--http2"] {
        let answer = curl(&hosts, Some("eu-west-1"), vec![version.into(), uri("/")]).await;
        let said = String::from_utf8(answer.stdout).unwrap();
        assert!(
            said.starts_with(&identity("eu-west-1", "store")),
            "{said}{}",
            String::from_utf8_lossy(&answer.stderr)
        );
    }
    let sent = "x".repeat(200_000);
    std::fs::write(hosts.file("sent"), &sent).unwrap();
    let body = format!("@{}", hosts.file("sent").display());
    let answer = curl(&hosts, Some("eu-west-1"), vec!["--data-binary".into(), body, uri("/echo")]).await;
    assert_eq!(String::from_utf8(answer.stdout).unwrap(), sent);

    for (region, more, told) in [
        (Some("us-east-1"), vec![uri("/")], "access denied"),
        (None, vec![uri("/")], "certificate required"),
        (Some("eu-west-1"), vec!["--tls-max".into(), "1.2".into(), uri("/")], "protocol version"),
    ] {
        let answer = curl(&hosts, region, more).await;
        let said = String::from_utf8_lossy(&answer.stderr).into_owned();
        assert!(!answer.status.success() && answer.stdout.is_empty(), "{region:?}: {said}");
        assert!(said.contains(told), "{region:?}: {said}");
    }
}

#[tokio::test]
async fn tasks_are_told_of_ends_cuts_and_silence() {
    let hosts = Hosts::new();
    hosts.configure("eu-central-1", "store", "idle_timeout = \"200 ms\"\nhandshake_timeout = \"200 ms\"");
    let (store, client) = (hosts.store("eu-central-1"), hosts.store("eu-west-1"));
    let acceptor = store.acceptor(Exchange::from_anywhere("records"));
    let connector = client.connector(Exchange::from_anywhere("records"));
    let mut listener = acceptor.listen(TcpListener::bind("localhost:0").await.unwrap()).unwrap();
    let (address, target) = (listener.local_addr(), by_name());
    // One who shakes no hands keeps nobody waiting.
    let _silent = tokio::net::TcpStream::connect(address).await.unwrap();

    // A proper end.
    let (mut here, connected) = tokio::join!(listener.accept(), connector.connect_async(address, &target));
    let mut there = connected.unwrap();
    there.write_all(b"all of it").await.unwrap();
    there.shutdown().await.unwrap();
    let mut heard = String::new();
    here.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "all of it");
    drop((here, there));

    // A cut.
    let (mut here, connected) = tokio::join!(listener.accept(), connector.connect_async(address, &target));
    let mut there = connected.unwrap();
    there.write_all(b"half").await.unwrap();
    there.flush().await.unwrap();
    drop(there);
    let error = here.read_to_string(&mut String::new()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(error_of(&error).unwrap().what().contains("it was cut"), "{error}");

    // Silence.
    let (mut here, connected) = tokio::join!(listener.accept(), connector.connect_async(address, &target));
    let there = connected.unwrap();
    let error = here.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(error_of(&error).unwrap().code(), Code::ConnectionFailed);
    drop((here, there));

    // Revoked while it waits, whichever half does.
    let (here, connected) = tokio::join!(listener.accept(), connector.connect_async(address, &target));
    let _there = connected.unwrap();
    let (mut reads, mut writes) = tokio::io::split(here);
    let waits = tokio::spawn(async move { reads.read(&mut [0; 1]).await.unwrap_err() });
    tokio::task::yield_now().await;
    hosts.revoke("eu-west-1", "store");
    assert_eq!(store.keep_up().unwrap().map(|reloaded| reloaded.ended), Some(1));
    let error = waits.await.unwrap();
    assert_eq!(error_of(&error).unwrap().code(), Code::ConnectionEnded);
    let error = writes.write(b"x").await.unwrap_err();
    assert_eq!(error_of(&error).unwrap().code(), Code::ConnectionEnded);
    drop((writes, listener));

    // Where nobody listens any longer.
    assert_eq!(
        connector.connect_async(address, &by_name()).await.unwrap_err().code(),
        Code::ConnectionFailed
    );
}

mod grpc {
    //! Health checks, as every gRPC server has them.

    use super::*;
    use tonic::transport::{Channel, Endpoint, Server};
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;

    async fn check(connector: &Connector, address: std::net::SocketAddr) -> Result<i32, String> {
        let endpoint = Endpoint::from_shared(format!("https://{NAME}:{}", address.port())).unwrap();
        let connector =
            connector.clone().protocols(&[b"h2"]).http_to(identity("eu-central-1", "store").parse().unwrap());
        let channel: Channel =
            endpoint.connect_with_connector(connector).await.map_err(|error| format!("{error:?}"))?;
        let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
        answer.map(|answer| answer.into_inner().status).map_err(|status| format!("{status:?}"))
    }

    #[tokio::test]
    async fn both_ends_speak_and_the_server_knows_who_asks() {
        let hosts = Hosts::new();
        let (store, client, abroad) =
            (hosts.store("eu-central-1"), hosts.store("eu-west-1"), hosts.store("us-east-1"));
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
        let listener = TcpListener::bind("localhost:0").await.unwrap();
        let acceptor = store.acceptor(Exchange::processing(&known("eu-central-1"))).protocols(&[b"h2"]);
        let listener = acceptor.listen(listener).unwrap();
        let address = listener.local_addr();
        let (asked, mut asks) = tokio::sync::mpsc::unbounded_channel();
        let knows = tonic::service::interceptor::InterceptorLayer::new(move |request: tonic::Request<()>| {
            let peer = request.extensions().get::<Peer>().map(|peer| peer.identity().to_string());
            asked.send(peer).unwrap();
            Ok(request)
        });
        tokio::spawn(Server::builder().layer(knows).add_service(health).serve_with_incoming(listener));
        let status = check(&client.connector(Exchange::home(&known("eu-central-1"))), address).await.unwrap();
        assert_eq!(status, i32::from(ServingStatus::Serving));
        assert_eq!(asks.recv().await.unwrap(), Some(identity("eu-west-1", "store")));
        let refused =
            check(&abroad.connector(Exchange::from_anywhere("records")), address).await.unwrap_err();
        assert!(refused.contains("access denied"), "{refused}");
        let refused =
            check(&client.connector(Exchange::home(&known("eu-west-1"))), address).await.unwrap_err();
        assert!(refused.contains("peer/refused"), "{refused}");
        assert!(asks.try_recv().is_err());
    }
}

#[tokio::test]
async fn postgresql_is_reached_in_its_region_and_nowhere_else() {
    if !postgres::Server::is_installed() {
        panic!("there is no PostgreSQL: scripts/test installs it");
    }
    let hosts = Hosts::new();
    let mut server = postgres::Server::new().await;
    server.sql("postgres", "CREATE ROLE store LOGIN").unwrap();
    server.sql("postgres", "CREATE ROLE locked LOGIN PASSWORD 'secret'").unwrap();
    let [_, high, low, _] = std::process::id().to_be_bytes().map(|octet| octet.clamp(1, 254));
    let address = format!("127.77.{high}.{low}");
    let names = [NAME.to_owned(), address.clone()];
    let issue = Issue { service: "database", dns_names: &names, valid: DAY, replace: false };
    hosts.authority("eu-central-1").issue(hosts.path(), &issue, SystemClock.now()).unwrap();
    // The server has an identity of its region, and takes clients with one of the regions' authorities.
    let own = |kind: &str| std::fs::read(hosts.file(&format!("eu-central-1.database.{kind}"))).unwrap();
    let place = |name: &str, bytes: Vec<u8>| {
        let path = server.data().join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let owner = std::fs::metadata(server.data()).unwrap();
        use std::os::unix::fs::MetadataExt as _;
        std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    };
    place("server.pem", own("pem"));
    place("server.key", own("key"));
    let regions = ["eu-central-1", "eu-west-1"];
    let all = |kind: &str| {
        regions
            .iter()
            .flat_map(|region| std::fs::read(hosts.file(&format!("{region}.authority.{kind}"))).unwrap())
            .collect()
    };
    place("clients.pem", all("pem"));
    place("clients.crl", all("crl"));
    let rules = "hostssl all owner all cert map=identities\nhostssl all store all cert map=identities\nhostssl all locked all scram-sha-256 clientcert=verify-ca\nlocal all all trust\n";
    place("pg_hba.conf", rules.into());
    place("pg_ident.conf", "identities store store\nidentities store owner\n".into());
    let settings = "ssl = on\nssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'\nssl_ca_file = 'clients.pem'\nssl_crl_file = 'clients.crl'\nssl_min_protocol_version = 'TLSv1.3'\n";
    server.listen(&address, settings).await;

    let connect = async |host: &Transport, exchange: Exchange, user: &str| {
        let mut config = tokio_postgres::Config::new();
        config
            .host(NAME)
            .hostaddr(address.parse().unwrap())
            .port(5432)
            .user(user)
            .password("secret")
            .dbname("postgres");
        config.ssl_mode(tokio_postgres::config::SslMode::Require);
        if user == "locked" {
            // The password is bound to the certificate: whoever stands between cannot use it.
            config.channel_binding(tokio_postgres::config::ChannelBinding::Require);
        }
        config.connect_timeout(Duration::from_secs(20));
        let (client, connection) = config.connect(host.connector(exchange).postgres()).await?;
        tokio::spawn(connection);
        client.query_one("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]).await
    };
    let (client, abroad) = (hosts.store("eu-west-1"), hosts.store("us-east-1"));
    let home = || Exchange::home(&known("eu-central-1"));
    for user in ["store", "locked"] {
        let row = connect(&client, home(), user).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), "TLSv1.3", "{user}");
    }
    // The same server, where the key store of another region is wanted: nothing is sent to it.
    let refused = connect(&client, Exchange::home(&known("eu-west-1")), "store").await.unwrap_err();
    let cause = std::error::Error::source(&refused).and_then(|cause| cause.downcast_ref::<domicile::Error>());
    assert_eq!(cause.map(domicile::Error::code), Some(Code::PeerRefused), "{refused:?}");
    // And clients whom the server does not take.
    connect(&abroad, home(), "store").await.unwrap_err();

    // Domicile's own key store goes through sqlx: it is pinned by the one authority that it believes.
    server.sql("postgres", "CREATE DATABASE keys").unwrap();
    let file = |name: &str| hosts.file(name).display().to_string();
    let store = |anchor: &str, own: &str| {
        let tls = format!(
            "sslmode=verify-full&sslrootcert={}&sslcert={}&sslkey={}",
            file(&format!("{anchor}.authority.pem")),
            file(&format!("{own}.store.pem")),
            file(&format!("{own}.store.key")),
        );
        PostgresUrl::new(&format!("postgres://owner@{address}/keys?{tls}"), None).unwrap()
    };
    let migrate =
        async |anchor, own| PostgresStore::migrate(&store(anchor, own), Step::Expand).await.map(drop);
    migrate("eu-central-1", "eu-west-1").await.unwrap();
    for (anchor, own) in [("eu-west-1", "eu-west-1"), ("eu-central-1", "us-east-1")] {
        let refused = migrate(anchor, own).await.unwrap_err();
        assert_eq!(refused.code(), Code::StoreUnavailable, "{anchor} {own}: {refused:?}");
    }
}
