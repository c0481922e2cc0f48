//! Appends records of a thousand customers, and says what is safe. The README shows what follows.
//!
//!     domicile init && cargo run --example record

#![allow(clippy::print_stdout, reason = "this is a program that prints")]

use domicile::home::{HomeChoice, Types};
use domicile::{Domicile, RecordType, Region, Scope};
use domicile_record::Recorder;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let domicile = Domicile::open("domicile.toml").await?;
    let customers = (0..1_000).map(|number| Scope::new(&format!("customer-{number}"), RecordType::VOICE));
    let customers = customers.collect::<Result<Vec<_>, _>>()?;
    // All of them choose, or none.
    let region: Region = "eu-central-1".parse()?;
    let choice = |customer: &Scope| HomeChoice {
        tenant: customer.tenant.clone(),
        types: Types::All,
        region: region.clone(),
    };
    domicile.choose_homes(&customers.iter().map(choice).collect::<Vec<_>>()).await?;

    // Segments lie below this directory; what a crash left there is closed behind the recorder.
    let recorder = Recorder::create(&domicile, "segments").await?;
    let mut lanes = Vec::new();
    for customer in &customers {
        lanes.push(recorder.scope(customer).await?);
    }
    for (number, lane) in (0..100_000).zip(lanes.iter().cycle()) {
        let record = format!("+12015550102,+12015550147,{number}");
        lane.append(domicile.now(), record.as_bytes()).await?;
    }
    // One sync for all who wait. From here on these records survive `kill -9` and a loss of power; a restart gives the octets back.
    let receipt = recorder.commit_with(b"queue offset 100000").await?;
    println!("{} records of {} customers are safe", receipt.records, customers.len());
    for segment in recorder.close().await? {
        println!("{} records in {} lanes of one segment", segment.records, segment.lanes);
    }
    Ok(())
}
