//! The specification's requests, one after another.

use std::io::Write as _;
use std::net::TcpStream;

use brig_images::Digest;
use brig_images::digest::{Algorithm, Hasher};

use crate::support::{INDEX, MANIFEST, Server, manifest, noise};

#[test]
fn a_blob_arrives_in_chunks_in_order_only() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let content = noise(3000, 1);
    let started = server.send("POST", "/v2/a/b/blobs/uploads/");
    assert_eq!((started.status, started.header("range")), (202, "0-0"));
    let place = started.header("location").to_owned();
    let chunk = |range: &str, body: &[u8]| {
        server.send_with("PATCH", &place, &[("Content-Range", range)], body)
    };
    let first = chunk("0-999", &content[..1000]);
    assert_eq!((first.status, first.header("range")), (202, "0-999"));
    let early = chunk("2000-2999", &content[2000..]);
    assert_eq!((early.status, early.header("range")), (416, "0-999"));
    assert_eq!(chunk("1000-1998", &content[1000..2000]).status, 400, "longer than it says");
    let status = server.send("GET", &place);
    assert_eq!(status.status, 204);
    // What of a wrong chunk was taken is told, and the sender goes on from there.
    let at: usize = status.header("range").strip_prefix("0-").unwrap().parse().unwrap();
    assert!(at < 2000);
    let rest = &content[at + 1..];
    let wrong = server.send_with("PUT", &place, &[], rest);
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "DIGEST_INVALID"), "no digest");
    let elsewhere = place.replace("/a/b/", "/a/c/");
    assert_eq!(server.send("GET", &elsewhere).status, 404, "it belongs to its repository");
    let digest = Digest::of(&content);
    let done = server.send_with("PUT", &format!("{place}?digest={digest}"), &[], rest);
    assert_eq!(
        (done.status, done.header("docker-content-digest")),
        (201, digest.to_string().as_str())
    );
    let got = server.send("GET", done.header("location"));
    assert!(got.status == 200 && got.body == content);
    assert_eq!(server.send("GET", &place).status, 404);
}

#[test]
fn wrong_content_is_refused_and_a_cancelled_upload_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let path = format!("/v2/a/blobs/uploads/?digest={}", Digest::of(b"right"));
    let answer = server.send_with("POST", &path, &[], b"wrong");
    assert_eq!((answer.status, answer.code().as_str()), (400, "DIGEST_INVALID"));
    let started = server.send("POST", "/v2/a/blobs/uploads/");
    let place = started.header("location").to_owned();
    assert_eq!(server.send("DELETE", &place).status, 204);
    assert_eq!(server.send_with("PATCH", &place, &[], b"x").code(), "BLOB_UPLOAD_UNKNOWN");
    for left in ["content/ingest", "uploads", "content/blobs/sha256"] {
        let count = std::fs::read_dir(directory.path().join(left)).unwrap().count();
        assert_eq!(count, 0, "{left}");
    }
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(b"long");
    let digest = hasher.finish();
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    assert_eq!(server.send_with("POST", &path, &[], b"long").status, 201);
    assert_eq!(server.send("GET", &format!("/v2/a/blobs/{digest}")).body, b"long");
}

#[test]
fn an_upload_goes_on_after_a_broken_connection_and_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let content = noise(200_000, 2);
    let server = Server::start(directory.path());
    let place = server.send("POST", "/v2/a/blobs/uploads/").header("location").to_owned();
    let mut stream = TcpStream::connect(server.address).unwrap();
    let head = format!("PATCH {place} HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&content[..120_000]).unwrap();
    drop(stream);
    // Waits for the request before it, whose end the server may not have seen yet.
    let touched = server.send_with("PATCH", &place, &[], b"");
    assert_eq!(touched.status, 202, "{touched:?}");
    drop(server);
    let server = Server::start(directory.path());
    let status = server.send("GET", &place);
    assert_eq!(status.status, 204);
    let at: usize = status.header("range").strip_prefix("0-").unwrap().parse().unwrap();
    let at = if at == 0 { 0 } else { at + 1 };
    let digest = Digest::of(&content);
    let done = server.send_with("PUT", &format!("{place}?digest={digest}"), &[], &content[at..]);
    assert_eq!(done.status, 201, "{done:?}");
    assert_eq!(server.send("GET", &format!("/v2/a/blobs/{digest}")).body, content);
}

#[test]
fn a_blob_belongs_to_the_repositories_it_was_pushed_or_mounted_to() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let digest = server.push_blob("one", b"content");
    assert_eq!(server.send("GET", &format!("/v2/two/blobs/{digest}")).code(), "NAME_UNKNOWN");
    let refused = server.send("POST", &format!("/v2/two/blobs/uploads/?mount={digest}&from=three"));
    assert_eq!(refused.status, 202, "it falls back to an upload");
    let mounted = server.send("POST", &format!("/v2/two/blobs/uploads/?mount={digest}&from=one"));
    assert_eq!(mounted.status, 201);
    assert_eq!(server.send("GET", mounted.header("location")).body, b"content");
    assert_eq!(server.send("DELETE", &format!("/v2/one/blobs/{digest}")).status, 202);
    assert_eq!(server.send("GET", &format!("/v2/one/blobs/{digest}")).code(), "BLOB_UNKNOWN");
    assert_eq!(server.send("GET", &format!("/v2/two/blobs/{digest}")).body, b"content");
}

#[test]
fn blobs_are_read_whole_in_part_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let content = noise(1_500_000, 3);
    let digest = server.push_blob("a", &content);
    let path = format!("/v2/a/blobs/{digest}");
    let head = server.send("HEAD", &path);
    assert_eq!((head.status, head.header("content-length")), (200, "1500000"));
    assert!(head.body.is_empty());
    assert!(server.send("GET", &path).body == content);
    for (range, from, to) in [
        ("bytes=0-9", 0, 10),
        ("bytes=1499990-", 1_499_990, 1_500_000),
        ("bytes=-5", 1_499_995, 1_500_000),
    ] {
        let part = server.send_with("GET", &path, &[("Range", range)], b"");
        assert_eq!(part.status, 206, "{range}");
        assert_eq!(part.header("content-range"), format!("bytes {from}-{}/1500000", to - 1));
        assert!(part.body == content[from..to], "{range}");
    }
    let beyond = server.send_with("GET", &path, &[("Range", "bytes=1500000-")], b"");
    assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */1500000"));
    let quoted = format!("\"{digest}\"");
    let known = server.send_with("GET", &path, &[("If-None-Match", &quoted)], b"");
    assert_eq!((known.status, known.body.len()), (304, 0));
}

#[test]
fn a_manifest_is_taken_only_when_all_of_it_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let put = |version: &str, media_type: &str, body: &str| {
        let path = format!("/v2/a/manifests/{version}");
        server.send_with("PUT", &path, &[("Content-Type", media_type)], body.as_bytes())
    };
    let config = server.push_blob("a", b"{}");
    let absent = Digest::of(b"absent");
    let answer = put("1", MANIFEST, &manifest(&config, 2, &absent, 6));
    assert_eq!((answer.status, answer.code().as_str()), (404, "MANIFEST_BLOB_UNKNOWN"));
    let layer = server.push_blob("a", b"layer");
    let answer = put("1", MANIFEST, &manifest(&config, 2, &layer, 6));
    assert_eq!(answer.code(), "MANIFEST_INVALID", "a wrong size: {answer:?}");
    let sound = manifest(&config, 2, &layer, 5);
    let digest = Digest::of(sound.as_bytes());
    assert_eq!(put(&absent.to_string(), MANIFEST, &sound).code(), "DIGEST_INVALID");
    assert_eq!(put(".x", MANIFEST, &sound).code(), "TAG_INVALID");
    assert_eq!(put("1", INDEX, &sound).code(), "MANIFEST_INVALID");
    assert_eq!(put("1", MANIFEST, "{").code(), "MANIFEST_INVALID");
    let answer = put("1", MANIFEST, &sound);
    assert_eq!(
        (answer.status, answer.header("docker-content-digest")),
        (201, digest.to_string().as_str())
    );
    for version in ["1".to_owned(), digest.to_string()] {
        let got = server.send("GET", &format!("/v2/a/manifests/{version}"));
        assert_eq!((got.status, got.header("content-type")), (200, MANIFEST));
        assert_eq!(got.body, sound.as_bytes());
    }
    let listed = |child: &Digest| {
        let size = sound.len();
        serde_json::json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests":
            [{ "mediaType": MANIFEST, "digest": child, "size": size }] })
        .to_string()
    };
    assert_eq!(put("all", INDEX, &listed(&absent)).status, 404);
    assert_eq!(put("all", INDEX, &listed(&digest)).status, 201);
    let refused = server.send("DELETE", &format!("/v2/a/manifests/{digest}"));
    assert_eq!((refused.status, refused.code().as_str()), (409, "DENIED"), "the index needs it");
    assert_eq!(server.send("DELETE", &format!("/v2/a/blobs/{layer}")).status, 409);
    let index = Digest::of(listed(&digest).as_bytes());
    assert_eq!(server.send("DELETE", "/v2/a/manifests/all").status, 202, "the tag alone");
    assert_eq!(server.send("GET", &format!("/v2/a/manifests/{index}")).status, 200);
    assert_eq!(server.send("DELETE", &format!("/v2/a/manifests/{index}")).status, 202);
    assert_eq!(server.send("DELETE", &format!("/v2/a/manifests/{digest}")).status, 202);
    assert_eq!(server.send("GET", "/v2/a/manifests/1").code(), "MANIFEST_UNKNOWN");
    assert_eq!(server.send("DELETE", &format!("/v2/a/blobs/{layer}")).status, 202);
}

#[test]
fn lists_come_in_pages() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(directory.path(), |config| config.limits.page = 3);
    for tag in ["e", "b", "d", "a", "c"] {
        server.push_image("z/y", tag, b"layer");
    }
    server.push_image("b", "1", b"layer");
    let mut seen = Vec::new();
    let mut path = "/v2/z/y/tags/list?n=2".to_owned();
    for _ in 0..3 {
        let page = server.send("GET", &path);
        let json = page.json();
        seen.extend(
            json["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()),
        );
        let Some(next) = page.header("link").strip_prefix('<') else { break };
        path = next.split('>').next().unwrap().to_owned();
    }
    assert_eq!(seen, ["a", "b", "c", "d", "e"]);
    let all = server.send("GET", "/v2/z/y/tags/list");
    assert_eq!(all.json()["tags"].as_array().unwrap().len(), 3, "the server's own limit");
    assert!(all.header("link").contains("last=c"));
    assert_eq!(
        server.send("GET", "/v2/_catalog").json()["repositories"],
        serde_json::json!(["b", "z/y"])
    );
    assert_eq!(server.send("GET", "/v2/none/tags/list").code(), "NAME_UNKNOWN");
    assert_eq!(server.send("GET", "/v2/b/tags/list?n=x").code(), "PAGINATION_NUMBER_INVALID");
}

#[test]
fn what_speaks_of_a_manifest_is_listed_and_filtered() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let subject = server.push_image("a", "1", b"layer");
    let empty = server.push_blob("a", b"{}");
    let config = |media_type: &str| serde_json::json!({ "mediaType": media_type, "digest": empty, "size": 2 });
    let pointer = serde_json::json!({ "mediaType": MANIFEST, "digest": subject, "size": 1 });
    let mut digests = Vec::new();
    for (number, artifact_type) in [(1, Some("a/signature")), (2, Some("a/sbom")), (3, None)] {
        let mut manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config("a/config"), "layers": [],
            "subject": pointer, "annotations": { "number": number.to_string() },
        });
        if let Some(artifact_type) = artifact_type {
            manifest["artifactType"] = artifact_type.into();
        }
        let text = manifest.to_string();
        let digest = Digest::of(text.as_bytes());
        let path = format!("/v2/a/manifests/{digest}");
        let put = server.send_with("PUT", &path, &[("Content-Type", MANIFEST)], text.as_bytes());
        assert_eq!((put.status, put.header("oci-subject")), (201, subject.to_string().as_str()));
        digests.push(digest);
    }
    let list = |query: &str| server.send("GET", &format!("/v2/a/referrers/{subject}{query}"));
    let all = list("");
    assert_eq!((all.status, all.header("content-type")), (200, INDEX));
    assert_eq!(all.json()["manifests"].as_array().unwrap().len(), 3);
    let one = list("?artifactType=a/sbom");
    assert_eq!(one.header("oci-filters-applied"), "artifactType");
    assert_eq!(one.json()["manifests"][0]["digest"], digests[1].to_string());
    assert_eq!(one.json()["manifests"][0]["annotations"]["number"], "2");
    assert_eq!(
        list("?artifactType=a%2Fconfig").json()["manifests"][0]["digest"],
        digests[2].to_string()
    );
    let page = list("?n=2");
    assert_eq!(page.json()["manifests"].as_array().unwrap().len(), 2);
    assert!(page.header("link").contains("&n=2"));
    assert_eq!(server.send("DELETE", &format!("/v2/a/manifests/{}", digests[0])).status, 202);
    assert_eq!(list("").json()["manifests"].as_array().unwrap().len(), 2);
    let nothing = server.send("GET", &format!("/v2/other/referrers/{subject}"));
    assert_eq!((nothing.status, nothing.json()["manifests"].clone()), (200, serde_json::json!([])));
}

#[test]
fn only_those_who_log_in_are_served() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("htpasswd");
    let hash = bcrypt::hash_with_salt("secret", 4, [3; 16]).unwrap();
    std::fs::write(&file, format!("me:{hash}\n")).unwrap();
    let server = Server::start_with(&directory.path().join("data"), |config| {
        config.htpasswd = Some(file.clone());
    });
    let refused = server.send("GET", "/v2/");
    assert_eq!((refused.status, refused.code().as_str()), (401, "UNAUTHORIZED"));
    assert!(refused.header("www-authenticate").starts_with("Basic "));
    assert_eq!(server.send("GET", "/v2/no/such/page").status, 401, "strangers learn nothing");
    // me:secret and me:wrong
    for (value, status) in
        [("Basic bWU6c2VjcmV0", 200), ("Basic bWU6d3Jvbmc=", 401), ("Basic !", 401)]
    {
        let answer = server.send_with("GET", "/v2/", &[("Authorization", value)], b"");
        assert_eq!(answer.status, status, "{value}");
        assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0");
    }
}

#[test]
fn limits_hold_and_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(directory.path(), |config| {
        config.limits.uploads = 2;
        config.limits.blob_bytes = 1000;
        config.limits.manifest_bytes = 500;
    });
    let big = noise(1001, 4);
    let path = format!("/v2/a/blobs/uploads/?digest={}", Digest::of(&big));
    assert_eq!(server.send_with("POST", &path, &[], &big).code(), "SIZE_INVALID");
    let manifest = vec![b' '; 501];
    assert_eq!(server.send_with("PUT", "/v2/a/manifests/1", &[], &manifest).status, 413);
    assert_eq!(server.send("POST", "/v2/a/blobs/uploads/").status, 202);
    assert_eq!(server.send("POST", "/v2/a/blobs/uploads/").status, 202);
    let third = server.send("POST", "/v2/a/blobs/uploads/");
    assert_eq!((third.status, third.code().as_str()), (429, "TOOMANYREQUESTS"));
    let header = "x".repeat(200_000);
    assert_eq!(server.send_with("GET", "/v2/", &[("X", &header)], b"").status, 431);
    let page = server.send_with("GET", "/v2/", &[("Origin", "http://evil.example")], b"");
    assert_eq!((page.status, page.code().as_str()), (403, "DENIED"));
    let both = [("Content-Length", "5"), ("Transfer-Encoding", "chunked")];
    let smuggled = server.send_with("POST", "/v2/a/blobs/uploads/", &both, b"0\r\n\r\nGET /");
    assert_ne!(smuggled.status, 202);
    assert_eq!(server.send("TRACE", "/v2/").status, 405);
}

#[test]
fn a_read_only_registry_serves_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let digest = Server::start(directory.path()).push_image("a", "1", b"layer");
    let server = Server::start_with(directory.path(), |config| config.read_only = true);
    assert_eq!(server.send("GET", "/v2/a/manifests/1").status, 200);
    for (method, path) in [
        ("POST", "/v2/a/blobs/uploads/".to_owned()),
        ("PUT", "/v2/a/manifests/2".to_owned()),
        ("DELETE", format!("/v2/a/manifests/{digest}")),
    ] {
        let answer = server.send(method, &path);
        assert_eq!((answer.status, answer.code().as_str()), (405, "UNSUPPORTED"), "{method}");
    }
}
