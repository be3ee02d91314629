//! OCI runtime as a library: create, start, exec, kill and delete containers from a bundle.
