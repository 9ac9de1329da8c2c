//! What all names in a shared store begin with.

use super::check_context::NodeRef;
use super::diagnostics::Diagnostics;
use super::suggest;

/// Longest prefix of names: with the rest of a name it stays well below the 250 bytes that memcached takes.
const LONGEST_PREFIX: usize = 64;

/// What all names of an engine begin with. Braces would put them all into one slot of a cluster (hash tags).
pub(crate) fn check_key_prefix(prefix: &str, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> String {
    let parts = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | ':');
    let is_whole = !prefix.starts_with(':') && !prefix.ends_with(':');
    if prefix.is_empty() || prefix.len() > LONGEST_PREFIX || !prefix.chars().all(parts) || !is_whole {
        let message = format!("{} is no prefix for names", suggest::quoted(prefix));
        let help = "use letters, digits, \"_\", \".\", \"-\", and \":\" between them, at most 64";
        diagnostics.problem(at.location, message, help);
    }
    prefix.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_taken(prefix: &str) -> bool {
        let mut diagnostics = Diagnostics::default();
        check_key_prefix(prefix, NodeRef::default(), &mut diagnostics);
        diagnostics.problems.is_empty()
    }

    #[test]
    fn a_prefix_of_names_may_have_parts_but_no_hash_tag() {
        for prefix in ["homing", "shop:eu-1", "a.b_c", &"x".repeat(64)] {
            assert!(is_taken(prefix), "{prefix}");
        }
        for prefix in ["", ":", "a:", ":a", "{shop}", "a b", "é", "a\n", &"x".repeat(65)] {
            assert!(!is_taken(prefix), "{prefix}");
        }
    }

    proptest! {
        #[test]
        fn a_prefix_that_is_taken_fits_every_engine(prefix in "[a-z0-9:.{}_ -]{0,70}|\\PC{0,70}") {
            if is_taken(&prefix) {
                prop_assert!(prefix.len() <= 64 && prefix.bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert!(!prefix.contains(['{', '}', '*', '?', '[', '\\']), "not a pattern of SCAN either");
            }
        }
    }
}
