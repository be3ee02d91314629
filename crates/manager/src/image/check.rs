//! Whether the content of every image is there.

use super::Images;
use crate::error::Result;

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
                let name = match &record.reference {
                    Some(reference) => reference.familiar(),
                    None => record.target.digest.to_string(),
                };
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
