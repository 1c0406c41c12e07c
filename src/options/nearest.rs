//! The nearest of some names, for a name that does not exist.

/// Returns the candidate that takes the fewest edits to become `name`, and their number. An edit
/// adds, removes or replaces a character, or swaps two neighbours.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<(&'a str, usize)> {
    let edits = |candidate: &&str| edits(name.as_bytes(), candidate.as_bytes());
    let nearest = candidates.into_iter().min_by_key(edits)?;
    Some((nearest, edits(&nearest)))
}

/// Returns the number of edits between two texts (optimal string alignment).
fn edits(from: &[u8], to: &[u8]) -> usize {
    // Rows of the table of edits between beginnings of both: the last but one, the last, and this.
    let mut rows = [Vec::new(), Vec::new(), (0..=to.len()).collect()];
    for (at, byte) in from.iter().enumerate() {
        rows.rotate_left(1);
        let [before, last, row] = &mut rows;
        row.clear();
        row.push(at + 1);
        for (column, other) in to.iter().enumerate() {
            let replaced = last[column] + usize::from(byte != other);
            let mut fewest = replaced.min(last[column + 1] + 1).min(row[column] + 1);
            if at > 0 && column > 0 && *byte == to[column - 1] && from[at - 1] == *other {
                fewest = fewest.min(before[column - 1] + 1);
            }
            row.push(fewest);
        }
    }
    rows[2][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_edits_is_least() {
        let cases = [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("abc", "abc", 0),
            ("abc", "abd", 1),
            ("abc", "ac", 1),
            ("abc", "acb", 1),
            ("ca", "abc", 3),
            ("kitten", "sitting", 3),
        ];
        for (from, to, count) in cases {
            assert_eq!(edits(from.as_bytes(), to.as_bytes()), count, "{from} {to}");
        }
        assert_eq!(nearest("histroy", ["heartbeat", "history", "log"]), Some(("history", 1)));
        assert_eq!(nearest("x", []), None);
    }
}
