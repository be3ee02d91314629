//! Basic authentication against a file of `user:hash` lines, bcrypt only, read anew when it changes.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::blocking::blocking;
use crate::error::{Error, Result};
use crate::refusal::Refusal;

/// Largest file, in bytes.
const FILE_LIMIT: u64 = 4 << 20;
/// Most logins that are remembered as good.
const REMEMBERED: usize = 1024;
/// Hashes computed at once: each is meant to be slow, and strangers choose how many.
const AT_ONCE: usize = 2;
/// What an unknown user's password is compared with, so that answers take as long as for a known one.
const NOBODY: &str = "$2b$10$abcdefghijklmnopqrstuuyxj0CYPkXAz4HG5IKoJBE4nCyvGvGZW";

/// Who may in.
#[derive(Debug)]
pub(crate) struct Htpasswd {
    path: PathBuf,
    /// Random, so that what is remembered cannot be compared with anything outside this process.
    salt: [u8; 32],
    slots: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stamp: Option<(SystemTime, u64)>,
    users: HashMap<String, String>,
    /// Salted hashes of `user:password` that were found good.
    good: Vec<[u8; 32]>,
}

impl Htpasswd {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let opened = Self {
            path: path.to_owned(),
            salt: rand::random(),
            slots: Semaphore::new(AT_ONCE),
            state: Mutex::default(),
        };
        opened.refresh()?;
        Ok(opened)
    }

    /// Whether the value of an `Authorization` header belongs to a user.
    pub(crate) async fn accepts(
        self: &std::sync::Arc<Self>,
        header: &str,
    ) -> Result<bool, Refusal> {
        let Some((user, password)) = decode(header) else { return Ok(false) };
        let this = std::sync::Arc::clone(self);
        blocking(move || this.refresh()).await?;
        let key = self.key(&user, &password);
        let hash = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.good.contains(&key) {
                return Ok(true);
            }
            state.users.get(&user).cloned()
        };
        let known = hash.is_some();
        let _slot = self.slots.acquire().await.map_err(|error| Refusal::internal(&error))?;
        let hash = hash.unwrap_or_else(|| NOBODY.to_owned());
        let good = blocking(move || {
            Ok::<_, Refusal>(bcrypt::verify(password.as_bytes(), &hash).unwrap_or(false))
        });
        let good = good.await? && known;
        if good {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.good.len() >= REMEMBERED {
                state.good.clear();
            }
            state.good.push(key);
        }
        Ok(good)
    }

    fn key(&self, user: &str, password: &str) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(self.salt);
        hasher.update((user.len() as u64).to_be_bytes());
        hasher.update(user.as_bytes());
        hasher.update(password.as_bytes());
        hasher.finalize().into()
    }

    /// Reads the file if it is another than before.
    fn refresh(&self) -> Result<()> {
        let failed = |source| Error::io("read", &self.path, source);
        let metadata = fs::metadata(&self.path).map_err(failed)?;
        let stamp = (metadata.modified().map_err(failed)?, metadata.len());
        if self.state.lock().unwrap_or_else(PoisonError::into_inner).stamp == Some(stamp) {
            return Ok(());
        }
        if metadata.len() > FILE_LIMIT {
            let path = self.path.display();
            return Err(Error::invalid(format!("read {path}: larger than {FILE_LIMIT} bytes")));
        }
        let users = parse(&fs::read_to_string(&self.path).map_err(failed)?, &self.path)?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State { stamp: Some(stamp), users, good: Vec::new() };
        Ok(())
    }
}

fn parse(text: &str, path: &Path) -> Result<HashMap<String, String>> {
    let mut users = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |why: &str| {
            Error::invalid(format!("read {} line {}: {why}", path.display(), number + 1))
        };
        let (user, hash) = line.split_once(':').ok_or_else(|| wrong("want user:hash"))?;
        if !["$2a$", "$2b$", "$2y$"].iter().any(|prefix| hash.starts_with(prefix)) {
            return Err(wrong("only bcrypt hashes are taken; make them with htpasswd -B"));
        }
        users.insert(user.to_owned(), hash.to_owned());
    }
    Ok(users)
}

/// User and password of an `Authorization: Basic` header.
fn decode(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// The header of an untrusted request, for fuzzing.
pub(crate) fn decodes(header: &str) -> bool {
    decode(header).is_some()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn header(user: &str, password: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
    }

    #[tokio::test]
    async fn only_the_right_password_is_let_in_and_changes_count_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("htpasswd");
        let hash =
            |password: &str| bcrypt::hash_with_salt(password, 4, [7; 16]).unwrap().to_string();
        fs::write(&file, format!("# ours\nme:{}\n", hash("secret"))).unwrap();
        let users = Arc::new(Htpasswd::open(&file).unwrap());
        for _ in 0..2 {
            assert!(users.accepts(&header("me", "secret")).await.unwrap());
            assert!(!users.accepts(&header("me", "wrong")).await.unwrap());
            assert!(!users.accepts(&header("you", "secret")).await.unwrap());
        }
        assert!(!users.accepts("Bearer x").await.unwrap());
        fs::write(&file, format!("me:{}\nyou:{}\n", hash("other"), hash("o"))).unwrap();
        assert!(!users.accepts(&header("me", "secret")).await.unwrap());
        assert!(users.accepts(&header("you", "o")).await.unwrap());
    }

    #[test]
    fn weak_hashes_are_refused_with_the_line() {
        let error = parse("a:$2y$05$x\nb:$apr1$x\n", Path::new("f")).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        assert!(bcrypt::verify("x", NOBODY).is_ok(), "it takes as long as a real one");
    }
}
