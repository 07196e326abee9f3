//! "Did you mean": the known word that a misspelt one is closest to.

/// Edits above which two words count as unrelated.
const MAX_EDITS: usize = 3;

/// The word of `known` with the fewest edits from `word`; `None` if all are unrelated.
pub(super) fn closest(word: &str, known: &[&'static str]) -> Option<&'static str> {
    let word = word.to_lowercase().replace('_', "-");
    let distances = known.iter().map(|known| (edits(&word, known), *known));
    let (edits, closest) = distances.min()?;
    let is_related = edits <= MAX_EDITS && edits < closest.len().min(word.len());
    is_related.then_some(closest)
}

/// The number of letters to insert, remove or replace until one word is the other (Levenshtein).
fn edits(one: &str, other: &str) -> usize {
    let other: Vec<_> = other.chars().collect();
    let mut row: Vec<_> = (0..=other.len()).collect();
    for (line, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, other) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closest_word_has_the_fewest_edits_and_a_stranger_has_none() {
        let known = ["max-age", "index", "store"];
        assert_eq!(closest("max-aeg", &known), Some("max-age"));
        assert_eq!(closest("max_age", &known), Some("max-age"));
        assert_eq!(closest("idnex", &known), Some("index"));
        assert_eq!(closest("colour", &known), None);
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
