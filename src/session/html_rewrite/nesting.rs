//! Which forms and templates are open, as far as a browser's tree differs from the tags: a form stays open when only its
//! parent is closed, and the next form's fields still go where it leads (HTML, "form element pointer").

use std::sync::Arc;

use lol_html::HandlerResult;
use lol_html::html_content::EndTag;
use lol_html::send::Element;
use parking_lot::Mutex;

const HTML: &str = "http://www.w3.org/1999/xhtml";

/// Shared with the handlers of end tags. Never contended: all of them are one page's.
#[derive(Clone, Default)]
pub(super) struct Nesting(Arc<Mutex<Open>>);

#[derive(Default)]
struct Open {
    /// How many templates are open: what is in them is not of the page.
    templates: usize,
    /// A form that leads elsewhere is open, with so many templates around it. Browsers ignore a form inside a form, and
    /// its fields go where the outer one leads: no token in there.
    elsewhere: Option<usize>,
    /// How many tables and lists to select from are open that began in that form.
    holding: usize,
}

impl Nesting {
    pub(super) fn template(&self, element: &mut Element<'_, '_>) -> HandlerResult {
        if !element.can_have_content() || element.namespace_uri() != HTML {
            return Ok(());
        }
        self.0.lock().templates += 1;
        // A parent's end tag does not end a template.
        self.at_end(element, "template", |open| open.templates = open.templates.saturating_sub(1))
    }

    /// A `table` or `select` begins. A form's end tag that comes before theirs does not take what follows out of the form.
    pub(super) fn holds(&self, element: &mut Element<'_, '_>, name: &'static str) -> HandlerResult {
        if !element.can_have_content() || !self.is_elsewhere() {
            return Ok(());
        }
        self.0.lock().holding += 1;
        self.at_end(element, name, |open| open.holding = open.holding.saturating_sub(1))
    }

    /// The form that begins leads elsewhere.
    pub(super) fn form_leads_elsewhere(&self) {
        let mut open = self.0.lock();
        open.elsewhere = open.elsewhere.or(Some(open.templates));
    }

    pub(super) fn is_elsewhere(&self) -> bool {
        self.0.lock().elsewhere.is_some()
    }

    /// The end tag of any form ends the one that browsers see, unless one of the two is in a template; the end tag of
    /// something around it does not.
    pub(super) fn watch_form(&self, element: &mut Element<'_, '_>) -> HandlerResult {
        if !element.can_have_content() || !self.is_elsewhere() {
            return Ok(());
        }
        self.at_end(element, "form", |open| {
            if open.holding == 0 && open.elsewhere == Some(open.templates) {
                open.elsewhere = None;
            }
        })
    }

    /// Whether a browser takes the element for a part of the page, and not of a picture or a template.
    pub(super) fn is_of_the_page(&self, element: &Element<'_, '_>) -> bool {
        self.0.lock().templates == 0 && element.namespace_uri() == HTML
    }

    /// The handler of an end tag is also called with that of an element around it, which closes both.
    fn at_end(&self, element: &mut Element<'_, '_>, name: &'static str, then: fn(&mut Open)) -> HandlerResult {
        let open = Arc::clone(&self.0);
        element.on_end_tag(Box::new(move |end: &mut EndTag<'_>| {
            if end.name() == name {
                then(&mut open.lock());
            }
            Ok(())
        }))
    }
}
