//! Seals a record where it is at home, opens it there, and is refused elsewhere. The README shows what follows.
//!
//!     domicile init && sed 's/^here = .*/here = "us-east-1"/' domicile.toml > in-the-us.toml
//!     cargo run --example seal_and_open

#![allow(clippy::print_stdout, reason = "this is a program that prints")]

use domicile::engine::Suite;
use domicile::{Domicile, Purpose, RecordType, Scope};
use domicile_record::format::Descriptor;
use domicile_record::{Segment, SegmentWriter, Stamp, WriterOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Regions, keys, stores, and where this host is.
    let domicile = Domicile::open("domicile.toml").await?;
    let acme = Scope::new("acme", RecordType::VOICE)?;
    // Once: a second, different choice is refused.
    domicile.choose_home(&acme, "eu-central-1").await?;

    let (file, region) = (std::fs::File::create_new("voice.dseg")?, "eu-central-1".parse()?);
    let mut writer = SegmentWriter::create(&domicile, &region, file, WriterOptions::default()).await?;
    let month = domicile.period(&acme.record_type, domicile.now())?;
    let lane = writer.open_lane(Descriptor::new(acme.clone(), month, Suite::default()), b"").await?;
    // Copied once, into the block that is sealed in place.
    writer.append(lane, b"+12015550102,+12015550147,31", Stamp::default())?;
    // Everything appended so far is on disk; the caller's own octets come back after a crash.
    writer.commit(b"queue offset 4711")?;
    writer.finish().await?;

    // The guard, then the keys that were asked for, then bytes.
    let segment = Segment::open(&domicile, "voice.dseg", Purpose::Billing, &acme).await?;
    for block in segment.blocks() {
        for record in &block? {
            println!("{}", String::from_utf8_lossy(record));
        }
    }

    // The same keys and stores, and a configuration that says `here = "us-east-1"`.
    let elsewhere = Domicile::open("in-the-us.toml").await?;
    if let Err(refused) = Segment::open(&elsewhere, "voice.dseg", Purpose::Billing, &acme).await {
        println!("{}: {refused}", refused.code());
    }
    Ok(())
}
