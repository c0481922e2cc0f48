//! `domicile completions` and `domicile man`.

use std::fs;
use std::io::Write;

use clap::CommandFactory;
use domicile::{Error, Result};

use crate::arguments::{Arguments, Completions, Man};
use crate::report::{Report, output_failed};

pub(crate) fn completions(arguments: &Completions, report: &Report) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "domicile", &mut script);
    let mut output = report.stdout();
    output.write_all(&script).and_then(|()| output.flush()).map_err(output_failed)
}

pub(crate) fn man(arguments: &Man) -> Result<()> {
    let directory = &arguments.directory;
    let write = || {
        fs::create_dir_all(directory)?;
        clap_mangen::generate_to(Arguments::command(), directory)
    };
    write().map_err(|source| {
        Error::output_failed("the manual pages could not be written", source)
            .at(directory.display().to_string())
    })
}
