//! Snapshots of every `--help`: a change of a help text shows in the diff of `tests/it/help`.
//!
//! `UPDATE_HELP=1 cargo test --test it help::` writes the snapshots anew.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use clap::CommandFactory as _;
use larder::cli::Cli;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/help")
}

/// The words that lead to each command, the program itself included.
fn commands(command: &clap::Command, words: &[String], found: &mut Vec<Vec<String>>) {
    found.push(words.to_vec());
    for inner in command.get_subcommands() {
        let words = [words, &[inner.get_name().to_owned()]].concat();
        commands(inner, &words, found);
    }
}

/// The output of each command for `--help`, by the name of its snapshot.
fn texts() -> BTreeMap<String, String> {
    let mut found = Vec::new();
    commands(&Cli::command(), &[], &mut found);
    found
        .into_iter()
        .map(|words| {
            let output = Command::new(env!("CARGO_BIN_EXE_larder"))
                .env_clear()
                .args(&words)
                .arg("--help")
                .output()
                .unwrap();
            assert!(output.status.success(), "{words:?}: {output:?}");
            let name = [&["larder".to_owned()], &words[..]].concat().join("-");
            (name + ".txt", String::from_utf8(output.stdout).unwrap())
        })
        .collect()
}

#[test]
fn help_texts_are_those_of_the_snapshots() {
    let (folder, texts) = (folder(), texts());
    if std::env::var_os("UPDATE_HELP").is_some() {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in &texts {
            fs::write(folder.join(name), text).unwrap();
        }
    }
    let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap());
    let snapshots: BTreeMap<_, _> = entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read_to_string(entry.path()).unwrap())
        })
        .collect();
    let differing: Vec<_> = texts
        .keys()
        .chain(snapshots.keys())
        .filter(|name| texts.get(*name) != snapshots.get(*name))
        .collect();
    assert!(
        differing.is_empty(),
        "not as in {}: {differing:?}; if that is meant, run `UPDATE_HELP=1 cargo test --test it help::` and review the diff",
        folder.display()
    );
}
