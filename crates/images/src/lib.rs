//! Container images: references, registries, a verified content store, OCI layouts and docker archives.
