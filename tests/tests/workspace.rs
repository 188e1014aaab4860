//! The house itself: arrows between the crates, where unsafe code may stand, what every file begins with.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use dhow_tests::tool;
use serde_json::Value;

/// Who may use whom, as ARCHITECTURE.md draws it (development dependencies are free).
const ARROWS: [(&str, &[&str]); 9] = [
    ("dhow-api", &["dhow-sys"]),
    ("dhow-sys", &[]),
    ("dhow-layer", &["dhow-sys"]),
    ("dhow-image", &["dhow-layer", "dhow-sys"]),
    ("dhow-runtime", &["dhow-sys"]),
    ("dhow-shim", &["dhow-runtime", "dhow-api", "dhow-sys"]),
    ("dhow-snapshotter", &["dhow-layer", "dhow-api", "dhow-sys"]),
    ("dhow-netplug", &["dhow-api", "dhow-sys"]),
    ("dhow-cli", &["dhow-image", "dhow-api", "dhow-sys"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a source directory").flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("generated") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn arrows_point_one_way() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let said = tool(cargo, ["metadata", "--format-version=1", "--no-deps", "--offline"]).dir(root()).run().ok();
    let metadata: Value = serde_json::from_str(&said.stdout).unwrap();
    let mut uses: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let target = dependency["name"].as_str().unwrap();
            if target.starts_with("dhow-") && dependency["kind"].is_null() {
                uses.entry(name.to_owned()).or_default().push(target.to_owned());
            }
        }
    }
    for (name, allowed) in ARROWS {
        for target in uses.get(name).into_iter().flatten() {
            assert!(allowed.contains(&target.as_str()), "{name} must not use {target}");
        }
    }
    for name in uses.keys().filter(|name| !["dhow-tests", "dhow-benches", "xtask"].contains(&name.as_str())) {
        assert!(ARROWS.iter().any(|(known, _)| known == name), "{name} is not on the map");
    }
}

#[test]
fn unsafe_code_stands_only_in_sys() {
    for folder in
        ["api", "layer", "image", "runtime", "shim", "snapshotter", "netplug", "cli", "tests", "benches", "xtask"]
    {
        let src = root().join(folder).join("src");
        for entry in ["lib.rs", "main.rs"].map(|file| src.join(file)).iter().filter(|path| path.exists()) {
            let text = fs::read_to_string(entry).unwrap();
            // A program may have C's `main`, an exported name, for which "forbid" leaves no exception; nothing else.
            let exported =
                text.matches("unsafe(").count() == 1 && text.contains("#[unsafe(no_mangle)]\nextern \"C\" fn main()");
            let kept = if exported { "#![deny(unsafe_code)]" } else { "#![forbid(unsafe_code)]" };
            assert!(
                text.contains(kept) && !text.contains("unsafe {"),
                "{} does not forbid unsafe code",
                entry.display()
            );
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    let mut files = Vec::new();
    for folder in [
        "api",
        "sys",
        "layer",
        "image",
        "runtime",
        "shim",
        "snapshotter",
        "netplug",
        "cli",
        "tests",
        "benches",
        "xtask",
    ] {
        sources(&root().join(folder), &mut files);
    }
    let silent: Vec<_> = files
        .iter()
        .filter(|path| !fs::read_to_string(path).unwrap().starts_with("//!"))
        .map(|p| p.display().to_string())
        .collect();
    assert!(silent.is_empty(), "without a header: {silent:#?}");
}

#[test]
fn a_services_main_is_short() {
    for folder in ["runtime", "shim", "snapshotter", "netplug", "cli"] {
        let path = root().join(folder).join("src/main.rs");
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines < 100, "{}: {lines} lines", path.display());
    }
}
