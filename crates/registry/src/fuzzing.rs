//! Entry point for fuzzers: a request as a stranger writes it, up to the point where the disk is asked. Nothing here may
//! panic, and no name that comes out may lead out of its directory.

use brig_images::reference::{is_path, is_tag};
use http::Method;

use crate::route::{Route, Version, content_range, range};

/// The first line is a request line, the rest are headers of interest.
///
/// # Panics
/// If a name that could be harmful comes through: a bug.
pub fn request(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.lines();
    let mut words = lines.next().unwrap_or_default().splitn(2, ' ');
    let method = words.next().unwrap_or_default();
    let method = Method::from_bytes(method.as_bytes()).unwrap_or(Method::GET);
    let target = words.next().unwrap_or_default();
    let (path, query) =
        target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    if let Ok(route) = Route::parse(&method, path, query) {
        check(&route);
    }
    for line in lines {
        if let Ok(Some((first, length))) = range(line, 1000) {
            assert!(length > 0 && first + length <= 1000, "{line}");
        }
        let _ = content_range(line);
        let _ = crate::htpasswd::decodes(line);
    }
}

fn check(route: &Route) {
    let name = match route {
        Route::Base | Route::Catalog(_) => return,
        Route::Tags { name, .. }
        | Route::Manifest { name, .. }
        | Route::Blob { name, .. }
        | Route::Uploads { name, .. }
        | Route::Upload { name, .. }
        | Route::Referrers { name, .. } => name,
    };
    assert!(is_path(name) && !name.split('/').any(|part| part.starts_with(['.', '_'])), "{name}");
    if let Route::Manifest { version: Version::Tag(tag), .. } = route {
        assert!(is_tag(tag), "{tag}");
    }
    if let Route::Upload { id, .. } = route {
        assert!(!id.contains(['/', '.']), "{id}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_request_panics(text in "(GET|PUT|POST|X) /v2/(a/|manifests/|blobs/|uploads/|tags/|\\.\\./|%2e|_){0,6}(list|latest|sha256:[0-9a-f]{64}|\\PC{0,20})(\\?\\PC{0,40})?\n(bytes=[0-9]{0,3}-[0-9]{0,3})?") {
            super::request(text.as_bytes());
        }
    }
}
