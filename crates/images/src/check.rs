//! Whether the content is still what it was: every blob hashed again and compared with what images need.
//!
//! ```text
//! hash      every file of `blobs/`, in a buffer of fixed size, without keeping anybody out
//! compare   under the store's exclusive lock, with what names, living leases and the caller's roots reach
//! ```
//!
//! What is found can be fetched again by digest ([`Client::restore`](crate::registry::Client::restore)); a manifest that
//! is healed may tell of more that is missing, so the comparison is made again after it.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::content::LEFTOVER;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::lease;
use crate::manifest::{Descriptor, MANIFEST_LIMIT, Manifest, media_type};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::{Store, check_depth};
use crate::{Error, ErrorKind, Result};

/// Who holds what only a living lease protects.
pub const TRANSFER: &str = "a transfer under way";

/// Bytes hashed between two reports of progress.
const PIECE: usize = 1 << 20;

/// What hashing every blob came to.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Hashed {
    /// Blobs hashed.
    pub blobs: usize,
    /// Bytes hashed.
    pub bytes: u64,
    /// Blobs that are not what their name says, and what is wrong with them.
    pub damaged: HashMap<Digest, String>,
    /// Files that the store never makes.
    pub unknown: Vec<PathBuf>,
    /// Transfers that were not finished, and their bytes. The next one goes on with them.
    pub unfinished: Vec<(PathBuf, u64)>,
}

/// Content that whoever needs it cannot use.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// What it should be.
    pub target: Descriptor,
    /// What is wrong with it.
    pub problem: String,
    /// Who needs it: names of images, digests of those without, and the caller's own.
    pub owners: Vec<String>,
    /// Names in whose repositories it may be found.
    pub references: Vec<Reference>,
}

/// Content that somebody needs and that is not right, and content that nobody needs.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Compared {
    /// What is damaged or missing.
    pub faults: Vec<Fault>,
    /// Who needs each blob, as in [`Fault::owners`]; [`TRANSFER`] for one that a living lease protects.
    pub holders: HashMap<Digest, Vec<String>>,
    /// Blobs that nobody needs, and their sizes. Empty while a manifest cannot be read, which might need them.
    pub unreferenced: Vec<(Digest, u64)>,
}

/// A manifest that is needed beside those with names.
#[derive(Clone, Debug)]
pub struct Root {
    /// Its digest.
    pub manifest: Digest,
    /// Who needs it.
    pub owner: String,
    /// The name it was found by.
    pub reference: Option<Reference>,
}

impl Store {
    /// Hashes every blob. `progress` is told the bytes done and the bytes in all, and may break it off.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io) if a directory cannot be read. A blob that cannot be read is damaged.
    pub fn hash_blobs(
        &self,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<Hashed> {
        let mut hashed = Hashed::default();
        self.look_around(&mut hashed)?;
        let mut list = self.blobs().list()?;
        list.sort();
        let total = list.iter().filter_map(|digest| self.blobs().size(digest)).sum();
        let mut buffer = vec![0; PIECE];
        for digest in list {
            let ControlFlow::Continue(problem) =
                self.hash_blob(&digest, &mut buffer, &mut hashed.bytes, total, progress)
            else {
                break;
            };
            hashed.blobs += 1;
            hashed.damaged.extend(problem.map(|problem| (digest, problem)));
        }
        Ok(hashed)
    }

    /// What is wrong with a blob, if anything is.
    fn hash_blob(
        &self,
        digest: &Digest,
        buffer: &mut [u8],
        done: &mut u64,
        total: u64,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> ControlFlow<(), Option<String>> {
        let mut file = match self.blobs().open(digest) {
            Ok(file) => file,
            // Removed meanwhile: whether somebody needs it is the comparison's question.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return ControlFlow::Continue(None);
            }
            Err(error) => return ControlFlow::Continue(Some(format!("cannot be read: {error}"))),
        };
        let (mut hasher, mut size) = (Hasher::new(digest.algorithm()), 0_u64);
        loop {
            match file.read(buffer) {
                Ok(0) => break,
                Ok(count) => {
                    hasher.update(&buffer[..count]);
                    size += count as u64;
                    *done += count as u64;
                    progress(*done, total.max(*done))?;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return ControlFlow::Continue(Some(format!("cannot be read: {error}")));
                }
            }
        }
        let found = hasher.finish();
        let problem = (found != *digest)
            .then(|| format!("is damaged: its {size} bytes on disk hash to {found}"));
        ControlFlow::Continue(problem)
    }

    /// Files that are no blobs.
    fn look_around(&self, hashed: &mut Hashed) -> Result<()> {
        const KNOWN: [&str; 6] = ["oci-layout", "index.json", "blobs", "ingest", "leases", "lock"];
        let root = self.root();
        hashed
            .unknown
            .extend(strangers(root, |name| KNOWN.contains(&name) || name.starts_with(LEFTOVER))?);
        let blobs = root.join("blobs");
        let is_algorithm = |name: &str| Algorithm::ALL.iter().any(|known| known.name() == name);
        hashed.unknown.extend(strangers(&blobs, is_algorithm)?);
        for algorithm in Algorithm::ALL {
            let is_blob =
                |name: &str| Digest::parse(&format!("{}:{name}", algorithm.name())).is_ok();
            hashed.unknown.extend(strangers(&self.blobs().directory(algorithm), is_blob)?);
        }
        let is_lease = |name: &str| name.starts_with("lease-");
        hashed.unknown.extend(strangers(&root.join("leases"), is_lease)?);
        let ingest = self.blobs().ingest();
        let is_arriving = |name: &str| {
            let digest = name.replacen('-', ":", 1);
            ["new-", "upload-"].iter().any(|prefix| name.starts_with(prefix))
                || Digest::parse(&digest).is_ok()
        };
        hashed.unknown.extend(strangers(&ingest, is_arriving)?);
        for entry in list(&ingest)? {
            if is_arriving(&entry.file_name().to_string_lossy()) {
                let size = entry.metadata().map_or(0, |metadata| metadata.len());
                hashed.unfinished.push((entry.path(), size));
            }
        }
        Ok(())
    }

    /// Compares what is here with what is needed. `roots` are determined once nothing can be leased any more.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io), [`InvalidInput`](ErrorKind::InvalidInput) if `index.json` cannot be read, and what `roots`
    /// reports.
    pub fn compare<E: From<Error>>(
        &self,
        hashed: &Hashed,
        roots: impl FnOnce() -> Result<Vec<Root>, E>,
    ) -> Result<Compared, E> {
        let _guard = self.lock_exclusive()?;
        let mut walk =
            Walk { store: self, hashed, holders: HashMap::new(), faults: BTreeMap::new() };
        let mut unreadable = false;
        let records = self.images()?;
        for record in &records {
            let owner = Owner { name: record.familiar(), reference: record.reference.as_ref() };
            unreadable |= !walk.need(&record.target, &owner, true, 0);
        }
        for root in roots()? {
            // What it is, it says itself; what lost it long ago does not need it any more.
            let size = self.blobs().size(&root.manifest).unwrap_or_default();
            let target = Descriptor::new(media_type::OCI_MANIFEST, root.manifest, size);
            let owner = Owner { name: root.owner, reference: root.reference.as_ref() };
            unreadable |= !walk.need(&target, &owner, false, 0);
        }
        for digest in lease::protected(self)? {
            unreadable |= !walk.leased(digest);
        }
        let Walk { holders, faults, .. } = walk;
        let mut unreferenced = Vec::new();
        if !unreadable {
            let all = self.blobs().list()?;
            let loose = all.into_iter().filter(|digest| !holders.contains_key(digest));
            unreferenced.extend(loose.map(|digest| {
                let size = self.blobs().size(&digest).unwrap_or_default();
                (digest, size)
            }));
        }
        Ok(Compared { faults: faults.into_values().collect(), holders, unreferenced })
    }
}

struct Owner<'a> {
    name: String,
    reference: Option<&'a Reference>,
}

struct Walk<'a> {
    store: &'a Store,
    hashed: &'a Hashed,
    holders: HashMap<Digest, Vec<String>>,
    faults: BTreeMap<Digest, Fault>,
}

impl Walk<'_> {
    /// Notes what `target` needs; answers whether all manifests could be read. What is not `required` may be missing: an
    /// index lists more platforms than were pulled.
    fn need(
        &mut self,
        target: &Descriptor,
        owner: &Owner<'_>,
        required: bool,
        depth: usize,
    ) -> bool {
        let digest = &target.digest;
        let is_document = target.is_manifest() || target.is_index();
        let present = self.store.blobs().contains(digest);
        if !present && !required {
            return true;
        }
        let holders = self.holders.entry(digest.clone()).or_default();
        if !holders.contains(&owner.name) {
            holders.push(owner.name.clone());
        }
        if !present {
            self.fault(target, owner, "is missing");
            return !is_document;
        }
        if let Some(problem) = self.hashed.damaged.get(digest) {
            self.fault(target, owner, problem);
            return !is_document;
        }
        if !is_document {
            return true;
        }
        let manifest = check_depth(target, depth).and_then(|()| {
            let bytes = self.store.blobs().read(digest, MANIFEST_LIMIT)?;
            Manifest::parse(&bytes, None)
        });
        match manifest {
            Err(error) => {
                self.fault(target, owner, &format!("cannot be read: {error}"));
                false
            }
            Ok(manifest) => {
                let mut readable = true;
                let (deeper, wanted) = (depth + 1, self.best_of(&manifest));
                for child in manifest.children() {
                    let required = match &manifest {
                        Manifest::Image(_) => true,
                        Manifest::Index(_) => wanted.as_ref() == Some(&child.digest),
                    };
                    readable &= self.need(child, owner, required, deeper);
                }
                readable
            }
        }
    }

    /// The manifest that an index must have here: the one for this machine, where it has none.
    fn best_of(&self, manifest: &Manifest) -> Option<Digest> {
        let Manifest::Index(index) = manifest else { return None };
        let blobs = self.store.blobs();
        if index.images().any(|child| blobs.contains(&child.digest)) {
            return None;
        }
        index.candidates(&Platform::host()).first().map(|best| best.digest.clone())
    }

    /// What a transfer under way has protected, which may not be there yet; answers whether it could be read.
    fn leased(&mut self, digest: Digest) -> bool {
        let Ok(reached) = self.store.reach(vec![digest]) else { return false };
        for digest in reached {
            self.holders.entry(digest).or_insert_with(|| vec![TRANSFER.to_owned()]);
        }
        true
    }

    fn fault(&mut self, target: &Descriptor, owner: &Owner<'_>, problem: &str) {
        let fault = self.faults.entry(target.digest.clone()).or_insert_with(|| Fault {
            target: target.clone(),
            problem: problem.to_owned(),
            owners: Vec::new(),
            references: Vec::new(),
        });
        if !fault.owners.contains(&owner.name) {
            fault.owners.push(owner.name.clone());
        }
        if let Some(reference) = owner.reference.filter(|known| !fault.references.contains(known)) {
            fault.references.push(reference.clone());
        }
    }
}

fn list(directory: &Path) -> Result<Vec<fs::DirEntry>> {
    let entries = fs::read_dir(directory).and_then(Iterator::collect);
    entries.map_err(|source| Error::io("list", directory, source))
}

/// What is in a directory under a name that does not belong there.
fn strangers(directory: &Path, belongs: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let entries = list(directory)?.into_iter();
    let strange = entries.filter(|entry| !entry.file_name().to_str().is_some_and(&belongs));
    Ok(strange.map(|entry| entry.path()).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use super::*;
    use crate::test_images;

    fn check(store: &Store) -> (Hashed, Compared) {
        let hashed = store.hash_blobs(&mut |_, _| ControlFlow::Continue(())).unwrap();
        let compared = store.compare(&hashed, || Ok::<_, Error>(Vec::new())).unwrap();
        (hashed, compared)
    }

    fn overwrite(store: &Store, digest: &Digest, change: impl FnOnce(&mut Vec<u8>)) {
        let path = store.blobs().path(digest);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, bytes).unwrap();
    }

    #[test]
    fn a_sound_store_has_no_faults_and_a_platform_that_was_not_pulled_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let lease = store.lease().unwrap();
        let here = test_images::image(&lease, "linux/amd64", &[b"one", b"two"]);
        let mut absent = here.clone();
        absent.digest = Digest::of(b"never pulled");
        absent.platform = Some(Platform::parse("linux/s390x").unwrap());
        let index = test_images::index_of(&lease, &[here, absent]);
        store.tag(&Reference::parse("app:1").unwrap(), &index).unwrap();
        drop(lease);
        let (hashed, compared) = check(&store);
        assert_eq!((hashed.blobs, hashed.damaged.len(), hashed.unknown.len()), (5, 0, 0));
        assert!(compared.faults.is_empty() && compared.unreferenced.is_empty(), "{compared:?}");
    }

    #[test]
    fn what_is_damaged_missing_cut_short_loose_or_strange_is_told_with_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let lease = store.lease().unwrap();
        let layers: [&[u8]; 3] = [b"flipped", b"missing", b"cut short"];
        let target = test_images::image(&lease, "linux/amd64", &layers);
        store.tag(&Reference::parse("app:1").unwrap(), &target).unwrap();
        let loose = lease.put("", b"nobody's").unwrap().digest;
        drop(lease.anonymous().unwrap());
        drop(lease);
        let [flipped, missing, cut] = layers.map(Digest::of);
        overwrite(&store, &flipped, |bytes| bytes[3] ^= 1);
        overwrite(&store, &cut, |bytes| bytes.truncate(3));
        fs::remove_file(store.blobs().path(&missing)).unwrap();
        for stranger in ["notes.txt", "blobs/sha256/readme", "ingest/x"] {
            fs::write(directory.path().join(stranger), "x").unwrap();
        }
        let (hashed, compared) = check(&store);
        let found: HashSet<&Digest> = compared.faults.iter().map(|f| &f.target.digest).collect();
        assert_eq!(found, HashSet::from([&flipped, &missing, &cut]));
        assert!(compared.faults.iter().all(|fault| fault.owners == ["app:1"]));
        assert_eq!(compared.unreferenced, [(loose, 8)]);
        assert_eq!(hashed.unknown.len(), 3, "{:?}", hashed.unknown);
        // In place of what is there.
        let lease = store.lease().unwrap();
        lease.replace(&flipped, b"flipped").unwrap();
        let (hashed, _) = check(&store);
        assert!(!hashed.damaged.contains_key(&flipped) && hashed.damaged.contains_key(&cut));
    }

    #[test]
    fn beneath_a_damaged_manifest_nothing_is_said_to_be_loose() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let lease = store.lease().unwrap();
        let target = test_images::image(&lease, "linux/amd64", &[b"layer"]);
        store.tag(&Reference::parse("app:1").unwrap(), &target).unwrap();
        drop(lease);
        overwrite(&store, &target.digest, |bytes| bytes[0] = b' ');
        let (_, compared) = check(&store);
        assert_eq!(compared.faults.len(), 1);
        assert!(compared.faults[0].target.is_manifest() && compared.unreferenced.is_empty());
    }

    #[test]
    fn hashing_is_broken_off_and_what_a_crash_left_is_collected() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let _ = store.lease().unwrap().put("", b"x").unwrap();
        let hashed = store.hash_blobs(&mut |_, _| ControlFlow::Break(())).unwrap();
        assert_eq!(hashed.blobs, 0);
        let leftover = directory.path().join(".new-index");
        fs::write(&leftover, "{").unwrap();
        store.collect_garbage(&[], Duration::ZERO).unwrap();
        assert!(!leftover.exists());
    }
}
