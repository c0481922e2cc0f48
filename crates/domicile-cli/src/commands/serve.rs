//! `domicile serve`: the home's end of shipping.

use std::time::Duration;

use domicile::{Code, Error, Result};
use domicile_transport::Transport;
use domicile_transport::ship::{Landing, Limits, Server};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde::Serialize;
use tokio::net::TcpListener;
use tracing::Level;

use super::signals::told_to_end;
use crate::arguments::{Common, Serve};
use crate::input;
use crate::output::make;
use crate::report::Report;

#[derive(Serialize)]
struct ListeningJson {
    listening: String,
    identity: String,
    region: String,
}

pub(crate) async fn run(common: &Common, serve: &Serve, report: &Report) -> Result<()> {
    let level = if common.verbose { Level::DEBUG } else { Level::INFO };
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_max_level(level).init();
    let counts = PrometheusBuilder::new()
        .install_recorder()
        .map_err(|source| Error::new(Code::ArgumentInvalid, "nothing can be counted").because(source))?;
    let end = told_to_end()?;
    let config = input::config(common, report)?;
    let transport = Transport::open(&config)?;
    let domicile = input::domicile(common, report).await?;
    make(&serve.directory)?;
    let mut limits = Limits::default();
    limits.segment_bytes_max = serve.segment_max;
    (limits.uploads_max, limits.uploads_per_peer_max) = (serve.uploads.into(), serve.uploads_per_host.into());
    limits.silence_max = Duration::from_secs(serve.silence.max(1));
    limits.part_age_max = Duration::from_hours(u64::from(serve.part_days) * 24);
    let landing = Landing::open(&serve.directory, config.here(), limits, Some(domicile))?;
    let listener = TcpListener::bind(&serve.listen).await.and_then(|of| Ok((of.local_addr()?, of)));
    let (address, listener) = listener.map_err(|source| {
        Error::new(Code::ConnectionFailed, "nothing can be listened to")
            .at(serve.listen.clone())
            .advise("name another address, or end what listens there")
            .because(source)
    })?;
    let json = ListeningJson {
        listening: address.to_string(),
        identity: transport.identity().to_string(),
        region: config.here().region.to_string(),
    };
    report.print(&json, || format!("listening on {} as {}", json.listening, json.identity))?;
    let server = Server::new(&transport, landing)
        .readers(serve.readers.clone())
        .drain_max(Duration::from_secs(serve.drain))
        .metrics(move || counts.render());
    server.run(listener, end).await
}
