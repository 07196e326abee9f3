//! Edits the text of cargo's `config.toml`. Pure.
//!
//! ```text
//!  wanted settings ──> replace old addresses, append what is missing ──> same meaning otherwise? ──> done
//!                         │ one has another value                            │ no: inline tables, tables that exist
//!                         └─> refuse                                         └─> edit the tree in place (toml_edit)
//! ```
//!
//! Replaced values and appended tables leave every other byte of the file as it is. Both results are parsed again and
//! compared with the settings before plus the wanted ones, so no other setting can change.

use std::fmt::Write as _;

use toml::{Table, Value};
use toml_edit::{DocumentMut, InlineTable, Item};

/// The byte order mark that some editors of other systems write.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// A text value in cargo's settings, such as `source.crates-io.replace-with`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The names of its tables, then its own.
    pub keys: Vec<String>,
    /// Its value.
    pub value: String,
}

/// The outcome of [`edit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// The new text.
    pub text: String,
    /// The settings that were added or changed, each with its value before.
    pub changes: Vec<(Setting, Option<String>)>,
}

/// Settings that cannot be edited. The text follows the name of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// Cargo could not read the file either.
    #[error("is not valid TOML: {0}")]
    NotToml(String),
    /// A source is replaced by something else than larder, or lies elsewhere.
    #[error("sets `{key} = {value}` already; remove that first if cargo shall ask larder instead")]
    Taken {
        /// The dotted key.
        key: String,
        /// Its value, as TOML.
        value: String,
    },
    /// The same, in a file that this one includes.
    #[error(
        "includes a file that sets `{key} = {value}`; remove that first if cargo shall ask larder instead"
    )]
    Included {
        /// The dotted key.
        key: String,
        /// Its value, as TOML.
        value: String,
    },
    /// A part of the path to a setting is not a table.
    #[error("has something else than a table at `{0}`")]
    NoTable(String),
    /// The result would have another meaning.
    #[error("has a form that larder cannot edit; add the output of `larder client print` by hand")]
    Form,
}

impl EditError {
    /// The error for a setting of an included file.
    fn of_included(self) -> Self {
        match self {
            Self::Taken { key, value } => Self::Included { key, value },
            Self::NotToml(_) | Self::Included { .. } | Self::NoTable(_) | Self::Form => self,
        }
    }
}

impl Setting {
    /// The dotted key.
    pub fn key(&self) -> String {
        self.keys.join(".")
    }

    /// Tells if this is the address of a registry that is larder by its name.
    fn is_larder_address(&self) -> bool {
        self.keys.first().is_some_and(|key| key == "registries")
    }

    /// The names of its tables, and its own name.
    fn split(&self) -> (&[String], &str) {
        match self.keys.split_last() {
            Some((last, tables)) => (tables, last),
            None => (&[], ""),
        }
    }
}

/// The settings in a text that larder wrote itself: text values in tables.
pub fn settings_in(text: &str) -> Vec<Setting> {
    let mut found = Vec::new();
    if let Ok(table) = text.parse::<Table>() {
        collect(&table, &mut Vec::new(), &mut found);
    }
    // As `larder client print` has them.
    found.sort_by_key(Setting::is_larder_address);
    found
}

fn collect(table: &Table, keys: &mut Vec<String>, found: &mut Vec<Setting>) {
    for (key, value) in table {
        keys.push(key.clone());
        match value {
            Value::Table(inner) => collect(inner, keys, found),
            Value::String(text) => found.push(Setting {
                keys: keys.clone(),
                value: text.clone(),
            }),
            Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Array(_) => {}
        }
        keys.pop();
    }
}

/// Adds the wanted settings to a `config.toml` that includes files with the settings `included`. The address of a
/// larder may change; everything else is only added.
///
/// # Errors
/// The text is not TOML, or has a setting that contradicts a wanted one.
pub fn edit(text: &str, wanted: &[Setting], included: &Table) -> Result<Edited, EditError> {
    let body = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let mark = &text[..text.len() - body.len()];
    let parsed = body.parse::<Table>();
    let before = parsed.map_err(|error| EditError::NotToml(one_line(error.message())))?;
    refuse_taken(&before, wanted)?;
    refuse_taken(included, wanted).map_err(EditError::of_included)?;
    let mut after = before.clone();
    let mut changes = Vec::new();
    for setting in wanted {
        let old = value_at(&before, &setting.keys).and_then(Value::as_str);
        let included = value_at(included, &setting.keys).and_then(Value::as_str);
        if old.or(included) != Some(&*setting.value) {
            insert(&mut after, setting)?;
            changes.push((setting.clone(), old.map(str::to_owned)));
        }
    }
    if changes.is_empty() {
        let text = text.to_owned();
        return Ok(Edited { text, changes });
    }
    let means_that = |text: &String| text.parse::<Table>().is_ok_and(|table| table == after);
    let (other, missing): (Vec<_>, Vec<_>) = changes.iter().partition(|(_, old)| old.is_some());
    let replaced = replace_values(body, other.iter().map(|(setting, _)| setting));
    let replaced = replaced.unwrap_or_else(|| body.to_owned());
    let missing = missing.iter().map(|(setting, _)| setting);
    let edited = Some(append(&replaced, missing)).filter(means_that);
    let all = changes.iter().map(|(setting, _)| setting);
    let edited = edited.or_else(|| in_place(body, all).filter(means_that));
    let text = format!("{mark}{}", edited.ok_or(EditError::Form)?);
    Ok(Edited { text, changes })
}

/// Refuses settings that send a source elsewhere.
fn refuse_taken(table: &Table, wanted: &[Setting]) -> Result<(), EditError> {
    let taken = |keys: &[String], value: &Value| EditError::Taken {
        key: keys.join("."),
        value: value.to_string(),
    };
    for setting in wanted.iter().filter(|one| !one.is_larder_address()) {
        if let Some(value) = value_at(table, &setting.keys)
            && *value != Value::from(&*setting.value)
        {
            return Err(taken(&setting.keys, value));
        }
        let (tables, _) = setting.split();
        for key in ["directory", "local-registry", "git"] {
            let keys = [tables, &[key.to_owned()]].concat();
            if let Some(value) = value_at(table, &keys) {
                return Err(taken(&keys, value));
            }
        }
    }
    Ok(())
}

fn value_at<'a>(table: &'a Table, keys: &[String]) -> Option<&'a Value> {
    let (last, tables) = keys.split_last()?;
    let mut table = table;
    for key in tables {
        table = table.get(key)?.as_table()?;
    }
    table.get(last)
}

fn insert(table: &mut Table, setting: &Setting) -> Result<(), EditError> {
    let (tables, last) = setting.split();
    let mut table = table;
    for key in tables {
        let inner = table.entry(key).or_insert_with(|| Table::new().into());
        let inner = inner.as_table_mut();
        table = inner.ok_or_else(|| EditError::NoTable(setting.key()))?;
    }
    table.insert(last.to_owned(), setting.value.clone().into());
    Ok(())
}

/// The text with the values of settings that it has replaced, and every other byte as it is.
fn replace_values<'a>(text: &str, settings: impl Iterator<Item = &'a Setting>) -> Option<String> {
    let document = toml_edit::Document::parse(text).ok()?;
    let mut places = Vec::new();
    for setting in settings {
        let mut item = document.as_item();
        for key in &setting.keys {
            item = item.get(key)?;
        }
        places.push((item.span()?, Value::from(&*setting.value).to_string()));
    }
    // From the end, so that the places before stay right.
    places.sort_by_key(|(place, _)| std::cmp::Reverse(place.start));
    let mut new = text.to_owned();
    for (place, value) in places {
        new.replace_range(place, &value);
    }
    Some(new)
}

/// The text with the settings as tables at its end, in its own line ends.
fn append<'a>(text: &str, settings: impl Iterator<Item = &'a Setting>) -> String {
    let end = line_end(text);
    let mut new = text.to_owned();
    let mut settings = settings.peekable();
    if settings.peek().is_some() && !text.is_empty() && !text.ends_with('\n') {
        new += end;
    }
    let mut current: Option<&[String]> = None;
    for setting in settings {
        let (tables, last) = setting.split();
        if current != Some(tables) {
            if !new.is_empty() {
                new += end;
            }
            let names: Vec<_> = tables.iter().map(|key| quoted(key)).collect();
            let _ = write!(new, "[{}]{end}", names.join("."));
            current = Some(tables);
        }
        let value = Value::from(&*setting.value);
        let _ = write!(new, "{} = {value}{end}", quoted(last));
    }
    new
}

/// The text with the settings in the tables that exist. `toml_edit` writes line feeds alone, so other line ends are
/// restored afterwards. None if that is impossible.
fn in_place<'a>(text: &str, settings: impl Iterator<Item = &'a Setting>) -> Option<String> {
    let end = line_end(text);
    let is_mixed = text.matches(end).count() != text.matches('\n').count();
    if is_mixed {
        return None;
    }
    let mut document: DocumentMut = text.replace("\r\n", "\n").parse().ok()?;
    for setting in settings {
        let (tables, last) = setting.split();
        let mut item = document.as_item_mut();
        for key in tables {
            let is_inline = item.is_inline_table();
            let table = item.as_table_like_mut()?;
            item = table.entry(key).or_insert_with(|| {
                if is_inline {
                    return toml_edit::value(InlineTable::new());
                }
                let mut new = toml_edit::Table::new();
                new.set_implicit(true);
                Item::Table(new)
            });
        }
        let table = item.as_table_like_mut()?;
        match table.get_mut(last).and_then(Item::as_value_mut) {
            Some(value) => {
                let decor = value.decor().clone();
                *value = toml_edit::Value::from(&*setting.value);
                *value.decor_mut() = decor;
            }
            None => {
                table.insert(last, toml_edit::value(&*setting.value));
            }
        }
    }
    Some(document.to_string().replace('\n', end))
}

/// The line end that a text uses.
fn line_end(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

/// A key as TOML.
fn quoted(key: &str) -> String {
    toml_edit::Key::new(key).to_string()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Edits a file that includes no other.
    fn edit_alone(text: &str, wanted: &[Setting]) -> Result<Edited, EditError> {
        edit(text, wanted, &Table::new())
    }

    #[test]
    fn settings_of_included_files_count_and_contradict() {
        let with = |included: &str| {
            edit(
                "include = ['x.toml']\n",
                &wanted(),
                &included.parse().unwrap(),
            )
        };
        let larder = crate::client_config::cargo_settings("http://127.0.0.1:3263/");
        assert_eq!(with(&larder).unwrap().changes, []);
        let old = larder.replace("3263", "1");
        let changes = with(&old).unwrap().changes;
        assert_eq!(changes.len(), 1, "the address alone: {changes:?}");
        let error = with("[source.crates-io]\nreplace-with = 'corp'\n").unwrap_err();
        assert!(
            error.to_string().contains("includes a file that sets"),
            "{error}"
        );
    }

    fn wanted() -> Vec<Setting> {
        wanted_at("http://127.0.0.1:3263/")
    }

    fn wanted_at(base: &str) -> Vec<Setting> {
        settings_in(&crate::client_config::cargo_settings(base))
    }

    /// Addresses of this machine and of others.
    const ADDRESSES: [&str; 4] = [
        "http://127.0.0.1:3263/",
        "http://larder.example:3263/",
        "https://builder.example/larder/",
        "http://[2001:db8::1]:3263/",
    ];

    #[track_caller]
    fn check_edited(text: &str, expected: &str) {
        assert_eq!(
            edit_alone(text, &wanted()).unwrap().text,
            expected,
            "{text:?}"
        );
    }

    #[test]
    fn tables_are_appended_and_existing_ones_are_edited_in_place() {
        let settings = crate::client_config::cargo_settings("http://127.0.0.1:3263/");
        check_edited("", &settings);
        check_edited("\u{feff}", &format!("\u{feff}{settings}"));
        check_edited(
            "# mine\r\n[net]\r\nretry = 2 # two",
            &format!(
                "# mine\r\n[net]\r\nretry = 2 # two\r\n\r\n{}",
                settings.replace('\n', "\r\n")
            ),
        );
        check_edited(
            "[source]\r\n# mine\r\ncrates-io = {} # here\r\n[registries.larder]\r\nindex = \"sparse+http://old/\" # old\r\n",
            "[source]\r\n# mine\r\ncrates-io = { replace-with = \"larder\" } # here\r\n[registries.larder]\r\n\
             index = \"sparse+http://127.0.0.1:3263/\" # old\r\n",
        );
        let done = edit_alone(&settings, &wanted()).unwrap();
        assert_eq!((done.text, done.changes), (settings, vec![]));
    }

    #[test]
    fn other_replacements_and_broken_files_are_refused() {
        let check = |text: &str, part: &str| {
            let error = edit_alone(text, &wanted()).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        };
        check(
            "[source.crates-io]\nreplace-with = 'corp'",
            "sets `source.crates-io.replace-with = \"corp\"` already",
        );
        check("source.crates-io.directory = 'v'", "directory = \"v\"");
        check("[source", "is not valid TOML");
        check("source = 1", "something else than a table");
        check("registries = [{}]", "something else than a table");
        let mixed = "[net]\r\n[source]\ncrates-io = {}\n";
        check(mixed, "a form that larder cannot edit");
    }

    /// A configuration of random parts, each of which may be there once.
    fn generated(random: &mut fastrand::Rng) -> String {
        let roots = [
            "# a comment\n",
            "\n\n",
            "paths = ['a', 'b'] # paths\n",
            "net.retry = 3\n",
            "source.corp.registry = \"sparse+https://corp.example/\"\nalias.b = 'build'\nsource.corp.x = 'y'\n",
            "source.crates-io.protocol = 'sparse'\n",
            "source = { corp = { directory = 'v' } }  # inline\n",
            "registries = { corp = { index = 'https://corp.example/' } }\n",
            "registries.corp.index = 'https://corp.example/'\n",
            "text = \"\"\"\n[source.crates-io]\n  kept \"\"\"\n",
        ];
        let tables = [
            "[build]\njobs = 2\n  target-dir = 'out'   # indented\n",
            "[source]\n# nothing yet\n",
            "[source]\ncrates-io = {}\n",
            "[source.crates-io] # ours\n# replace-with = 'nothing'\n",
            "[source.crates-io.deep]\nx = 1\n",
            "[registries]\ncorp = { index = 'https://corp.example/', token = \"t\" }\n",
            "[registries.larder]\nindex = 'sparse+http://127.0.0.1:1/'\ntoken = 'x'\n",
            "[[bin]]\nname = 'one'\n[[bin]]\nname = 'two'\n",
            "[target.'cfg(unix)']\nrunner = ['sh', '-c']\n",
            "[env]\nA = { value = '1', force = true }\n",
        ];
        let mut text = String::new();
        for part in roots.iter().filter(|_| random.u8(..4) == 0) {
            text += part;
        }
        for part in tables {
            if random.u8(..4) > 0 {
                continue;
            }
            text += part;
            text += ["", "\n", "# between\n"][random.usize(..3)];
        }
        if random.bool() && text.ends_with('\n') {
            text.pop();
        }
        if random.u8(..3) == 0 {
            text = text.replace('\n', "\r\n");
        }
        text
    }

    #[test]
    fn edits_of_generated_configurations_add_larder_and_change_nothing_else() {
        let mut random = fastrand::Rng::with_seed(13);
        let mut valid = 0;
        // Any two parts meet in about thirty of them.
        while valid < 500 {
            let text = generated(&mut random);
            let Ok(before) = text.parse::<Table>() else {
                continue;
            };
            valid += 1;
            let wanted = wanted_at(ADDRESSES[random.usize(..ADDRESSES.len())]);
            let edited = edit_alone(&text, &wanted);
            let edited = edited.unwrap_or_else(|error| panic!("{text:?}: {error}"));
            let mut after: Table = edited.text.parse().unwrap();
            for setting in &wanted {
                let found = value_at(&after, &setting.keys).and_then(Value::as_str);
                assert_eq!(found, Some(&*setting.value), "{text:?}");
                let old = value_at(&before, &setting.keys).cloned();
                restore(&mut after, &setting.keys, old, &before);
            }
            assert_eq!(after, before, "{text:?} became {:?}", edited.text);
            let comments = |text: &str| text.matches('#').count();
            assert_eq!(comments(&edited.text), comments(&text), "{text:?}");
            let bare = |text: &str| text.replace("\r\n", "").contains('\n');
            assert!(
                !text.contains('\r') || !bare(&edited.text),
                "{:?}",
                edited.text
            );
            let again = edit_alone(&edited.text, &wanted).unwrap();
            assert_eq!((&again.text, again.changes), (&edited.text, vec![]));
            // A later address replaces the earlier one, and nothing else.
            let moved = edit_alone(&edited.text, &wanted_at("http://moved.example/")).unwrap();
            let back = edit_alone(&moved.text, &wanted).unwrap();
            assert_eq!(back.text, edited.text);
        }
    }

    /// Takes a setting back, with the tables that `before` does not have.
    fn restore(table: &mut Table, keys: &[String], old: Option<Value>, before: &Table) {
        let [first, rest @ ..] = keys else { return };
        match (table.get_mut(first), rest.is_empty(), before.get(first)) {
            (_, true, _) => {
                match old {
                    Some(old) => table.insert(first.clone(), old),
                    None => table.remove(first),
                };
            }
            (Some(inner), false, Some(Value::Table(before))) => {
                restore(inner.as_table_mut().unwrap(), rest, old, before);
            }
            _ => {
                table.remove(first);
            }
        }
    }
}
