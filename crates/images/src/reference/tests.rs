use proptest::prelude::*;

use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn names_are_normalised_as_docker_does() {
    for (text, canonical, familiar) in [
        ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27", "nginx:1.27"),
        ("library/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("user/app", "docker.io/user/app:latest", "user/app:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
        ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        ("Foo/bar", "Foo/bar:latest", "Foo/bar:latest"),
        ("quay.io/a/b_c", "quay.io/a/b_c:latest", "quay.io/a/b_c:latest"),
        ("a__b/c---d", "docker.io/a__b/c---d:latest", "a__b/c---d:latest"),
        ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("docker.io/a.b/c", "docker.io/a.b/c:latest", "docker.io/a.b/c:latest"),
    ] {
        let reference = Reference::parse(text).unwrap();
        assert_eq!(reference.canonical(), canonical, "{text}");
        assert_eq!(reference.familiar(), familiar, "{text}");
    }
}

#[test]
fn a_digest_stands_alone_or_beside_a_tag() {
    let reference = Reference::parse(&format!("nginx@sha256:{HEX}")).unwrap();
    assert_eq!((reference.tag(), reference.digest().unwrap().hex()), (None, HEX));
    let both = Reference::parse(&format!("nginx:1@sha256:{HEX}")).unwrap();
    assert_eq!((both.tag(), both.version()), (Some("1"), format!("sha256:{HEX}")));
    assert_eq!(both.key(), reference);
}

#[test]
fn malformed_references_are_refused() {
    let long_tag = format!("a:{}", "t".repeat(129));
    let long_path = "a/".repeat(128) + "a";
    for text in [
        "",
        ":",
        "a:",
        "a@",
        "a@sha256:zz",
        "A",
        "a/B",
        "a//b",
        "/a",
        "a/",
        "a:-t",
        "a:b:c",
        "-a",
        "a-",
        "a___b",
        "a..b",
        "a b",
        "a\n",
        "https://a/b",
        "a.b:99999999/c",
        "[::g]/a",
        "[::1/a",
        "é",
        HEX,
        &long_tag,
        &long_path,
        "a.-b.c/x",
        "../a",
        "a/../b",
        "localhost:/x:y:z",
    ] {
        assert!(Reference::parse(text).is_err(), "{text:?}");
    }
}

proptest! {
    #[test]
    fn parsing_never_panics_and_is_stable(text in "\\PC{0,80}") {
        if let Ok(reference) = Reference::parse(&text) {
            prop_assert_eq!(Reference::parse(&reference.canonical()).unwrap(), reference.clone());
            prop_assert_eq!(Reference::parse(&reference.familiar()).unwrap(), reference);
        }
    }

    #[test]
    fn plausible_names_round_trip(text in "([a-zA-Z0-9.:-]{1,12}/)?[a-z0-9._-]{1,10}(/[a-z0-9._-]{1,10}){0,2}(:[\\w.-]{1,6})?") {
        if let Ok(reference) = Reference::parse(&text) {
            prop_assert_eq!(Reference::parse(&reference.canonical()).unwrap(), reference.clone());
            prop_assert_eq!(Reference::parse(&reference.familiar()).unwrap(), reference);
        }
    }
}
