//! Entry point for fuzzers: what an image's files say of users. Nothing here may panic.

use crate::container::resolve_user_of;

/// A request's `user[:group]`, an added group, and the image's `/etc/passwd` and `/etc/group`, with zero bytes between.
///
/// # Panics
/// If a user comes out that no process can have, or another one than was asked for: a bug.
pub fn user(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut parts = text.splitn(4, '\0');
    let mut part = || parts.next().unwrap_or_default();
    let (request, added, passwd, group) = (part(), part(), part(), part());
    let added: Vec<String> = if added.is_empty() { Vec::new() } else { vec![added.to_owned()] };
    let Ok(user) = resolve_user_of(request, &added, passwd, group) else { return };
    let ids = user.groups.iter().chain([&user.uid, &user.gid]);
    assert!(ids.into_iter().all(|id| i32::try_from(*id).is_ok()), "{user:?}");
    assert!(user.groups.windows(2).all(|pair| pair[0] < pair[1]), "{user:?}");
    assert!(user.groups.contains(&user.gid), "{user:?}");
    assert!(user.home.as_ref().is_none_or(|home| home.starts_with('/')), "{user:?}");
    let name = request.split(':').next().unwrap_or_default();
    if !passwd.lines().any(|line| line.split(':').next() == Some(name)) {
        let number = if name.is_empty() { Ok(0) } else { name.parse() };
        assert_eq!(number, Ok(user.uid), "{user:?} for {request:?}");
    }
}
