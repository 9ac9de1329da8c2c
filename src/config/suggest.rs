//! "Did you mean": the known word that is nearest to what was written.

/// The nearest of the known words, if it is near enough to be what was meant.
pub(crate) fn nearest<'w>(written: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let plain = |word: &str| word.to_lowercase().replace('-', "_");
    let written_plain = plain(written);
    known
        .into_iter()
        .map(|word| (strsim::osa_distance(&written_plain, &plain(word)), word))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, word)| *distance <= 1 + word.chars().count() / 4)
        .map(|(_, word)| word)
}

/// Most words of a list in a help: there may be a thousand pools, and a hundred problems.
const MOST_LISTED: usize = 60;

/// The help for a word that is not known: the nearest, and the list of all.
pub(crate) fn help(written: &str, known: &[&str], label: &str) -> String {
    let mut list = known.iter().take(MOST_LISTED).copied().collect::<Vec<_>>().join(", ");
    if let Some(more) = known.len().checked_sub(MOST_LISTED).filter(|more| *more > 0) {
        list += &format!(", and {more} more");
    }
    match nearest(written, known.iter().copied()) {
        Some(word) => format!("did you mean {word:?}? {label}: {list}"),
        None => format!("{label}: {list}"),
    }
}

/// A value as it is quoted in a message: escaped and cut.
pub(crate) fn quoted(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("\"{short}{dots}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_near_word_is_suggested() {
        let known = ["round_robin", "random", "hash", "address"];
        assert_eq!(nearest("round-robin", known), Some("round_robin"));
        assert_eq!(nearest("adress", known), Some("address"));
        assert_eq!(nearest("HASH", known), Some("hash"));
        assert_eq!(nearest("weighted", known), None);
        assert_eq!(help("shopp", &["api", "shop"], "pools"), "did you mean \"shop\"? pools: api, shop");
        let many = help("x", &["pool"; 1000], "pools");
        assert!(many.starts_with("pools: pool, pool") && many.ends_with(", pool, and 940 more"), "{many}");
    }
}
