//! docs/settings.md lists every setting with the words of the command line's help.
//!
//! `UPDATE_DOCS=1 cargo test --test it settings_reference::` writes the list anew.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use clap::{Arg, CommandFactory as _};
use larder::cli::{self, Cli};

/// The end of the part that people write.
const MARK: &str = "settings_reference:: -->\n";
/// Names in the tables of `settings_of` that are no settings with a flag, a variable and a key.
const OTHERS: [&str; 6] = ["config", "json", "quiet", "registry", "verbose", "warm"];
/// The longest line.
const COLUMNS: usize = 120;

/// The list: global flags first, then those of single commands, in the order of the help.
fn list() -> String {
    let whole = Cli::command();
    let commands: Vec<_> = whole
        .get_subcommands()
        .map(clap::Command::get_name)
        .collect();
    let names = commands.iter().flat_map(|name| cli::settings_of(name));
    let names: BTreeSet<_> = names.filter(|name| !OTHERS.contains(name)).collect();
    let mut text = "\n## Store, upstream and trust\n".to_owned();
    let mut written = BTreeSet::new();
    add(&mut text, whole.get_arguments(), &names, &mut written);
    for command in whole.get_subcommands() {
        let mut section = String::new();
        add(&mut section, command.get_arguments(), &names, &mut written);
        if !section.is_empty() {
            let _ = write!(
                text,
                "\n## Flags of `larder {}`\n{section}",
                command.get_name()
            );
        }
    }
    assert_eq!(written, names, "settings without a flag");
    text
}

fn add<'a>(
    text: &mut String,
    arguments: impl Iterator<Item = &'a Arg>,
    names: &BTreeSet<&'static str>,
    written: &mut BTreeSet<&'static str>,
) {
    for argument in arguments {
        let long = argument.get_long().unwrap_or_default();
        if let Some(name) = names.get(long)
            && written.insert(name)
        {
            text.push_str(&entry(name, argument));
        }
    }
}

/// The heading, meaning, default and places of one setting.
fn entry(name: &str, argument: &Arg) -> String {
    let help = argument.get_help().unwrap().to_string();
    let (meaning, default) = help
        .strip_suffix(']')
        .and_then(|help| help.split_once(" [default: "))
        .unwrap_or_else(|| panic!("the help of `--{name}` gives no default: {help}"));
    let value = argument
        .get_value_names()
        .and_then(|names| names.first())
        .unwrap_or_else(|| panic!("`--{name}` takes no value"));
    let variable = name.replace('-', "_").to_uppercase();
    let mut text = format!("\n### `{name}`\n\n");
    text.push_str(&wrapped(&format!("{meaning}."), ""));
    let values = argument.get_possible_values();
    if !values.is_empty() {
        text.push('\n');
    }
    for value in values {
        let help = value
            .get_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        text.push_str(&wrapped(
            &format!("- `{}`: {help}.", value.get_name()),
            "  ",
        ));
    }
    text.push('\n');
    text.push_str(&wrapped(&format!("- Default: {default}."), "  "));
    let value = if argument.get_num_args().is_some_and(|n| n.min_values() == 0) {
        format!("--{name}[={value}]")
    } else {
        format!("--{name} {value}")
    };
    let whole = Cli::command();
    let users = whole.get_subcommands().map(clap::Command::get_name);
    let users: Vec<_> = users
        .filter(|user| cli::settings_of(user).contains(&name))
        .map(|user| format!("`{user}`"))
        .collect();
    let places = format!(
        "- `{value}`, `LARDER_{variable}`; used by {}.",
        users.join(", ")
    );
    text.push_str(&wrapped(&places, "  "));
    text
}

/// The text in lines of at most [`COLUMNS`], the second and later ones indented.
fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().unwrap();
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= COLUMNS {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(format!("{indent}{word}"));
        }
    }
    lines.join("\n") + "\n"
}

#[test]
fn settings_md_lists_every_setting_as_the_help_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
    let text = fs::read_to_string(&path).unwrap();
    let (by_hand, _) = text.split_once(MARK).unwrap();
    let new = format!("{by_hand}{MARK}{}", list());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &new).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap() == new,
        "docs/settings.md is out of date: run `UPDATE_DOCS=1 cargo test --test it settings_reference::` and review the diff"
    );
}
