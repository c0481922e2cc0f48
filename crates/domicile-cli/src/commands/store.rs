//! `domicile store`: care of key stores.

use domicile::Result;
use domicile::store::{Step, migrate as migrate_store};
use serde::Serialize;

use crate::arguments::{Common, StoreMigrate};
use crate::input;
use crate::report::Report;

#[derive(Serialize)]
struct MigratedJson {
    store: String,
    before: Option<u32>,
    schema: u32,
    min_reader: u32,
    min_writer: u32,
}

pub(crate) async fn migrate(common: &Common, migrate: &StoreMigrate, report: &Report) -> Result<()> {
    let config = input::config(common, report)?;
    let step = if migrate.contract { Step::Contract } else { Step::Expand };
    let mut urls: Vec<_> =
        config.regions().values().map(|region| &region.store).chain([config.homes()]).collect();
    urls.sort_by_key(ToString::to_string);
    urls.dedup();
    for url in urls {
        let migrated = migrate_store(url, step).await?;
        let json = MigratedJson {
            store: url.to_string(),
            before: migrated.before.map(|before| before.schema),
            schema: migrated.after.schema,
            min_reader: migrated.after.min_reader,
            min_writer: migrated.after.min_writer,
        };
        report.print(&json, || {
            let before = json.before.map_or("none".to_owned(), |before| before.to_string());
            let MigratedJson { store, schema, min_reader, min_writer, .. } = &json;
            format!("{store}: schema {schema} (was {before}), for readers from {min_reader} and writers from {min_writer}")
        })?;
    }
    Ok(())
}
