//! Makes a world that disagrees smaller: what remains is needed for the disagreement.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::Value;

use crate::outcome::Finding;
use crate::world::World;

impl World {
    /// This world without the items of lists that the finding does not depend on. It runs once for each item.
    #[must_use]
    pub fn shrink(&self, larder: &Path, finding: Finding) -> Self {
        let is_same = |world: &Value| {
            let Ok(world) = serde_json::from_value::<Self>(world.clone()) else {
                return false;
            };
            // A world without an item may be impossible to build.
            let outcome = catch_unwind(AssertUnwindSafe(|| world.run(larder)));
            outcome.is_ok_and(|outcome| {
                let disagreement = outcome.disagreement();
                disagreement.is_some_and(|(found, _)| found == finding)
            })
        };
        let Ok(mut smallest) = serde_json::to_value(self) else {
            return self.clone();
        };
        let mut at = 0;
        loop {
            let lists = lists(&smallest);
            let Some(list) = lists.get(at) else {
                break;
            };
            let mut item = length(&smallest, list);
            while item > 0 {
                item -= 1;
                let smaller = without(&smallest, list, item);
                if is_same(&smaller) {
                    smallest = smaller;
                }
            }
            at += 1;
        }
        serde_json::from_value(smallest).unwrap_or_else(|_| self.clone())
    }
}

/// The JSON pointers of all lists, outer ones first.
fn lists(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut level = vec![(String::new(), value)];
    while !level.is_empty() {
        let mut below = Vec::new();
        for (pointer, value) in level {
            match value {
                Value::Array(items) => {
                    let items = items.iter().enumerate();
                    below.extend(items.map(|(at, item)| (format!("{pointer}/{at}"), item)));
                    found.push(pointer);
                }
                Value::Object(fields) => {
                    let fields = fields.iter();
                    below.extend(fields.map(|(name, field)| {
                        let name = name.replace('~', "~0").replace('/', "~1");
                        (format!("{pointer}/{name}"), field)
                    }));
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        level = below;
    }
    found
}

fn length(value: &Value, list: &str) -> usize {
    value
        .pointer(list)
        .and_then(Value::as_array)
        .map_or(0, Vec::len)
}

fn without(value: &Value, list: &str, item: usize) -> Value {
    let mut value = value.clone();
    if let Some(Value::Array(items)) = value.pointer_mut(list) {
        items.remove(item);
    }
    value
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_found_from_the_outside_to_the_inside() {
        let value = json!({"a/b": [{"c": [1, 2]}], "d": {"e": []}});
        let lists = lists(&value);
        assert_eq!(lists, ["/a~1b", "/d/e", "/a~1b/0/c"]);
        assert_eq!(length(&value, "/a~1b/0/c"), 2);
        let smaller = without(&value, "/a~1b/0/c", 0);
        assert_eq!(smaller["a/b"][0]["c"], json!([2]));
    }
}
