//! The source itself: what the rules may depend on, where a third party's library may be named, how long things are.

#![allow(clippy::expect_used, reason = "a test stops at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "a test may read the source")]

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(folder: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder of the source") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(&root().join(folder), &mut paths);
    let read = |path: PathBuf| (path.display().to_string(), std::fs::read_to_string(&path).expect("a source file"));
    paths.into_iter().map(read).collect()
}

fn shipped() -> Vec<(String, String)> {
    ["proto-spec/src", "node/src", "simulations/src", "testnet/src"].into_iter().flat_map(sources).collect()
}

#[test]
fn the_rules_depend_on_cryptography_and_forms_alone() {
    let manifest = std::fs::read_to_string(root().join("proto-spec/Cargo.toml")).expect("the manifest");
    let section = manifest.split("[dependencies]").nth(1).and_then(|rest| rest.split('[').next()).expect("a section");
    let known = [
        "aes",
        "aes-gcm",
        "base64",
        "blsful",
        "blst",
        "blstrs_plus",
        "cfb-mode",
        "hex",
        "hkdf",
        "hmac",
        "hpke",
        "p384",
        "raft",
        "rand_chacha",
        "rand_core",
        "ring",
        "rsa",
        "serde",
        "serde_bytes",
        "serde_cbor",
        "sha2",
        "slog",
        "ssh-key",
        "thiserror",
        "vsss-rs",
        "x509-cert",
        "zeroize",
    ];
    let named: Vec<&str> =
        section.lines().filter_map(|line| line.split('.').next()).filter(|n| !n.is_empty()).collect();
    assert!(named.len() > 10, "the manifest was not read");
    for name in named {
        assert!(known.contains(&name), "{name}: a new dependency of the rules needs a reason and a line here");
    }
}

#[test]
fn a_third_partys_library_is_named_in_one_place() {
    let places = [
        ("sled::", "node/src/store.rs"),
        ("libp2p::", "node/src/network/"),
        ("tss_esapi::", "node/src/tpm/"),
        ("age::", "node/src/maps.rs"),
        ("axum::", "node/src/api/"),
        ("serde_cbor::", "proto-spec/src/wire/"),
        ("blsful::", "proto-spec/src/suite/"),
        ("vsss_rs::", "proto-spec/src/suite/"),
        ("raft::", "proto-spec/src/cms/"),
        ("x509_cert::", "proto-spec/src/attest/chain.rs"),
    ];
    let files = shipped();
    for (name, place) in places {
        let used: Vec<&str> = files
            .iter()
            .filter(|(_, text)| text.lines().any(|line| names(line, name)))
            .map(|(path, _)| path.as_str())
            .collect();
        assert!(!used.is_empty(), "{name} is not found anywhere: this test looks for nothing");
        for path in used {
            assert!(path.contains(place), "{name} is named in {path}, outside {place}");
        }
    }
}

/// Whether a line of code names a crate, and not a word that ends like it.
fn names(line: &str, name: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices(name).any(|(at, _)| {
        let before = code.get(..at).and_then(|before| before.chars().next_back());
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':')
    })
}

#[test]
fn files_and_functions_are_small_rooms() {
    for (path, text) in shipped() {
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() <= 600, "{path}: {} lines", lines.len());
        for (at, line) in lines.iter().enumerate() {
            let trimmed = line.trim_start();
            let starts = ["fn ", "pub fn ", "pub(super) fn ", "pub(crate) fn ", "async fn ", "pub async fn "];
            if !starts.iter().any(|start| trimmed.starts_with(start)) || trimmed.ends_with(';') {
                continue;
            }
            let indent = line.len() - trimmed.len();
            let end = format!("{}}}", " ".repeat(indent));
            let length = lines.iter().skip(at).position(|line| *line == end).unwrap_or(0);
            assert!(length <= 70, "{path}:{}: {length} lines", at + 1);
        }
    }
}
