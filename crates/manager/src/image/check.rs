//! Whether the content of every image is there and right, and what can be done where it is not.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use brig_images::{Compared, Descriptor, Digest, Fault, Hashed, Reference, Root};
use brig_storage::{SnapshotKey, SnapshotKind};

use super::Images;
use crate::error::Result;

/// Is told the bytes done and the bytes in all; answers whether anybody still wants to know.
pub(crate) type Follow = Arc<dyn Fn(&str, u64, u64) -> bool + Send + Sync>;

/// What could not be fetched again, by digest, and why.
pub(crate) type Unhealed = HashMap<Digest, String>;

/// What a look at all images came to.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) count: usize,
    /// Images whose content is not whole: the name or digest, and what is missing.
    pub(crate) damaged: Vec<(String, String)>,
}

impl Images {
    /// Looks for the manifest, configuration and layers of every image, by size.
    pub(crate) async fn check(&self) -> Result<Checked> {
        self.blocking(|this| {
            let mut checked = Checked::default();
            for record in this.0.store.images()? {
                checked.count += 1;
                let name = record.familiar();
                let image = match this.image_of(&record.target) {
                    Ok(image) => image,
                    Err(error) => {
                        checked.damaged.push((name, error.report()));
                        continue;
                    }
                };
                for layer in &image.layers {
                    let problem = match this.0.store.blobs().size(&layer.digest) {
                        None => format!("layer {} is missing", layer.digest),
                        Some(size) if size != layer.size => {
                            format!(
                                "layer {} has {size} bytes instead of {}",
                                layer.digest, layer.size
                            )
                        }
                        Some(_) => continue,
                    };
                    checked.damaged.push((name.clone(), problem));
                }
            }
            Ok(checked)
        })
        .await
    }
}

impl Images {
    /// Hashes all content.
    pub(crate) async fn hash_content(&self, follow: Follow) -> Result<Hashed> {
        self.blocking(move |this| {
            let mut progress = |done, total| match follow("Verifying", done, total) {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            };
            Ok(this.0.store.hash_blobs(&mut progress)?)
        })
        .await
    }

    /// Compares the content with what images and containers need.
    pub(crate) async fn compare_content(&self, hashed: Arc<Hashed>) -> Result<Compared> {
        self.blocking(move |this| this.0.store.compare(&hashed, || Ok(this.content_roots()))).await
    }

    /// What containers need although its image may have lost its name.
    fn content_roots(&self) -> Vec<Root> {
        let views = self.0.table.views();
        let root = |record: &crate::metadata::ContainerRecord| {
            Some(Root {
                manifest: Digest::parse(&record.manifest).ok()?,
                owner: format!("container {}", record.name),
                reference: Reference::parse(&record.image).ok(),
            })
        };
        views.iter().filter_map(|view| root(&view.record)).collect()
    }

    /// Fetches damaged and missing content again from the repositories of its images, verified by digest. Answers what
    /// was healed, and what was not. A manifest that is healed may tell of more.
    pub(crate) async fn heal_content(
        &self,
        mut hashed: Hashed,
        follow: &Follow,
    ) -> Result<(Hashed, Vec<Fault>, Unhealed)> {
        let (mut healed, mut unhealed) = (Vec::new(), Unhealed::new());
        loop {
            let compared = self.compare_content(Arc::new(hashed.clone())).await?;
            let mut faults = compared.faults;
            faults.retain(|fault| !unhealed.contains_key(&fault.target.digest));
            if faults.is_empty() {
                return Ok((hashed, healed, unhealed));
            }
            for fault in faults {
                match self.heal_one(&fault, follow).await {
                    Ok(()) => {
                        hashed.damaged.remove(&fault.target.digest);
                        healed.push(fault);
                    }
                    Err(why) => drop(unhealed.insert(fault.target.digest, why)),
                }
            }
        }
    }

    async fn heal_one(&self, fault: &Fault, follow: &Follow) -> Result<(), String> {
        let lease = self.blocking(|this| Ok(Arc::new(this.0.store.lease()?))).await;
        let lease = lease.map_err(|error| error.report())?;
        let follow = Arc::clone(follow);
        let observer = move |news: brig_images::registry::Progress| {
            if let brig_images::registry::Progress::Blob(blob) = news
                && let brig_images::registry::BlobState::Transferring { done, total } = blob.state
            {
                follow("Fetching again", done, total);
            }
        };
        let mut failures = Vec::new();
        for reference in &fault.references {
            let restored = self.0.client.restore(reference, &fault.target, None, &lease, &observer);
            match restored.await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    let report = crate::error::Error::from(error).report();
                    failures.push(format!("from {}: {report}", reference.repository()));
                }
            }
        }
        if failures.is_empty() {
            failures.push("no repository is known that has it".to_owned());
        }
        Err(failures.join("; "))
    }

    /// Images some of whose layers are not unpacked: their names and the digests of their manifests.
    pub(crate) async fn without_layers(&self) -> Result<Vec<(String, String)>> {
        self.blocking(|this| {
            let snapshots = this.0.storage.snapshots();
            let arriving = this.arriving().clone();
            let mut found = Vec::new();
            for named in this.all()? {
                let chain = named.image.chain_ids();
                let lacks = |id: &Digest| {
                    let key = SnapshotKey::parse(id.to_string());
                    key.is_ok_and(|key| {
                        !snapshots.exists(&key) && !arriving.contains_key(key.as_str())
                    })
                };
                if chain.iter().any(lacks) {
                    let name = named.references.first().map(Reference::familiar);
                    let name = name.unwrap_or_else(|| named.image.id.to_string());
                    found.push((name, named.image.target.digest.to_string()));
                }
            }
            Ok(found)
        })
        .await
    }

    /// Layers that no image and no container stands on.
    pub(crate) async fn loose_layers(&self) -> Result<Vec<String>> {
        self.blocking(|this| {
            let mut needed = this.needed_layers()?;
            let list = this.0.storage.snapshots().list();
            needed.extend(
                list.iter()
                    .filter(|info| info.kind == SnapshotKind::Container)
                    .filter_map(|info| info.parent.as_ref().map(ToString::to_string)),
            );
            let parent: HashMap<&str, &str> = list
                .iter()
                .filter_map(|info| Some((info.key.as_str(), info.parent.as_ref()?.as_str())))
                .collect();
            let mut held: BTreeSet<&str> = BTreeSet::new();
            for key in &needed {
                let mut next = Some(key.as_str());
                while let Some(key) = next.filter(|key| held.insert(key)) {
                    next = parent.get(key).copied();
                }
            }
            let layers = list.iter().filter(|info| info.kind == SnapshotKind::Layer);
            let loose = layers.map(|info| info.key.as_str()).filter(|key| !held.contains(key));
            Ok(loose.map(str::to_owned).collect())
        })
        .await
    }

    /// The images and containers that stand on each layer, by its key.
    pub(crate) async fn layer_holders(&self) -> Result<HashMap<String, Vec<String>>> {
        self.blocking(|this| {
            let mut holders: HashMap<String, Vec<String>> = HashMap::new();
            for named in this.all()? {
                let mut names: Vec<_> = named.references.iter().map(Reference::familiar).collect();
                if names.is_empty() {
                    names.push(named.target.digest.to_string());
                }
                for id in named.image.chain_ids() {
                    holders.entry(id.to_string()).or_default().extend(names.iter().cloned());
                }
            }
            let list = this.0.storage.snapshots().list();
            let parents: HashMap<&str, &str> = list
                .iter()
                .filter_map(|info| Some((info.key.as_str(), info.parent.as_ref()?.as_str())))
                .collect();
            for view in this.0.table.views() {
                let name = format!("container {}", view.record.name);
                let mut next = parents.get(view.record.id.as_str()).copied();
                // A chain is no longer than all snapshots are many.
                for _ in 0..list.len() {
                    let Some(key) = next else { break };
                    holders.entry(key.to_owned()).or_default().push(name.clone());
                    next = parents.get(key).copied();
                }
            }
            Ok(holders)
        })
        .await
    }

    /// Unpacks the layers of an image that are missing.
    pub(crate) async fn unpack_manifest(&self, digest: String) -> Result<()> {
        let image = self.blocking(move |this| this.image_by_manifest(&digest)).await?;
        self.unpack(&image, None).await.map(drop)
    }

    /// Makes a layer again whose files are gone.
    pub(crate) async fn make_layer_again(&self, key: String) -> Result<()> {
        let image = {
            let key = key.clone();
            self.blocking(move |this| {
                let of_images = this.all()?.into_iter().map(|named| named.image);
                let of_containers = this.content_roots().into_iter();
                let of_containers = of_containers
                    .filter_map(|root| this.image_by_manifest(&root.manifest.to_string()).ok());
                let mut images = of_images.chain(of_containers);
                Ok(images.find(|image| image.chain_ids().iter().any(|id| id.to_string() == key)))
            })
            .await?
        };
        let Some(image) = image else {
            let problem = format!("make layer {key} again: no image that is here has it");
            return Err(crate::error::Error::not_found(problem));
        };
        self.blocking(move |this| {
            Ok(this.0.storage.snapshots().discard_layer(&SnapshotKey::parse(key)?)?)
        })
        .await?;
        self.unpack(&image, None).await?;
        self.sweep_behind();
        Ok(())
    }

    /// Removes content and layers that nothing needs.
    pub(crate) async fn remove_loose(&self) -> Result<()> {
        let _alone = self.0.removal.write().await;
        self.blocking(|this| {
            this.sweep_layers()?;
            super::remove::collect(this)
        })
        .await?;
        self.sweep_behind();
        Ok(())
    }
}

/// What a part of an image is called.
pub(crate) fn part_of(target: &Descriptor) -> &'static str {
    if target.is_index() {
        "index"
    } else if target.is_manifest() {
        "manifest"
    } else if target.is_layer() {
        "layer"
    } else {
        "configuration"
    }
}
