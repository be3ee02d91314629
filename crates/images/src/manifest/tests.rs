use super::*;
use crate::ErrorKind;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn descriptor(media_type: &str, extra: &str) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{DIGEST}","size":2{extra}}}"#)
}

fn image(extra: &str) -> String {
    let config = descriptor(media_type::OCI_CONFIG, "");
    let layer = descriptor(media_type::OCI_LAYER_GZIP, "");
    format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]{extra}}}"#)
}

fn index(entries: &[String]) -> String {
    format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","))
}

fn kind(text: &str, declared: Option<&str>) -> ErrorKind {
    Manifest::parse(text.as_bytes(), declared).unwrap_err().kind()
}

#[test]
fn both_forms_are_read_with_and_without_a_stated_type() {
    let parsed = Manifest::parse(image("").as_bytes(), None).unwrap();
    assert_eq!(parsed.media_type(), media_type::OCI_MANIFEST);
    let docker = format!(r#","mediaType":"{}""#, media_type::DOCKER_MANIFEST);
    let parsed = Manifest::parse(image(&docker).as_bytes(), None).unwrap();
    assert_eq!(parsed.media_type(), media_type::DOCKER_MANIFEST);
    assert_eq!(parsed.children().count(), 2);
    let parsed = Manifest::parse(index(&[]).as_bytes(), Some("text/plain")).unwrap();
    assert_eq!(parsed.media_type(), media_type::OCI_INDEX);
}

#[test]
fn a_document_that_is_two_things_is_refused() {
    assert_eq!(kind(&image(r#","manifests":[]"#), None), ErrorKind::InvalidInput);
    let both = r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#;
    assert_eq!(kind(both, None), ErrorKind::InvalidInput);
    assert_eq!(kind(&image(""), Some(media_type::OCI_INDEX)), ErrorKind::Unsupported);
    let stated = format!(r#","mediaType":"{}""#, media_type::OCI_MANIFEST);
    assert_eq!(kind(&image(&stated), Some(media_type::OCI_INDEX)), ErrorKind::InvalidInput);
    let twice = image(r#","schemaVersion":2"#);
    assert_eq!(kind(&twice, None), ErrorKind::InvalidInput);
}

#[test]
fn old_and_unknown_documents_are_unsupported() {
    assert_eq!(kind(r#"{"schemaVersion":1,"fsLayers":[]}"#, None), ErrorKind::Unsupported);
    assert_eq!(kind("x", Some(media_type::DOCKER_SCHEMA1[1])), ErrorKind::Unsupported);
    let other = image(r#","mediaType":"application/x-other""#);
    assert_eq!(kind(&other, None), ErrorKind::Unsupported);
}

#[test]
fn limits_hold() {
    let entry = descriptor(media_type::OCI_MANIFEST, "");
    assert_eq!(kind(&index(&vec![entry.clone(); INDEX_LIMIT + 1]), None), ErrorKind::InvalidInput);
    assert!(Manifest::parse(index(&vec![entry; INDEX_LIMIT]).as_bytes(), None).is_ok());
    assert_eq!(kind(&" ".repeat(MANIFEST_LIMIT + 1), None), ErrorKind::InvalidInput);
    for broken in ["", "{}", "[]", r#"{"schemaVersion":2}"#, r#"{"schemaVersion":-2}"#] {
        assert_eq!(kind(broken, None), ErrorKind::InvalidInput, "{broken}");
    }
    let escape = image("").replace(DIGEST, "sha256:../x");
    assert_eq!(kind(&escape, None), ErrorKind::InvalidInput);
}

#[test]
fn selection_ignores_attestations_and_prefers_the_best_variant() {
    let for_platform = |architecture: &str, variant: &str, extra: &str| {
        let platform = format!(
            r#","platform":{{"os":"linux","architecture":"{architecture}"{variant}}}{extra}"#
        );
        descriptor(media_type::OCI_MANIFEST, &platform)
    };
    let attestation = for_platform(
        "amd64",
        "",
        r#","annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#,
    );
    let unknown = descriptor(
        media_type::OCI_MANIFEST,
        r#","platform":{"os":"unknown","architecture":"unknown"}"#,
    );
    let text = index(&[
        attestation,
        unknown,
        for_platform("arm", r#","variant":"v5""#, ""),
        for_platform("arm", r#","variant":"v7""#, ""),
        descriptor("application/x-other", ""),
    ]);
    let Manifest::Index(index) = Manifest::parse(text.as_bytes(), None).unwrap() else { panic!() };
    let arm = Platform::parse("linux/arm/v7").unwrap();
    let found = index.candidates(&arm);
    let variants: Vec<_> =
        found.iter().map(|entry| entry.platform.as_ref().unwrap().variant.as_deref()).collect();
    assert_eq!(variants, [Some("v7"), Some("v5")]);
    assert!(index.candidates(&Platform::parse("linux/amd64").unwrap()).is_empty());
    assert_eq!(index.offered(), "linux/arm/v5, linux/arm/v7");
}
