//! Who a container's process runs as: the `user[:group]` of a request or image, looked up in the container's own
//! `/etc/passwd` and `/etc/group`.
//!
//! The files belong to the image and are untrusted: the caller reads at most [`FILE_BYTES_MAX`] of each through the
//! container's tree, lines past [`LINES_MAX`] are not looked at, malformed lines are skipped, and an identifier that does
//! not fit is an error, never a different user.

use crate::error::{Error, Result};

/// The most that is read of either file.
pub(crate) const FILE_BYTES_MAX: u64 = 4 << 20;
/// Lines looked at in either file.
const LINES_MAX: usize = 200_000;
/// Linux has 32-bit ids; the last one means "unchanged" to the kernel. Docker stops at 31 bits.
const ID_MAX: u64 = 0x7fff_ffff;
/// Supplementary groups a process may have (NGROUPS_MAX).
const GROUPS_MAX: usize = 65_536;

/// A resolved user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups, sorted, the primary one included as docker does.
    pub(crate) groups: Vec<u32>,
    /// Home directory from the passwd file, if it names one.
    pub(crate) home: Option<String>,
}

/// Resolves `user[:group]`; empty means root. `added` are groups that the request adds, by name or number.
pub(crate) fn resolve(text: &str, added: &[String], passwd: &str, group: &str) -> Result<User> {
    if text.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(Error::invalid(format!("invalid user {text:?}: it holds a control character")));
    }
    let (user_text, group_text) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let user_text = if user_text.is_empty() { "0" } else { user_text };
    let entry = passwd_entry(user_text, passwd)?;
    let (uid, home) = match &entry {
        Some(entry) => (entry.uid, entry.home.clone()),
        None => (
            parse_id(user_text)?.ok_or_else(|| {
                Error::invalid(format!(
                    "unable to find user {user_text}: no matching entries in passwd file"
                ))
            })?,
            None,
        ),
    };
    let gid = match group_text.filter(|text| !text.is_empty()) {
        Some(text) => find_group(text, group)?,
        None => entry.as_ref().map_or(0, |entry| entry.gid),
    };
    let mut groups = vec![gid];
    // Docker adds the user's groups from the group file only when the request names no group.
    if let (Some(entry), None) = (&entry, group_text) {
        groups.extend(memberships(&entry.name, group)?);
    }
    for text in added {
        groups.push(find_group(text, group)?);
    }
    groups.sort_unstable();
    groups.dedup();
    if groups.len() > GROUPS_MAX {
        return Err(Error::invalid(format!("user {text} is in more than {GROUPS_MAX} groups")));
    }
    Ok(User { uid, gid, groups, home })
}

struct PasswdEntry {
    name: String,
    uid: u32,
    gid: u32,
    home: Option<String>,
}

/// The entry whose name is `user`, else the one whose number it is. A name wins, even one that looks like a number.
fn passwd_entry(user: &str, passwd: &str) -> Result<Option<PasswdEntry>> {
    let number = parse_id(user)?;
    let mut by_number = None;
    for line in passwd.lines().take(LINES_MAX) {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, ..] = fields[..] else { continue };
        let (Ok(Some(uid)), Ok(Some(gid))) = (parse_id(uid), parse_id(gid)) else { continue };
        let entry = || PasswdEntry {
            name: name.to_owned(),
            uid,
            gid,
            home: fields.get(5).filter(|home| home.starts_with('/')).map(|home| (*home).to_owned()),
        };
        if name == user && !name.is_empty() {
            return Ok(Some(entry()));
        }
        if by_number.is_none() && number == Some(uid) {
            by_number = Some(entry());
        }
    }
    Ok(by_number)
}

fn find_group(text: &str, group: &str) -> Result<u32> {
    let number = parse_id(text)?;
    for (name, gid, _) in group_entries(group) {
        if name == text && !name.is_empty() {
            return Ok(gid);
        }
    }
    number.ok_or_else(|| {
        Error::invalid(format!("unable to find group {text}: no matching entries in group file"))
    })
}

fn memberships(user: &str, group: &str) -> Result<Vec<u32>> {
    let groups: Vec<u32> = group_entries(group)
        .filter(|(_, _, members)| members.split(',').any(|member| member == user))
        .map(|(_, gid, _)| gid)
        .take(GROUPS_MAX + 1)
        .collect();
    Ok(groups)
}

fn group_entries(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().take(LINES_MAX).filter_map(|line| {
        let mut fields = line.splitn(4, ':');
        let name = fields.next()?;
        let _password = fields.next()?;
        let gid = parse_id(fields.next()?).ok().flatten()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

/// A decimal identifier; `None` for text that is no number, an error for a number that no process can have.
fn parse_id(text: &str) -> Result<Option<u32>> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let out_of_range =
        || Error::invalid(format!("uids and gids must be in range 0-{ID_MAX}: {text}"));
    let id: u64 = text.parse().map_err(|_| out_of_range())?;
    if id > ID_MAX {
        return Err(out_of_range());
    }
    Ok(Some(u32::try_from(id).map_err(|_| out_of_range())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        broken\n\
        :x:7:7::/:/bin/sh\n\
        www:x:33:34:www:/var/www:/bin/sh\n\
        1000:x:44:45::/odd:/bin/sh\n\
        big:x:4294967296:0::/:/bin/sh\n\
        alice:x:1000:1001::/home/alice:/bin/sh";
    const GROUP: &str =
        "root:x:0:\naudio:x:29:alice,www\nvideo:x:44:alice\nstaff:x:50:\nbad:x:notanumber:alice\n";

    fn user(uid: u32, gid: u32, groups: &[u32], home: Option<&str>) -> User {
        User { uid, gid, groups: groups.to_vec(), home: home.map(str::to_owned) }
    }

    #[test]
    fn users_and_groups_resolve_as_docker_resolves_them() {
        let rows = [
            ("", user(0, 0, &[0], Some("/root"))),
            ("root", user(0, 0, &[0], Some("/root"))),
            ("www", user(33, 34, &[29, 34], Some("/var/www"))),
            ("33", user(33, 34, &[29, 34], Some("/var/www"))),
            ("alice", user(1000, 1001, &[29, 44, 1001], Some("/home/alice"))),
            // A name that looks like a number wins over the number.
            ("1000", user(44, 45, &[45], Some("/odd"))),
            ("alice:staff", user(1000, 50, &[50], Some("/home/alice"))),
            ("alice:77", user(1000, 77, &[77], Some("/home/alice"))),
            ("4242", user(4242, 0, &[0], None)),
            ("4242:4243", user(4242, 4243, &[4243], None)),
            (":staff", user(0, 50, &[50], Some("/root"))),
        ];
        for (text, expected) in rows {
            assert_eq!(resolve(text, &[], PASSWD, GROUP).expect(text), expected, "{text}");
        }
    }

    #[test]
    fn hostile_users_are_refused_rather_than_mapped_to_someone() {
        for text in [
            "4294967296",
            "4294967295",
            "2147483648",
            "-1",
            "nobody",
            "root:nogroup",
            "root\n",
            "0:-1",
            "0:4294967296",
            "big",
        ] {
            let error = resolve(text, &[], PASSWD, GROUP).expect_err(text);
            assert_eq!(error.kind(), crate::ErrorKind::InvalidInput, "{text}");
        }
    }

    #[test]
    fn added_groups_join_by_name_and_number() {
        let added = ["video".to_owned(), "4321".to_owned()];
        assert_eq!(resolve("www", &added, PASSWD, GROUP).expect("good").groups, [29, 34, 44, 4321]);
        assert!(resolve("www", &["nope".to_owned()], PASSWD, GROUP).is_err());
    }

    #[test]
    fn empty_files_still_give_root_and_numbers() {
        assert_eq!(resolve("", &[], "", "").expect("root"), user(0, 0, &[0], None));
        assert_eq!(resolve("5:6", &[], "", "").expect("numbers"), user(5, 6, &[6], None));
    }
}
