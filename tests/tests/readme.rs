//! The program in the README is the one in `crates/domicile-record/examples/`, and prints what the README says.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails; the program prints"
)]

use std::process::Command;

use domicile_tests::program::{example, program, repository, succeed};

#[test]
fn the_program_in_the_readme_is_an_example_and_prints_what_the_readme_says() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let source =
        std::fs::read_to_string(repository().join("crates/domicile-record/examples/seal_and_open.rs"))
            .unwrap();
    let (_, shown) = readme.split_once("```rust\n").unwrap();
    let (shown, rest) = shown.split_once("```\n").unwrap();
    assert!(source.ends_with(shown), "README.md shows another program than examples/seal_and_open.rs");
    let (_, said) = rest.split_once("```text\n").unwrap();
    let (said, _) = said.split_once("```").unwrap();

    let directory = tempfile::tempdir().unwrap();
    succeed(program().arg("init").current_dir(&directory));
    let configuration = std::fs::read_to_string(directory.path().join("domicile.toml")).unwrap();
    let elsewhere = configuration.replace("here = \"eu-central-1\"", "here = \"us-east-1\"");
    std::fs::write(directory.path().join("in-the-us.toml"), elsewhere).unwrap();
    let printed = succeed(Command::new(example("seal_and_open")).current_dir(&directory));
    assert_eq!(String::from_utf8(printed).unwrap(), said);
}
