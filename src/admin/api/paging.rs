//! Pages of lists. A cursor names the last item of a page, not its number: nothing comes twice and nothing is left out while
//! others come and go.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use crate::admin::problem::Problem;

/// Items of a page, unless the request says otherwise.
const DEFAULT: usize = 100;
/// The most that a page has.
const MOST: usize = 1000;

/// Which page is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Paging {
    /// At most so many items.
    pub(crate) limit: usize,
    /// The last item of the page before.
    pub(crate) after: Option<String>,
}

impl Paging {
    /// From the parameters `limit` and `cursor`.
    pub(crate) fn of(limit: Option<&str>, cursor: Option<&str>) -> Result<Self, Problem> {
        let limit = match limit {
            None => DEFAULT,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=MOST).contains(limit))
                .ok_or_else(|| Problem::bad_request(format!("limit: a number from 1 to {MOST} is expected")))?,
        };
        let invalid = || Problem::bad_request("cursor: take it from \"next\" of the page before");
        let decode = |text: &str| {
            let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_text| invalid())?;
            String::from_utf8(bytes).map_err(|_bytes| invalid())
        };
        Ok(Self { limit, after: cursor.map(decode).transpose()? })
    }
}

/// A page as JSON that is written item by item, in the shape of [`Page`](super::view::Page).
pub(crate) struct PageWriter {
    body: Vec<u8>,
    items: usize,
}

impl PageWriter {
    pub(crate) fn new() -> Self {
        Self { body: br#"{"items":["#.to_vec(), items: 0 }
    }

    pub(crate) fn items(&self) -> usize {
        self.items
    }

    pub(crate) fn push(&mut self, item: &impl Serialize) -> Result<(), Problem> {
        if self.items > 0 {
            self.body.push(b',');
        }
        self.items += 1;
        serde_json::to_writer(&mut self.body, item).map_err(Problem::internal)
    }

    pub(crate) fn finish(mut self, next: Option<&str>) -> Result<Vec<u8>, Problem> {
        self.body.extend_from_slice(br#"],"next":"#);
        serde_json::to_writer(&mut self.body, &next).map_err(Problem::internal)?;
        self.body.push(b'}');
        Ok(self.body)
    }
}

/// A cursor behind this item.
pub(crate) fn cursor(last: &str) -> String {
    URL_SAFE_NO_PAD.encode(last)
}

/// The indices of a page of a short list that keeps its order, and the cursor of the next page.
pub(crate) fn page_of(names: &[&str], paging: &Paging) -> Result<(std::ops::Range<usize>, Option<String>), Problem> {
    let start = match &paging.after {
        None => 0,
        // When it is gone, where it stood is not known.
        Some(after) => {
            1 + names
                .iter()
                .position(|name| name == after)
                .ok_or_else(|| Problem::bad_request("cursor: what it names is gone; begin again without it"))?
        }
    };
    let end = names.len().min(start + paging.limit);
    let next = (end < names.len()).then(|| names.get(end.wrapping_sub(1)).map(|last| cursor(last))).flatten();
    Ok((start..end, next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api::view::Page;

    #[test]
    fn a_page_written_item_by_item_has_the_shape_of_a_page() {
        for items in [vec![], vec!["a"], vec!["a", "\"b\"", "c"]] {
            for next in [None, Some(cursor("c"))] {
                let mut page = PageWriter::new();
                for item in &items {
                    page.push(item).unwrap();
                }
                assert_eq!(page.items(), items.len());
                let whole = serde_json::to_vec(&Page { items: items.clone(), next: next.clone() }).unwrap();
                assert_eq!(page.finish(next.as_deref()).unwrap(), whole);
            }
        }
    }

    #[test]
    fn pages_follow_each_other_to_the_end() {
        let names = ["a", "b", "c", "d", "e"];
        let (mut seen, mut next) = (Vec::new(), None);
        loop {
            let paging = Paging::of(Some("2"), next.as_deref()).unwrap();
            let (range, following) = page_of(&names, &paging).unwrap();
            seen.extend(range);
            match following {
                Some(cursor) => next = Some(cursor),
                None => break,
            }
        }
        assert_eq!(seen, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn limits_and_cursors_are_checked() {
        for limit in ["0", "1001", "-1", "x", ""] {
            assert_eq!(Paging::of(Some(limit), None).unwrap_err().status, 400, "{limit}");
        }
        assert_eq!(Paging::of(None, Some("%%")).unwrap_err().status, 400);
        assert_eq!(Paging::of(Some("1000"), None).unwrap().limit, 1000);
        let gone = Paging::of(None, Some(&cursor("z"))).unwrap();
        assert_eq!(page_of(&["a"], &gone).unwrap_err().status, 400);
    }
}
