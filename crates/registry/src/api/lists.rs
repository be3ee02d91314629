//! Lists, in pages: repositories, tags, referrers.

use std::sync::Arc;

use brig_images::manifest::media_type;
use brig_images::{Descriptor, Digest};
use http::header::{CONTENT_TYPE, HeaderName, LINK};
use http::{HeaderValue, Response, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Answer, json};
use crate::blocking::blocking;
use crate::body::Body;
use crate::refusal::Refusal;
use crate::route::Page;
use crate::server::Shared;

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

pub(super) async fn catalog(shared: &Arc<Shared>, page: Page) -> Answer {
    let owned = Arc::clone(shared);
    let names = blocking(move || owned.repositories.names()).await?;
    let (names, next) = cut(names, &page, shared.config.limits.page, String::as_str);
    let response = json(StatusCode::OK, &serde_json::json!({ "repositories": names }));
    Ok(linked(response, "/v2/_catalog", &page, &[], next.as_deref()))
}

pub(super) async fn tags(shared: &Arc<Shared>, name: String, page: Page) -> Answer {
    let (owned, repository) = (Arc::clone(shared), name.clone());
    let tags = blocking(move || {
        let repository = owned.repositories.repository(&repository);
        repository.exists().then(|| repository.tags()).transpose()
    });
    let tags = tags.await?.ok_or_else(|| Refusal::name_unknown(&name))?;
    let (tags, next) = cut(tags, &page, shared.config.limits.page, String::as_str);
    let response = json(StatusCode::OK, &serde_json::json!({ "name": name, "tags": tags }));
    Ok(linked(response, &format!("/v2/{name}/tags/list"), &page, &[], next.as_deref()))
}

/// What speaks of a manifest. That nothing does is no error, nor that the manifest is not here.
pub(super) async fn referrers(
    shared: &Arc<Shared>,
    name: String,
    subject: Digest,
    artifact_type: Option<String>,
    page: Page,
) -> Answer {
    let (owned, repository, wanted) = (Arc::clone(shared), name.clone(), subject.clone());
    let mut found =
        blocking(move || owned.repositories.repository(&repository).referrers(&wanted)).await?;
    if let Some(wanted) = &artifact_type {
        found.retain(|referrer| referrer.artifact_type.as_ref() == Some(wanted));
    }
    let keyed: Vec<(String, Descriptor)> =
        found.into_iter().map(|referrer| (referrer.digest.to_string(), referrer)).collect();
    let (found, next) =
        cut(keyed, &page, shared.config.limits.page, |(digest, _): &(String, Descriptor)| digest);
    let manifests: Vec<Descriptor> = found.into_iter().map(|(_, referrer)| referrer).collect();
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests,
    });
    let mut response = json(StatusCode::OK, &index);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type::OCI_INDEX));
    let mut filters = Vec::new();
    if let Some(artifact_type) = &artifact_type {
        headers.insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
        filters.push(("artifactType", artifact_type.as_str()));
    }
    let path = format!("/v2/{name}/referrers/{subject}");
    Ok(linked(response, &path, &page, &filters, next.as_deref()))
}

/// The part of a sorted list that is wanted, and its last key if more follows.
fn cut<T>(
    all: Vec<T>,
    page: &Page,
    limit: usize,
    key: impl Fn(&T) -> &str,
) -> (Vec<T>, Option<String>) {
    let start = match &page.last {
        Some(last) => all.partition_point(|entry| key(entry) <= last.as_str()),
        None => 0,
    };
    let count = page.count.unwrap_or(limit).min(limit);
    let left = all.len() - start;
    let part: Vec<T> = all.into_iter().skip(start).take(count).collect();
    let next = part.last().filter(|_| left > count).map(|entry| key(entry).to_owned());
    (part, next)
}

/// Adds the address of the next page.
fn linked(
    mut response: Response<Body>,
    path: &str,
    page: &Page,
    filters: &[(&str, &str)],
    last: Option<&str>,
) -> Response<Body> {
    let Some(last) = last else { return response };
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut address = format!("{path}?last={}", encode(last));
    if let Some(count) = page.count {
        address.push_str(&format!("&n={count}"));
    }
    for (name, value) in filters {
        address.push_str(&format!("&{name}={}", encode(value)));
    }
    let value = HeaderValue::from_str(&format!("<{address}>; rel=\"next\"")).ok();
    response.headers_mut().extend(value.map(|value| (LINK, value)));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_without_gap_or_overlap() {
        let all: Vec<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).into();
        let mut seen = Vec::new();
        let mut page = Page { count: Some(2), last: None };
        loop {
            let (part, next) = cut(all.clone(), &page, 10, String::as_str);
            seen.extend(part);
            let Some(next) = next else { break };
            page.last = Some(next);
        }
        assert_eq!(seen, all);
        let zero = Page { count: Some(0), last: None };
        assert_eq!(cut(all.clone(), &zero, 10, String::as_str), (Vec::new(), None));
        let gone = Page { count: None, last: Some("bb".into()) };
        assert_eq!(cut(all, &gone, 2, String::as_str).1.as_deref(), Some("d"));
    }
}
