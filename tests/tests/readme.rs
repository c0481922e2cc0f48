//! The programs in the README are those in `crates/domicile-record/examples/`, and print what the README says.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails; the program prints"
)]

use std::process::Command;

use domicile_tests::program::{example, program, repository, succeed};

#[test]
fn the_programs_in_the_readme_are_examples_and_print_what_the_readme_says() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let mut rest = &readme[..];
    for name in ["seal_and_open", "record"] {
        let source = repository().join(format!("crates/domicile-record/examples/{name}.rs"));
        let source = std::fs::read_to_string(source).unwrap();
        let shown;
        (shown, rest) = rest.split_once("```rust\n").unwrap().1.split_once("```\n").unwrap();
        assert!(source.ends_with(shown), "README.md shows another program than examples/{name}.rs");
        let said;
        (said, rest) = rest.split_once("```text\n").unwrap().1.split_once("```").unwrap();

        let directory = tempfile::tempdir().unwrap();
        succeed(program().arg("init").current_dir(&directory));
        let configuration = std::fs::read_to_string(directory.path().join("domicile.toml")).unwrap();
        let elsewhere = configuration.replace("here = \"eu-central-1\"", "here = \"us-east-1\"");
        std::fs::write(directory.path().join("in-the-us.toml"), elsewhere).unwrap();
        let printed = succeed(Command::new(example(name)).current_dir(&directory));
        assert_eq!(String::from_utf8(printed).unwrap(), said, "{name}");
    }
    assert!(!rest.contains("```rust"), "README.md shows a program that is no example");
}
