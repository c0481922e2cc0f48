//! Where segments are written.

use std::fs;
use std::path::Path;

use domicile::{Error, Result, files};

/// Makes the directory of a segment, with those above it.
pub(crate) fn make(directory: &Path) -> Result<()> {
    let failed = |source| {
        Error::output_failed("the output directory could not be made", source)
            .at(directory.display().to_string())
    };
    files::refuse_foreign_link(directory)?;
    fs::create_dir_all(directory).map_err(failed)?;
    files::sync_directory(directory).map_err(failed)
}
