//! `domicile init`.

use domicile::{Code, Error, Place, Region, Result, setup};
use serde::Serialize;

use crate::arguments::Init;
use crate::report::Report;

#[derive(Serialize)]
struct InitJson<'a> {
    config: String,
    here: &'a Region,
    regions: Vec<&'a Region>,
}

pub(crate) async fn run(init: &Init, report: &Report) -> Result<()> {
    let places = if init.regions.is_empty() { defaults()? } else { init.regions.clone() };
    let here = here(init, &places)?;
    let mut stores = setup::Stores::default();
    stores.store.clone_from(&init.store);
    stores.homes.clone_from(&init.homes);
    stores.password_file.clone_from(&init.password_file);
    let config = setup::init_on(&init.directory, &places, &here, &stores).await?;
    let result = InitJson {
        config: config.path().display().to_string(),
        here: &here,
        regions: config.regions().keys().collect(),
    };
    report.print(&result, || {
        let regions: Vec<_> = config.regions().values().map(|region| region.place.to_string()).collect();
        format!(
            "set up {}\n  here:    {}\n  regions: {}\n  keys:    {} (whoever reads them opens everything: keep them here, and out of backups)",
            config.path().display(),
            config.here(),
            regions.join(", "),
            init.directory.join("keys").display(),
        )
    })
}

fn defaults() -> Result<Vec<Place>> {
    [("us-east-1", "US"), ("eu-central-1", "EU")]
        .into_iter()
        .map(|(region, jurisdiction)| {
            Ok(Place { region: region.parse()?, jurisdiction: jurisdiction.parse()? })
        })
        .collect()
}

fn here(init: &Init, places: &[Place]) -> Result<Region> {
    if let Some(here) = &init.here {
        return Ok(here.clone());
    }
    let default: Region = "eu-central-1".parse()?;
    match places {
        [only] => Ok(only.region.clone()),
        _ if places.iter().any(|place| place.region == default) => Ok(default),
        _ => Err(Error::new(Code::ArgumentInvalid, "nobody said where this host is")
            .advise("say --here with one of the regions")),
    }
}
