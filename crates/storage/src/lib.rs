//! Container storage: overlay snapshots, safe layer application, diffs, volumes and bind sources.
