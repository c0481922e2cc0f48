//! The house's own rules, those that no lint can carry: what imports what, what every page and specification
//! promises, what never stands in a file.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use domicile::Code;
use domicile_tests::program::{program, repository, succeed};
use regex::Regex;

/// Every file of the project, by its path in the repository, that is text.
fn files() -> BTreeMap<String, String> {
    const NOT_OURS: [&str; 4] = [".git", "target", "book", "__pycache__"];
    let root = repository();
    let (mut folders, mut files) = (vec![root.clone()], BTreeMap::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                if !NOT_OURS.contains(&name) {
                    folders.push(path);
                }
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                files.insert(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), text);
            }
        }
    }
    assert!(files.len() > 200, "{}", files.len());
    files
}

/// Those below a folder with an ending.
fn below<'a>(
    files: &'a BTreeMap<String, String>,
    folder: &'a str,
    ending: &'a str,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let of = files.iter().filter(move |(path, _)| path.starts_with(folder) && path.ends_with(ending));
    of.map(|(path, text)| (path.as_str(), text.as_str()))
}

fn matches<'a>(pattern: &str, text: &'a str) -> BTreeSet<&'a str> {
    let found = Regex::new(pattern).unwrap();
    let of = |captures: regex::Captures<'a>| captures.get(captures.len() - 1).unwrap().as_str();
    found.captures_iter(text).map(of).collect()
}

/// Which module at the top of a crate uses which others, tests left out.
fn imports(crate_folder: &str) -> BTreeMap<String, BTreeSet<String>> {
    let files = files();
    let source = format!("{crate_folder}/src/");
    let root = ["lib.rs", "main.rs"].iter().find_map(|root| files.get(&format!("{source}{root}"))).unwrap();
    // What the root gives another name is its module's.
    let mut exported = BTreeMap::new();
    for captures in Regex::new(r"pub use (\w+)::(?:\{([^}]*)\}|(\w+));").unwrap().captures_iter(root) {
        let names = captures.get(2).or(captures.get(3)).unwrap().as_str();
        for name in names.split(',').map(str::trim) {
            exported.insert(name.to_owned(), captures[1].to_owned());
        }
    }
    let used = Regex::new(r"crate::(?:\{([^;]*)\};|(\w+))").unwrap();
    let mut graph: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for (path, text) in below(&files, &source, ".rs") {
        let module = path[source.len()..].split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        if ["lib", "main"].contains(&module.as_str()) || path.ends_with("/tests.rs") {
            continue;
        }
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let code: Vec<_> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let code = code.join("\n");
        for captures in used.captures_iter(&code) {
            let names: Vec<&str> = match captures.get(1) {
                Some(list) => matches(r"(?:^|,)\s*(\w+)", list.as_str()).into_iter().collect(),
                None => vec![captures.get(2).unwrap().as_str()],
            };
            for name in names {
                let name = exported.get(name).map_or(name, String::as_str);
                if name != module {
                    graph.entry(module.clone()).or_default().insert(name.to_owned());
                }
            }
        }
    }
    graph
}

/// A way from a module back to itself, if there is one.
fn circle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit(
        graph: &BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> bool {
        let Some(uses) = graph.get(way.last().unwrap()) else { return false };
        for module in uses {
            if done.contains(module) {
                continue;
            }
            let before = way.iter().position(|on_the_way| on_the_way == module);
            way.push(module.clone());
            if let Some(before) = before {
                way.drain(..before);
                return true;
            }
            if visit(graph, way, done) {
                return true;
            }
            done.extend(way.pop());
        }
        false
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|module| {
        let mut way = vec![module.clone()];
        visit(graph, &mut way, &mut done).then_some(way)
    })
}

#[test]
fn modules_import_one_way() {
    let graph = |edges: &[(&str, &str)]| {
        let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in edges {
            graph.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        graph
    };
    assert_eq!(circle(&graph(&[("a", "b"), ("a", "c"), ("b", "c")])), None);
    assert_eq!(circle(&graph(&[("a", "b"), ("b", "c"), ("c", "b")])).unwrap(), ["b", "c", "b"]);
    for name in ["domicile", "domicile-record", "domicile-transport", "domicile-cli"] {
        let graph = imports(&format!("crates/{name}"));
        assert_eq!(circle(&graph), None, "{name}");
        assert!(graph.len() >= 3, "{name}: {graph:?}");
    }
}

#[test]
fn crates_import_one_way_and_every_dependency_says_what_it_is_for() {
    let files = files();
    let layers = ["domicile", "domicile-record", "domicile-transport", "domicile-cli"];
    for (layer, name) in layers.iter().enumerate() {
        let manifest = &files[&format!("crates/{name}/Cargo.toml")];
        let above = matches(r"(?m)^(domicile[a-z-]*)[. ]", manifest);
        let above = above.into_iter().filter(|name| !layers[..layer].contains(name));
        assert_eq!(above.collect::<Vec<_>>(), Vec::<&str>::new(), "{name}");
    }
    // Each line of the workspace's dependencies that is not a member of it has its reason behind it.
    let manifest = &files["Cargo.toml"];
    let dependencies = manifest.split("[workspace.dependencies]").nth(1).unwrap();
    let dependencies = dependencies.split("\n[").next().unwrap();
    let unexplained: Vec<_> = dependencies
        .lines()
        .filter(|line| line.contains(" = ") && !line.contains("path = "))
        .filter(|line| !line.contains(" # "))
        .collect();
    assert_eq!(unexplained, Vec::<&str>::new());
    // And is used.
    let manifests: Vec<_> =
        files.iter().filter(|(path, _)| path.ends_with("/Cargo.toml")).map(|(_, text)| text).collect();
    for name in matches(r"(?m)^([a-z0-9-]+) = ", dependencies) {
        let used = Regex::new(&format!(r"(?m)^{name}(\.workspace| = \{{ (workspace|path))")).unwrap();
        assert!(manifests.iter().any(|text| used.is_match(text)), "nothing uses {name}");
    }
}

#[test]
fn the_book_explains_every_error_and_no_other() {
    let page = files()["docs/src/errors.md"].clone();
    let explained: Vec<_> = Regex::new(r"(?m)^\| `([a-z]+/[a-z-]+)` \| (\d) \|")
        .unwrap()
        .captures_iter(&page)
        .map(|row| (row[1].to_owned(), row[2].parse::<u8>().unwrap()))
        .collect();
    let codes: Vec<_> =
        Code::ALL.iter().map(|code| (code.as_str().to_owned(), code.class().exit_code())).collect();
    assert_eq!(explained, codes);
}

#[test]
fn every_rule_of_the_specifications_is_held_by_the_second_reader_or_a_test() {
    let files = files();
    let mut rules: BTreeSet<String> = BTreeSet::new();
    for (page, name) in [("segment", "SEG"), ("keys", "KEY"), ("sealed-records", "REC")] {
        let page = &files[&format!("docs/src/{page}.md")];
        let of_page = matches(r"(?m)^((?:SEG|KEY|REC)-\d+)  ?\S", page);
        assert!(of_page.contains(&*format!("{name}-1")), "{of_page:?}");
        rules.extend(of_page.into_iter().map(str::to_owned));
    }
    assert!(rules.len() > 40, "{rules:?}");
    let mut held = BTreeSet::new();
    let tests = below(&files, "tests/", ".rs").chain(below(&files, "fuzz/", ".rs"));
    let readers = below(&files, "tests/", ".py").chain(below(&files, "crates/", ".rs"));
    for (_, text) in tests.chain(readers) {
        held.extend(matches(r"\b((?:SEG|KEY|REC)-\d+)\b", text).into_iter().map(str::to_owned));
    }
    assert_eq!(rules.difference(&held).collect::<Vec<_>>(), Vec::<&String>::new(), "nothing holds these");
    assert_eq!(held.difference(&rules).collect::<Vec<_>>(), Vec::<&String>::new(), "there are no such rules");
}

#[test]
fn every_command_and_flag_is_used_in_a_session() {
    let files = files();
    let mut sessions = files["README.md"].clone() + &files["docs/src/tour.md"];
    sessions.extend(below(&files, "tests/sessions/", ".md").map(|(_, text)| text));
    let help = |arguments: &[&str]| {
        let text = String::from_utf8(succeed(program().args(arguments).arg("--help"))).unwrap();
        for flag in matches(r"(?m)^ {2,6}(?:-\w, )?(--[a-z-]+)", &text) {
            assert!(sessions.contains(flag), "domicile {}: no session uses {flag}", arguments.join(" "));
        }
        let commands = text.split("Commands:\n").nth(1).unwrap_or_default().split("\n\n").next().unwrap();
        let commands = matches(r"(?m)^  ([a-z]+) ", commands);
        commands.into_iter().filter(|name| *name != "help").map(str::to_owned).collect::<Vec<_>>()
    };
    let commands = help(&[]);
    assert!(commands.len() >= 7, "{commands:?}");
    for command in &commands {
        for subcommand in help(&[command]) {
            help(&[command, &subcommand]);
            sessions_use(&files, &format!("domicile {command} {subcommand}"));
        }
        sessions_use(&files, &format!("domicile {command}"));
    }
}

fn sessions_use(files: &BTreeMap<String, String>, command: &str) {
    let session = |(_, text): (&str, &str)| text.contains(command);
    assert!(below(files, "tests/sessions/", ".md").any(session), "no session uses `{command}`");
}

#[test]
fn every_page_is_in_the_book_and_every_link_leads_somewhere() {
    let files = files();
    let summary = &files["docs/src/SUMMARY.md"];
    let listed: BTreeSet<_> =
        matches(r"\]\(([^)]+\.md)\)", summary).into_iter().map(|page| format!("docs/src/{page}")).collect();
    let pages: BTreeSet<_> = below(&files, "docs/src/", ".md")
        .map(|(path, _)| path.to_owned())
        .filter(|path| path != "docs/src/SUMMARY.md")
        .collect();
    assert_eq!(listed, pages);
    for (path, text) in below(&files, "", ".md") {
        let folder = Path::new(path).parent().unwrap();
        for link in matches(r"\]\(([^)\s]+)\)", text) {
            let target = link.split('#').next().unwrap();
            if !target.contains("://") && !target.is_empty() {
                let target: PathBuf = repository().join(folder).join(target);
                assert!(target.exists(), "{path}: {link} leads nowhere");
            }
        }
        for named in matches(r"`((?:crates|tests|docs|scripts|samples|benches|fuzz)/[\w./-]+)`", text) {
            assert!(repository().join(named).exists(), "{path}: there is no {named}");
        }
    }
}

#[test]
fn nothing_of_a_machine_stands_in_a_file() {
    // A home directory, and a registry other than the one that everybody uses.
    let home = Regex::new(r"/(root|home/[a-z]+|Users/[A-Za-z]+)/").unwrap();
    for (path, text) in files().iter().filter(|(path, _)| *path != "tests/tests/house.rs") {
        assert!(!home.is_match(text), "{path}: {:?}", home.find(text).map(|found| found.as_str()));
        if path.ends_with("Cargo.lock") {
            for source in matches(r#"source = "([^"]+)""#, text) {
                assert_eq!(source, "registry+https://github.com/rust-lang/crates.io-index", "{path}");
            }
        }
    }
}

#[test]
fn scripts_run_say_how_they_are_used_and_are_named_in_the_docs() {
    use std::os::unix::fs::PermissionsExt;
    let files = files();
    let docs: String = [&files["README.md"], &files["CONTRIBUTING.md"], &files["docs/src/fuzzing.md"]]
        .into_iter()
        .map(String::as_str)
        .collect();
    assert!(files[".ci/run"].contains("scripts/test"));
    for (path, text) in below(&files, "scripts/", "") {
        let mode = std::fs::metadata(repository().join(path)).unwrap().permissions().mode();
        assert!(mode & 0o111 == 0o111, "{path} cannot be run");
        assert!(text.starts_with("#!/usr/bin/env bash\n# "), "{path} does not say what it is");
        assert!(docs.contains(path), "no page names {path}");
        assert!(text.contains(&format!("usage: {path}")), "{path} takes any flag");
        let wrong = Command::new(repository().join(path)).arg("--no-such-flag").output().unwrap();
        assert_eq!(wrong.status.code(), Some(2), "{path} takes any flag");
        assert!(String::from_utf8_lossy(&wrong.stderr).contains(&format!("usage: {path}")), "{path}");
    }
}

/// Every metric is in the book, with its labels, and none of them names a tenant, a key or a person.
#[test]
fn metrics_are_in_the_book_and_name_nobody() {
    const COUNT: [&str; 2] = ["crates/domicile/src/observe.rs", "crates/domicile-transport/src/observe.rs"];
    let files = files();
    let (source, page) = (COUNT.map(|path| files[path].as_str()).concat(), &files["docs/src/metrics.md"]);
    let names = matches(r#""(domicile_[a-z_]+)""#, &source);
    assert!(names.len() > 5, "{names:?}");
    assert_eq!(names, matches(r"(?m)^\| `(domicile_[a-z_]+)` \|", page));
    let labels = matches(r#""([a-z]+)" =>"#, &source);
    let allowed = ["cache", "cause", "code", "group", "operation", "outcome", "region", "role"];
    assert_eq!(labels, BTreeSet::from(allowed));
    for label in labels {
        assert!(page.contains(&format!("`{label}`")), "{label}");
    }
    // Nowhere else is anything counted.
    for (path, text) in below(&files, "crates/", ".rs") {
        let counts = text.contains("metrics::") && !COUNT.contains(&path);
        assert!(!counts, "{path}");
    }
}
