//! placeholder until the merge
pub fn values<'a>(path: &'a str, query: Option<&'a str>, name: &'a str) -> impl Iterator<Item = &'a str> + use<'a> {
    let in_query = query.into_iter().flat_map(|query| query.split('&'));
    let in_path = path.split('/').flat_map(|segment| segment.split(';').skip(1));
    in_query.chain(in_path).filter_map(move |pair| pair.strip_prefix(name)?.strip_prefix('='))
}
