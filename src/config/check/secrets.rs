//! Secrets of keys and of the admin API's tokens.

use crate::config::check_context::{NodeRef, UniqueNames, check_name};
use crate::config::diagnostics::Diagnostics;
use crate::config::raw::AdminToken;
use crate::config::secret::Secret;
use crate::config::suggest;
use crate::config::yaml::Origin;

/// A secret is this many characters long at least.
const MIN_SECRET: usize = 16;

/// A secret that is good enough, and kept where not everybody reads it. `of`: what it belongs to.
pub(super) fn secret(value: &Secret, of: &str, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    if value.expose().trim().chars().count() < MIN_SECRET {
        let message = format!("the secret of {of} is shorter than {MIN_SECRET} characters");
        diagnostics.problem(at.location, message, "\"homing keys generate\" prints a good one");
        return;
    }
    match at.origin() {
        Origin::Literal | Origin::Default => diagnostics.warn(
            at.location,
            format!("the secret of {of} stands in the configuration file"),
            "keep it elsewhere: \"${file:/run/secrets/name}\" or \"${NAME}\"",
        ),
        Origin::OpenFile => diagnostics.warn(
            at.location,
            format!("every user of this machine may read the secret of {of}"),
            "chmod 600, or 640 with a group for homing",
        ),
        Origin::Expanded | Origin::Broken => {}
    }
}

/// Names are unique, and so are secrets: who caused a change must be known.
pub(super) fn tokens(tokens: &[AdminToken], at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Vec<AdminToken> {
    let mut names = UniqueNames::default();
    for (index, token) in tokens.iter().enumerate() {
        let at = at.item(index);
        check_name(&token.name, "token", at.key("name").location, diagnostics);
        names.see(&token.name, "token", at.key("name").location, diagnostics);
        let of = format!("token {}", suggest::quoted(&token.name));
        secret(&token.secret, &of, at.key("secret"), diagnostics);
        let same = tokens.iter().take(index).find(|other| other.secret == token.secret);
        if let Some(same) = same {
            let message = format!("{of} has the secret of token {}", suggest::quoted(&same.name));
            diagnostics.problem(at.key("secret").location, message, "\"homing keys generate\" prints another one");
        }
    }
    tokens.to_vec()
}
